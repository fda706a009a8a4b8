//! The stable names of what the core logs and counts.
//!
//! Metrics go through the `metrics` facade. A handle looks its instruments up when it is built: install the recorder
//! first.
//!
//! | name | type | labels | meaning |
//! |---|---|---|---|
//! | `discovery_records` | gauge | backend, scope | records held of a watched scope |
//! | `discovery_freshness` | gauge | backend, scope | 0 syncing, 1 live, 2 stale |
//! | `discovery_reconnects_total` | counter | backend, scope | watches that had to be opened anew |
//! | `discovery_change_to_view_seconds` | histogram | backend, scope | from a change's arrival to its publication |
//! | `discovery_undecodable_total` | counter | kind | records that their type could not read |
//! | `discovery_reregistrations_total` | counter | backend | records put back after a loss |
//! | `discovery_sessions_lost_total` | counter | backend | sessions that were lost |
//! | `discovery_session_up` | gauge | backend | 1 while a session is proven alive |

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::error::Error;
use crate::freshness::Freshness;
use crate::key::Key;
use crate::query::Scope;

/// The instruments of one feed.
pub(crate) struct FeedMeter {
    pub(crate) records: Gauge,
    freshness: Gauge,
    pub(crate) reconnects: Counter,
    pub(crate) change_to_view: Histogram,
}

impl FeedMeter {
    pub(crate) fn new(backend: &str, scope: &Scope) -> Self {
        let labels = [("backend", backend.to_owned()), ("scope", scope.to_string())];
        Self {
            records: gauge!("discovery_records", &labels),
            freshness: gauge!("discovery_freshness", &labels),
            reconnects: counter!("discovery_reconnects_total", &labels),
            change_to_view: histogram!("discovery_change_to_view_seconds", &labels),
        }
    }

    pub(crate) fn freshness(&self, freshness: &Freshness) {
        self.freshness.set(match freshness {
            Freshness::Syncing => 0.0,
            Freshness::Live => 1.0,
            Freshness::Stale { .. } => 2.0,
        });
    }
}

impl Drop for FeedMeter {
    /// Nothing is held of a scope that is not watched.
    fn drop(&mut self) {
        self.records.set(0.0);
        self.freshness(&Freshness::Syncing);
    }
}

/// The instruments of one handle's registrations.
pub(crate) struct OwnerMeter {
    pub(crate) reregistrations: Counter,
    pub(crate) sessions_lost: Counter,
    pub(crate) session_up: Gauge,
}

impl OwnerMeter {
    pub(crate) fn new(backend: &str) -> Self {
        let labels = [("backend", backend.to_owned())];
        Self {
            reregistrations: counter!("discovery_reregistrations_total", &labels),
            sessions_lost: counter!("discovery_sessions_lost_total", &labels),
            session_up: gauge!("discovery_session_up", &labels),
        }
    }
}

/// A record that its type cannot read.
pub(crate) fn undecodable(key: &Key, error: &Error) {
    counter!("discovery_undecodable_total", "kind" => key.kind().to_owned()).increment(1);
    tracing::warn!(key = %key, error = %error, "record skipped: it does not decode");
}
