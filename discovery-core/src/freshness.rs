//! Whether what a view shows is known to be current.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;

/// What is known of a view's currency. A failure of the transport never changes membership; it changes this.
///
/// Not `#[non_exhaustive]`, on purpose: a consumer decides what to do in each of these, and there is nothing sensible to do
/// in one that it has never heard of. A fourth would be another contract.
#[derive(Clone, Debug, Default)]
pub enum Freshness {
    /// The first state has not arrived yet.
    #[default]
    Syncing,
    /// Every change shows within the backend's propagation bound.
    Live,
    /// The store is out of touch: the last known set is still shown.
    Stale {
        /// Since when, on tokio's monotonic clock.
        since: Instant,
        /// Why.
        cause: Error,
    },
}

impl Freshness {
    /// Whether every change shows within the propagation bound.
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Live)
    }

    /// How long the set has been stale; `None` unless it is.
    pub fn stale_for(&self) -> Option<Duration> {
        match self {
            Self::Stale { since, .. } => Some(since.elapsed()),
            Self::Syncing | Self::Live => None,
        }
    }

    /// The stable name used in logs and metrics: `syncing`, `live`, `stale`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Syncing => "syncing",
            Self::Live => "live",
            Self::Stale { .. } => "stale",
        }
    }

    /// Whether a consumer that was told `self` has nothing new to hear in `other`: a stale set whose cause changes is
    /// still the same stale set.
    pub(crate) fn same_news(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Syncing, Self::Syncing) | (Self::Live, Self::Live) => true,
            (Self::Stale { since: a, cause: x }, Self::Stale { since: b, cause: y }) => a == b && x.kind() == y.kind(),
            _ => false,
        }
    }
}
