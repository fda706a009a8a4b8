//! What a store of keys with a time to live gives.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::polling::{Listing, Nudges};
use crate::error::Result;

/// Names one write: every document that is stored has another tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tag(pub u64);

/// What stands under a name. The store keeps both parts as they are and looks into neither.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// What [`Swap::expect`] is compared with.
    pub tag: Tag,
    /// Any bytes.
    pub document: Bytes,
}

/// One compare-and-swap: if what stands under `name` is as expected, store, or else change nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// The name: UTF-8 without control characters, at most [`Terms::max_name`] bytes.
    pub name: String,
    /// The tag of what must stand there; `None` where nothing must.
    pub expect: Option<Tag>,
    /// What is stored in its place. `None`: what stands there stays, and lives for another time to live.
    pub put: Option<Stored>,
}

/// What came of a [`Swap`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swapped {
    /// It was as expected, and the swap is done.
    Done,
    /// Something else stands there, or nothing. Nothing was changed.
    Differs(Option<Stored>),
}

/// What a store of keys holds to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How often an open watch lists its scope when nothing nudges it.
    pub interval: Duration,
    /// The time to live where the user asks for none.
    pub default_ttl: Duration,
    /// The smallest time to live: what is asked for below it is raised. Below the few seconds that a repair takes,
    /// records lapse in faults that are over before anybody would care.
    pub min_ttl: Duration,
    /// How much later than its time to live a document may still be listed.
    pub lateness: Duration,
    /// The longest name in bytes.
    pub max_name: usize,
    /// The longest value in bytes. Documents are up to 64 bytes longer.
    pub max_value: usize,
}

impl Default for Terms {
    /// Lists twice a second; ten seconds to live, at least five, exact to the second; names of 1 KiB, values of 1 MiB.
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(500),
            default_ttl: Duration::from_secs(10),
            min_ttl: Duration::from_secs(5),
            lateness: Duration::from_secs(1),
            max_name: 1 << 10,
            max_value: 1 << 20,
        }
    }
}

/// A store of named documents that vanish when their time to live has passed. [`Simple`](super::Simple) makes a whole
/// backend of it.
///
/// The store promises three things: a swap is atomic, a list is one state of the store, and both speak of the same,
/// newest state (so they go to the same primary). Owners, incarnations, fencing, conflicts and retries are the
/// adapter's. Any future may be dropped at any await: whether a swap was done is then found out by the next one.
#[async_trait]
pub trait KeyStore: Send + Sync + 'static {
    /// Every document whose name starts with `prefix`, as one committed state of the store that is no older than this
    /// call. Those whose time has passed are left out.
    ///
    /// # Errors
    /// Where the store cannot be asked. Never an empty list instead.
    async fn list(&self, prefix: &str) -> Result<Listing<(String, Stored)>>;

    /// Carries out swaps, each atomic by itself, and answers one result for each, in order. What is stored or stays
    /// lives for `ttl` from now. No name comes twice in one call; a call brings at most 128 swaps, and of documents at
    /// most 1 MiB or else one.
    ///
    /// # Errors
    /// Where the store cannot be asked, or did not answer. Some of the swaps may have been done all the same.
    async fn swap(&self, swaps: &[Swap], ttl: Duration) -> Result<Vec<Swapped>>;

    /// Hints that something may have changed: see [`Lister::nudges`](super::Lister::nudges). The default has none.
    ///
    /// # Errors
    /// Where the store cannot be asked; the watch is opened again with back-off.
    async fn nudges(&self) -> Result<Nudges> {
        Ok(stream::pending().boxed())
    }

    /// One round trip, and what the store says of itself: address, version.
    ///
    /// # Errors
    /// What keeps it from serving, with what to do next.
    async fn ping(&self) -> Result<String>;

    /// What the store holds to. Always the same.
    fn terms(&self) -> Terms {
        Terms::default()
    }

    /// Closes connections. Called once, after everything else. The default leaves it to dropping.
    ///
    /// # Errors
    /// What could not be closed in order.
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
