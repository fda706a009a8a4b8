//! What a side writes.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::usage::now;

/// One line of a side's standard output.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// It is connected, and its endpoints and models have this instance id.
    Ready {
        /// Told as text: JSON's numbers end at 2^53 for many readers.
        instance: String,
    },
    /// A command was done.
    Done {
        /// The command's.
        id: u64,
        /// What it answers.
        answer: Value,
    },
    /// A command failed.
    Failed {
        /// The command's.
        id: u64,
        /// Why.
        error: String,
    },
    /// A watch tells something.
    Told {
        /// The watch's name.
        watch: String,
        /// When, in nanoseconds of the clock that all processes share.
        at: u64,
        /// What.
        event: Event,
    },
    /// The library gave up by itself, and the process ends.
    Ended {
        /// Why.
        reason: String,
    },
}

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A record is new, or replaces the one of its name.
    Put(Value),
    /// The taints of a model changed.
    Taints {
        /// The model's name, see [`name_of`](crate::name_of).
        name: String,
        /// All of them.
        taints: Vec<String>,
    },
    /// A record is gone.
    Removed {
        /// Its name.
        name: String,
    },
    /// This is all there is.
    State(Vec<Value>),
}

/// Standard output, a line at a time from any task.
#[derive(Clone, Copy, Debug, Default)]
pub struct Output;

impl Output {
    /// Writes a line. Nobody to read it is no error: the process is about to end.
    pub fn write(self, line: &Line) {
        let mut text = serde_json::to_vec(line).unwrap_or_default();
        text.push(b'\n');
        let mut out = io::stdout().lock();
        let _ = out.write_all(&text).and_then(|()| out.flush());
    }

    /// Writes what a watch tells now.
    pub fn tell(self, watch: &str, event: Event) {
        self.write(&Line::Told { watch: watch.to_owned(), at: now(), event });
    }
}
