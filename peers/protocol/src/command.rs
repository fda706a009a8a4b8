//! What a side can be told to do.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A command with the number that its answer carries.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by whoever asks.
    pub id: u64,
    /// What to do.
    #[serde(flatten)]
    pub command: Command,
}

/// One thing to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum Command {
    /// Registers a record and keeps it under this name. Answers the record as registered.
    Register {
        /// How later commands call it.
        name: String,
        /// What to register.
        record: Value,
    },
    /// Withdraws what was registered under this name.
    Unregister {
        /// See [`Command::Register`].
        name: String,
    },
    /// Replaces a registered record, as far as the library can: ours updates, the reference registers again.
    Update {
        /// See [`Command::Register`].
        name: String,
        /// The new record.
        record: Value,
    },
    /// Sets the taints of a registered model.
    Taints {
        /// See [`Command::Register`].
        name: String,
        /// All of them.
        taints: Vec<String>,
    },
    /// Answers the records that match, read anew.
    List {
        /// What to read.
        query: Query,
    },
    /// Answers how long each of so many fresh lists took, in nanoseconds, what they cost the processor, and how many
    /// records they had.
    TimeList {
        /// What to read.
        query: Query,
        /// How often, after one that is not timed.
        times: usize,
    },
    /// Tells of what matches from now on, as [`Event`](crate::Event)s. Answers when the first state was told.
    Watch {
        /// What the events are told under.
        name: String,
        /// What to watch.
        query: Query,
    },
    /// Watches without telling: what comes is counted, and timed where the records tell when they were written. Answers
    /// when all have their first state, with the nanoseconds that it took.
    Watches {
        /// One for each watch.
        queries: Vec<Query>,
    },
    /// Answers what the silent watches have counted and timed since the last time, see [`Tally`](crate::Tally).
    Tally,
    /// Answers how long a router's lookups take in what the library keeps for it: groups of a thousand, in nanoseconds
    /// for each lookup, by way of looking up.
    Lookup {
        /// One endpoint.
        query: Query,
        /// How many groups.
        groups: usize,
        /// How many records there are to choose from: a library that tells of some first has the others too when it is
        /// timed.
        records: usize,
    },
    /// Registers so many endpoints `bench/pool-{n / 1000}/generate-{n}`.
    Fill {
        /// How many.
        count: usize,
    },
    /// Withdraws so many of the endpoints of [`Command::Fill`] and registers each again, one after the other.
    Churn {
        /// How many.
        count: usize,
    },
    /// Answers what the process has used, see [`Usage`](crate::Usage).
    Usage,
    /// Withdraws everything and ends the process.
    Shutdown,
}

/// What to read: a kind, and the leading parts of a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Query {
    /// `endpoint`, `model`, `event_channel` or `event_source`; for ours also a user's own kind.
    pub kind: String,
    /// For endpoints and models up to namespace, component, endpoint; for events the whole scope
    /// (`namespace/N[/component/C[/endpoint/E]]`), perhaps with `topic/T`.
    pub path: Vec<String>,
}

impl Query {
    /// Everything of a kind.
    pub fn all(kind: &str) -> Self {
        Self { kind: kind.to_owned(), path: Vec::new() }
    }

    /// What lies under a path.
    pub fn under(kind: &str, path: &[&str]) -> Self {
        Self { kind: kind.to_owned(), path: path.iter().map(|&part| part.to_owned()).collect() }
    }
}
