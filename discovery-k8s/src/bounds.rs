//! What is claimed and declared.

use std::time::Duration;

use discovery_core::{Bounds, Capabilities};

/// `R`. The core reads an owner's resource once in it.
pub(crate) const RECOVERY: Duration = Duration::from_secs(10);
/// `P`: from the API server's acknowledgement to the view.
pub(crate) const PROPAGATION: Duration = Duration::from_millis(250);
/// How long an owner that an EndpointSlice has dropped without a word is waited for in another one: the controller writes the
/// two a few milliseconds one after the other. A part of `P`. The rest of it are the spread of the requests, 25 ms, and what
/// the API server takes to answer from its cache: it asks etcd how fresh that is each 100 ms while somebody waits for it
/// (`progressRequestPeriod` in k8s.io/apiserver, `pkg/storage/cacher/progress/watch_progress.go`). So 225 ms and a round trip
/// are the usual worst, and 235 ms and one where others go just before; docs/kubernetes.md says when it is more.
pub(crate) const HANDOVER: Duration = Duration::from_millis(100);
/// The longest value in bytes. What an owner's records may take together is checked beside.
pub(crate) const MAX_VALUE: usize = 1 << 20;
/// The largest batch. One apply holds all of an owner's records, so their size is the limit.
pub(crate) const MAX_BATCH: usize = 1000;

/// Readiness and batches. No `[ttl]`: the cluster decides who lives. No `[exclusive]`: owners write different objects.
/// No `[incarnation]`: an entry that was taken out and put back in while nobody looked is not told from one that stayed.
/// No `[changelog]`: the join of two resources has two versions.
pub(crate) fn capabilities() -> Capabilities {
    let mut claims = Capabilities::none();
    (claims.readiness, claims.batch) = (true, true);
    claims
}

pub(crate) fn bounds(watches: usize) -> Bounds {
    let mut bounds = Bounds::default();
    bounds.propagation = PROPAGATION;
    bounds.recovery = RECOVERY;
    bounds.max_batch = MAX_BATCH;
    // One stream, which is this many watches of the API.
    bounds.max_watches = watches.max(2);
    bounds.max_value = MAX_VALUE;
    bounds
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is claimed is what cases run for: one claim less would leave them out, and nothing else would say so.
    #[test]
    fn readiness_and_batches_are_claimed_and_nothing_else() {
        let mut claims = Capabilities::none();
        claims.readiness = true;
        claims.batch = true;
        assert_eq!(capabilities(), claims);
    }
}
