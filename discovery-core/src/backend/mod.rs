//! What a backend gives: the traits between a store and the core.
//!
//! A backend knows one store and nothing else. It answers with errors at once and leaves to the core what every store
//! needs alike: reopening, back-off, retries, filters, slow consumers, putting records back. The promises that every
//! backend keeps are numbered in `docs/contract.md`; what the calls themselves promise stands at each method here.
//!
//! No method blocks its thread. Every future may be dropped at any await, and the backend is then as if the call had
//! failed with [`Effect::Unknown`](crate::Effect::Unknown).

mod event;
mod session;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

pub use event::{Change, Entry, Incarnation, Lineage, Position, WatchEvent};
pub use session::{Desired, Drift, Registrar, Session, SessionRequest, Stamp, Write, WriteBatch};

use crate::capability::{Bounds, Capabilities};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::query::Scope;

/// The events of one watch. An `Err` item, or the stream's end, makes the core reopen the watch with back-off.
pub type WatchStream = BoxStream<'static, Result<WatchEvent>>;

/// The reading side of a backend.
#[async_trait]
pub trait Watcher: Send + Sync + 'static {
    /// Opens a watch of `scope`.
    ///
    /// With `after`, the position that the caller has reached, a backend that still has the history since then answers
    /// [`WatchEvent::Resumed`] and goes on from there. Else the stream begins with a snapshot, which holds every write
    /// that was acknowledged before this call and is never older than `after`, unless it says [`Lineage::Reset`].
    ///
    /// Dropping the stream closes the watch.
    ///
    /// # Errors
    /// Temporary errors are retried by the core. [`ErrorKind::InvalidQuery`] and [`ErrorKind::Unsupported`] end the
    /// views of this scope. [`ErrorKind::PermissionDenied`] fails a view that is being opened.
    async fn watch(&self, scope: &Scope, after: Option<&Position>) -> Result<WatchStream>;

    /// One linearizable snapshot of `scope`: every write that was acknowledged before this call, and its position.
    ///
    /// The default opens a watch and closes it after its snapshot. Such a watch is not counted against
    /// [`Bounds::max_watches`], and each list that runs has one: a store that can read without a watch does so here.
    ///
    /// # Errors
    /// Where the store cannot be asked. Not retried by the core.
    async fn list(&self, scope: &Scope) -> Result<(Vec<Entry>, Position)> {
        let mut stream = self.watch(scope, None).await?;
        let mut entries = Vec::new();
        while let Some(event) = stream.next().await {
            match event? {
                WatchEvent::SnapshotStart { .. } => entries.clear(),
                WatchEvent::SnapshotChunk(chunk) => entries.extend(chunk),
                WatchEvent::SnapshotEnd(position) => return Ok((entries, position)),
                WatchEvent::Interrupted(error) => return Err(error),
                _ => {}
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "the watch ended before its snapshot did: try again"))
    }

    /// The smallest scope that this store can watch and that covers `scope`.
    fn coarsen(&self, scope: &Scope) -> Scope;

    /// A position that holds every write acknowledged before this call. Open watches that cover `scope` reach it within
    /// the declared propagation bound, also when nothing changes, and also after a [`Lineage::Reset`]. `None`: this store
    /// has no such thing, and the core reads a new snapshot instead.
    ///
    /// # Errors
    /// Where the store cannot be asked.
    async fn barrier(&self, scope: &Scope) -> Result<Option<Position>>;

    /// Whether a watch that is at `at` has seen all that `target` stands for. The two may come from different watches, of
    /// different scopes, from barriers and from stamps: they are comparable as far as they speak of the scope of the
    /// watch that is at `at`. Reflexive and transitive within one history. Across a [`Lineage::Reset`] the answer may be
    /// wrong to either side for positions from before it: the core never waits for one of those without asking for a new
    /// barrier beside.
    fn reached(&self, at: &Position, target: &Position) -> bool;
}

/// One store, as one handle sees it: its own sessions, its own connections.
#[async_trait]
pub trait Backend: Watcher + Registrar {
    /// The name that `DYN_DISCOVERY_BACKEND` picks it by.
    fn name(&self) -> &str;

    /// What it claims.
    fn capabilities(&self) -> Capabilities;

    /// The bounds that it declares.
    fn bounds(&self) -> Bounds;

    /// Refuses what this store cannot hold, before any I/O. `value` is the value's length in bytes.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`] or [`ErrorKind::TooLarge`], saying which character or which length.
    fn admit(&self, key: &Key, value: usize) -> Result<()>;

    /// Asks the store whether it serves, and how fast.
    ///
    /// # Errors
    /// What keeps it from serving, with what to do next.
    async fn health(&self) -> Result<Health>;

    /// The history of committed changes, where the store keeps one.
    fn change_log(&self) -> Option<&dyn ChangeLog>;

    /// Closes connections. Called once, after the last session and the last watch.
    ///
    /// # Errors
    /// What could not be closed in order; the backend counts as closed all the same.
    async fn close(&self) -> Result<()>;
}

/// Committed changes in order, for stores with history (`[changelog]`).
#[async_trait]
pub trait ChangeLog: Send + Sync {
    /// A token for now: every later change comes after it.
    ///
    /// # Errors
    /// Where the store cannot be asked.
    async fn now(&self) -> Result<Position>;

    /// Every committed change of `scope` after `token`, in commit order, one item for each transaction; the stream
    /// then goes on with new ones. The store is read only as fast as the stream is polled.
    ///
    /// # Errors
    /// [`ErrorKind::Expired`], at open or as an item, once the store no longer keeps what comes next.
    async fn changes_since(
        &self,
        scope: &Scope,
        token: &Position,
    ) -> Result<BoxStream<'static, Result<(Vec<Change>, Position)>>>;
}

/// A store's answer to a health check.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// How long the round trip took.
    pub latency: Duration,
    /// What the store says of itself: version, address, directory.
    pub detail: String,
}

impl Health {
    /// An answer that took `latency`.
    pub fn new(latency: Duration, detail: impl Into<String>) -> Self {
        Self { latency, detail: detail.into() }
    }
}

impl dyn Backend {
    /// The change log, or the error of a backend that does not claim one.
    pub(crate) fn require_change_log(&self) -> Result<&dyn ChangeLog> {
        self.change_log().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, "this backend keeps no change log: use a view instead")
                .with_backend(self.name())
                .with_operation("changes_since")
        })
    }
}

impl fmt::Debug for dyn Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backend").field("name", &self.name()).field("capabilities", &self.capabilities()).finish()
    }
}
