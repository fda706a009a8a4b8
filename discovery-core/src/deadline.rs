//! Moments in the future, however far.

use std::time::Duration;

use tokio::time::Instant;

/// So late that nobody waits for it, and still a moment that every clock can tell.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

/// `after` from `now`; an endless `after` is thirty years.
pub(crate) fn later(now: Instant, after: Duration) -> Instant {
    now + after.min(FAR)
}
