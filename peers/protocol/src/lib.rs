//! What a side of the comparison is told and what it answers, one JSON text on each line.
//!
//! A side is a process: ours or the reference's. It reads [`Request`]s from standard input, does them on its handle, and
//! writes [`Line`]s to standard output. Both sides share this crate, so that nothing but the two libraries differs.
//!
//! Records are what both libraries store: JSON objects with a `"type"`. The instance of endpoints and models is left out
//! where a record is to be registered; the owner's is put in.

mod command;
mod line;
mod names;
mod serve;
mod tally;
mod usage;

pub use command::{Command, Query, Request};
pub use line::{Event, Line, Output};
pub use names::{name_of, naming};
pub use serve::{Answer, Side, serve, time_lookups, timed};
pub use tally::Tally;
pub use usage::{Usage, now};
