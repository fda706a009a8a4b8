//! The simple case made simple: whole backends from stores that can do little.
//!
//! - [`Polling`] makes a [`Watcher`](crate::backend::Watcher) of a [`Lister`], a store that can only be listed.
//! - [`KeySessions`] makes a [`Registrar`](crate::backend::Registrar) of a [`KeyStore`], a store of keys with a time to
//!   live and one atomic compare-and-swap.
//! - [`Simple`] makes a [`Backend`](crate::backend::Backend) of a [`KeyStore`] alone: the author writes that trait and a
//!   factory.
//!
//! `docs/writing-a-backend.md` leads through it.

mod document;
mod keys;
mod name;
mod owner;
mod polling;
mod session;
mod simple;

pub use keys::{KeyStore, Stored, Swap, Swapped, Tag, Terms};
pub use name::{name_of, parse_name};
pub use polling::{Lister, Listing, Nudges, Polling};
pub use session::KeySessions;
pub use simple::Simple;
