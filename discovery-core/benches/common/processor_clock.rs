//! The time that the processor gives to this process. What it gives to other programs meanwhile does not count, so
//! that figures repeat on a machine that has other work. For what never waits.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Since some moment in the past.
pub(crate) fn now() -> Duration {
    clock_gettime(ClockId::ProcessCPUTime).try_into().expect("a time after the start")
}
