//! The adapters: watches of a store that can only be listed, sessions and a whole backend on a store of keys.

mod polling;
mod sessions;
mod simple;
mod toy;
