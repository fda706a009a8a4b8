//! The time that passes.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Since some moment in the past.
pub(crate) fn now() -> Duration {
    START.elapsed()
}
