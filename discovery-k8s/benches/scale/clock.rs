//! Clocks that two processes share, and one of this process alone.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Since some moment in the past that is the same for every process of the machine.
pub(crate) fn now() -> Duration {
    read(ClockId::Monotonic)
}

/// The processor time that all threads of this process were given.
pub(crate) fn processor() -> Duration {
    read(ClockId::ProcessCPUTime)
}

fn read(clock: ClockId) -> Duration {
    clock_gettime(clock).try_into().expect("a time after the clock's start")
}
