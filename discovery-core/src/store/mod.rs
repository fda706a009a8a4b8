//! One copy of a watched scope: applies what the backend says and tells what really changed.

mod latest;
mod order;
mod raw;
mod same;
mod slot;
mod staged;
mod step;
pub(crate) mod tree;

use std::sync::Arc;

pub(crate) use latest::Latest;
pub(crate) use raw::{Effective, RawStore};
pub(crate) use same::same_value;
pub use slot::Undecodable;
pub(crate) use slot::{Ahead, AnySlot, Decode, KnownGood, LastGood, Slot, Source, Version, decode_caught};
pub(crate) use staged::Staged;
pub(crate) use step::Step;

use crate::backend::Entry;
use crate::key::Key;
use crate::record::Registered;
use tree::Keyed;

impl Keyed for Arc<Entry> {
    type Key = Key;

    fn key(&self) -> &Key {
        &self.key
    }
}

impl<T> Keyed for Registered<T> {
    type Key = Key;

    fn key(&self) -> &Key {
        Registered::key(self)
    }
}
