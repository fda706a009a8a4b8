//! What a process has used, and the clock that processes share.

use std::fs;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// What a process has used up to now.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Processor time of all its threads, in nanoseconds.
    pub processor: u64,
    /// Resident memory, in bytes.
    pub resident: u64,
    /// How many threads it has.
    pub threads: u64,
}

impl Usage {
    /// Of this process, from `/proc`.
    pub fn of_this_process() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let number = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        };
        Self {
            processor: nanos(read(ClockId::ProcessCPUTime)),
            resident: number("VmRSS:").unwrap_or_default() * 1024,
            threads: number("Threads:").unwrap_or_default(),
        }
    }
}

/// Nanoseconds since a moment in the past that is the same for every process of the machine.
pub fn now() -> u64 {
    nanos(read(ClockId::Monotonic))
}

fn read(clock: ClockId) -> Duration {
    clock_gettime(clock).try_into().unwrap_or_default()
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
