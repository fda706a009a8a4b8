//! What this backend claims and how much it holds.

use std::time::Duration;

use discovery_core::{Bounds, Capabilities};

/// The longest value in bytes. etcd refuses requests above 1.5 MiB where it is not told otherwise.
pub(crate) const MAX_VALUE: usize = 1 << 20;
/// The largest transaction in bytes: `--max-request-bytes` is 1.5 MiB by default; the rest is for its framing.
pub(crate) const MAX_REQUEST: usize = 1_400_000;
/// The most writes of one transaction: `--max-txn-ops` is 128 by default, and one comparison is the fence's.
pub(crate) const MAX_BATCH: usize = 127;

pub(crate) fn bounds(default_ttl: Duration, min_ttl: Duration) -> Bounds {
    let mut bounds = Bounds::default();
    bounds.propagation = Duration::from_millis(500);
    bounds.min_ttl = Some(min_ttl);
    bounds.default_ttl = Some(default_ttl.max(min_ttl));
    // Of those that expire together etcd removes five hundred in half a second, so the first fifteen hundred in one and a half
    // (`leaseRevokeRate` in its `lessor.go`), sixteen of them at once (`maxPendingRevokes` in `server.go`): the rest of this time
    // is for the disk that each of those waits for.
    bounds.slack = Duration::from_secs(3);
    bounds.recovery = Duration::from_secs(5);
    // The watch itself is quicker to find a dead connection: this is for what it does not foresee.
    bounds.silence = Some(Duration::from_secs(10));
    bounds.max_batch = MAX_BATCH;
    bounds.max_watches = 32;
    bounds.max_value = MAX_VALUE;
    bounds
}

/// `members` is how many endpoints are known.
pub(crate) fn capabilities(members: usize) -> Capabilities {
    let mut claims = Capabilities::none();
    claims.lease = true;
    claims.ttl = true;
    claims.exclusive = true;
    claims.incarnation = true;
    claims.batch = true;
    claims.changelog = true;
    claims.cluster = members > 1;
    claims.storm = true;
    claims
}
