//! Reading: from the kernel's notices to the events of a watch.
//!
//! `notice` asks the kernel what happened where; `owners` knows who is alive; `look` reads a file; `files` knows which
//! records they show; `scan` compares, one pass after another; `log` is what streams read from; `mirror` runs them, one
//! for each handle, while there is a watch.

mod files;
mod log;
mod look;
mod mirror;
mod notice;
mod owners;
mod scan;

pub(crate) use mirror::Mirror;
