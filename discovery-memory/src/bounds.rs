//! What this backend claims and how much it holds.

use std::time::Duration;

use discovery_core::{Bounds, Capabilities, Error, ErrorKind, Key, Result};

/// The most writes of one transaction.
pub(crate) const MAX_BATCH: usize = 128;
/// The longest value in bytes.
pub(crate) const MAX_VALUE: usize = 1 << 20;
/// The shortest time to live.
pub(crate) const MIN_TTL: Duration = Duration::from_millis(100);
/// The time to live where nobody asks for another.
pub(crate) const DEFAULT_TTL: Duration = Duration::from_secs(10);
/// How often a watch says that it is alive.
pub(crate) const PROGRESS: Duration = Duration::from_millis(200);
/// The most entries of one part of a snapshot.
pub(crate) const CHUNK: usize = 1_000;

pub(crate) fn bounds(default_ttl: Duration) -> Bounds {
    let mut bounds = Bounds::default();
    bounds.propagation = Duration::from_millis(100);
    bounds.min_ttl = Some(MIN_TTL);
    bounds.default_ttl = Some(default_ttl);
    bounds.slack = Duration::from_millis(200);
    bounds.recovery = Duration::from_secs(1);
    bounds.silence = Some(Duration::from_millis(800));
    bounds.max_batch = MAX_BATCH;
    bounds.max_watches = 64;
    bounds.max_value = MAX_VALUE;
    bounds
}

pub(crate) fn capabilities(readiness: bool, cluster: bool) -> Capabilities {
    let mut claims = Capabilities::none();
    claims.lease = true;
    claims.ttl = true;
    claims.exclusive = true;
    claims.incarnation = true;
    claims.batch = true;
    claims.changelog = true;
    claims.storm = true;
    claims.readiness = readiness;
    claims.cluster = cluster;
    claims
}

/// Refuses a value that is too long. Every key can be stored.
pub(crate) fn admit(key: &Key, value: usize) -> Result<()> {
    if value > MAX_VALUE {
        let message = format!("the value has {value} bytes, at most {MAX_VALUE} can be stored");
        return Err(Error::new(ErrorKind::TooLarge, message).with_key(key));
    }
    Ok(())
}
