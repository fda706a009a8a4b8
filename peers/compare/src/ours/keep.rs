//! What is registered, whatever its type.

use discovery_core::{Record, Registration};
use discovery_peer_protocol::Answer;
use futures_util::future::{BoxFuture, FutureExt};
use serde_json::Value;

use super::{parsed, said};

/// A registration whose type is forgotten.
pub(super) trait Kept: Send + Sync {
    /// The record in its stored form.
    fn record(&self) -> Value;
    /// Replaces it.
    fn update(&self, record: Value) -> BoxFuture<'_, Answer>;
    /// Withdraws it.
    fn deregister(&self) -> BoxFuture<'_, discovery_core::Result<()>>;
}

impl<T: Record> Kept for Registration<T> {
    fn record(&self) -> Value {
        let stored = self.value().encode(self.key()).ok();
        stored.and_then(|stored| serde_json::from_slice(&stored).ok()).unwrap_or_default()
    }

    fn update(&self, record: Value) -> BoxFuture<'_, Answer> {
        async move {
            Registration::update(self, parsed(record)?).await.map_err(said)?;
            Ok(Kept::record(self))
        }
        .boxed()
    }

    fn deregister(&self) -> BoxFuture<'_, discovery_core::Result<()>> {
        Registration::deregister(self).boxed()
    }
}
