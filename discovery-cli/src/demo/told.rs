//! What the demo's processes tell each other: a JSON document on each line of a pipe.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead, Write};
use std::thread;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::failure::{Failure, Outcome};

/// A moment on the clock that all processes of a machine share and that nobody sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Moment(u64);

impl Moment {
    pub(super) fn now() -> Self {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        // The clock counts from the start of the machine.
        Self(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }

    pub(super) fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// The time from `earlier` until this moment.
    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// What a worker tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum WorkerTold {
    /// Serving; registered between two moments.
    Ready { instance: String, address: String, ttl: Duration, asked: Moment, at: Moment },
    /// Told to stop: about to withdraw its records.
    Draining { at: Moment },
    /// Its records are withdrawn, with this many requests not answered yet.
    Deregistered { in_flight: u64, at: Moment },
    /// Stops. Each request that was accepted was answered, or not.
    Finished { accepted: u64, answered: u64 },
}

/// What the router is asked for: a report, once it has answered this many requests.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Ask {
    pub(super) answered: u64,
    /// Whether no more requests are to be sent.
    pub(super) stop: bool,
}

/// What the router tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum RouterTold {
    /// Its views are live.
    Ready { bounds: Bounds },
    /// One of its views changed.
    Change { kind: Kind, gone: bool, instance: String, address: Option<String>, at: Moment },
    /// Its views are current, or not.
    Freshness { state: String, cause: Option<String> },
    /// The answer to an [`Ask`].
    Report(Report),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Endpoint,
    Model,
}

/// What the backend declares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bounds {
    pub(super) propagation: Duration,
    pub(super) slack: Duration,
    pub(super) recovery: Duration,
    pub(super) death_notice: bool,
}

/// The router's views and what became of its requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Report {
    /// The address of each instance, as the view shows it.
    pub(super) endpoints: BTreeMap<String, String>,
    /// The instances whose model the view shows.
    pub(super) models: BTreeSet<String>,
    pub(super) answered: u64,
    /// Requests that no worker answered, though there was one.
    pub(super) failed: u64,
    /// Per instance that a request was ever sent to.
    pub(super) sent: BTreeMap<String, Sent>,
}

/// What became of the requests that were sent to one instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sent {
    pub(super) answered: u64,
    /// The connection was refused or broke.
    pub(super) broken: u64,
    pub(super) timed_out: u64,
    /// When the newest one was sent.
    pub(super) last: Moment,
}

/// Tells whoever started this process.
pub(super) fn tell_parent(told: &impl Serialize) -> Outcome {
    crate::output::json_line(&mut io::stdout().lock(), told)
}

/// What whoever started this process says; `None` at its end. On a thread of its own, which ends with the process.
pub(super) fn hear_parent<T: DeserializeOwned + Send + 'static>() -> mpsc::Receiver<T> {
    let (sender, receiver) = mpsc::channel(16);
    thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(heard) = line.and_then(|line| Ok(serde_json::from_str(&line)?)) else { return };
            if sender.blocking_send(heard).is_err() {
                return;
            }
        }
    });
    receiver
}

/// Ties this process to the one that started it: it is killed with it, even while it is stopped.
pub(super) fn die_with(parent: u32) -> Outcome {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|error| Failure::failed(format!("demo: cannot be tied to the parent process: {error}")))?;
    let alive = rustix::process::getppid().is_some_and(|id| u32::try_from(id.as_raw_nonzero().get()) == Ok(parent));
    if alive {
        Ok(())
    } else {
        Err(Failure::failed("demo: the parent process is gone: start it with `discovery demo`"))
    }
}

/// One line, as it goes down a pipe.
pub(super) fn to_line(told: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    serde_json::to_writer(&mut line, told)?;
    line.write_all(b"\n")?;
    Ok(line)
}
