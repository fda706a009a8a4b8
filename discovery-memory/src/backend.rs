//! A handle as a backend.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use discovery_core::backend::{Backend, ChangeLog, Entry, Health, Position, WatchStream, Watcher};
use discovery_core::{Bounds, Capabilities, Key, Result, Scope};
use tokio::time::Instant;

use crate::bounds;
use crate::cluster::{Cluster, Operation};
use crate::handle::{Handle, Shared};
use crate::link::Link;
use crate::place::Place;
use crate::state::OwnerId;
use crate::watch;

/// One handle of a [`Cluster`]: what a process would hold. Made by [`Cluster::connect`].
///
/// A clone is the same handle. Records belong to the handle: a second session of it takes over what the first one
/// stored, and for another handle they are somebody else's.
#[derive(Clone, Debug)]
pub struct MemoryBackend {
    handle: Shared,
}

impl MemoryBackend {
    pub(crate) fn new(cluster: Cluster, owner: OwnerId, default_ttl: Duration) -> Self {
        Self { handle: Arc::new(Handle { cluster, owner, default_ttl, link: Link::new() }) }
    }

    pub(crate) fn handle(&self) -> &Shared {
        &self.handle
    }

    /// The cluster that this is a handle of.
    pub fn cluster(&self) -> &Cluster {
        &self.handle.cluster
    }

    /// Tells this handle from the others of its cluster.
    pub fn owner(&self) -> OwnerId {
        self.handle.owner
    }

    /// This handle's connection, to break and to heal.
    pub fn link(&self) -> &Link {
        &self.handle.link
    }
}

#[async_trait]
impl Watcher for MemoryBackend {
    async fn watch(&self, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
        self.handle.enter(Operation::Watch).await?;
        Ok(watch::open(&self.handle, scope, after))
    }

    async fn list(&self, scope: &Scope) -> Result<(Vec<Entry>, Position)> {
        self.handle.enter(Operation::List).await?;
        let state = self.handle.cluster.state();
        let visible = state.records.within(scope).filter(|(_, record)| state.is_visible(record));
        Ok((visible.map(|(key, record)| record.entry(key)).collect(), state.here().position()))
    }

    fn coarsen(&self, scope: &Scope) -> Scope {
        scope.clone()
    }

    async fn barrier(&self, scope: &Scope) -> Result<Option<Position>> {
        self.handle.enter(Operation::Barrier).await?;
        let mut state = self.handle.cluster.state();
        let (revision, reader) = (state.revision, self.handle.owner);
        state.watchers.covering(scope.as_str(), |slot| {
            if slot.reader == reader {
                slot.nudge(revision);
            }
        });
        Ok(Some(state.here().position()))
    }

    fn reached(&self, at: &Position, target: &Position) -> bool {
        match (Place::parse(at), Place::parse(target)) {
            (Some(at), Some(target)) => at.reached(target),
            _ => false,
        }
    }
}

#[async_trait]
impl Backend for MemoryBackend {
    fn name(&self) -> &str {
        crate::NAME
    }

    fn capabilities(&self) -> Capabilities {
        let cluster = &self.handle.cluster;
        bounds::capabilities(cluster.claims_readiness(), cluster.weather().members.count() > 1)
    }

    fn bounds(&self) -> Bounds {
        bounds::bounds(self.handle.default_ttl)
    }

    fn admit(&self, key: &Key, value: usize) -> Result<()> {
        bounds::admit(key, value).map_err(|error| error.with_backend(crate::NAME))
    }

    async fn health(&self) -> Result<Health> {
        let start = Instant::now();
        self.handle.enter(Operation::Health).await?;
        let cluster = &self.handle.cluster;
        let name = cluster.name().map_or_else(|| "without a name".to_owned(), |name| format!("{name:?}"));
        let state = cluster.state();
        let detail = format!(
            "cluster {name} in this process, revision {}, {} records, {} sessions",
            state.revision,
            state.records.len(),
            state.session_count()
        );
        Ok(Health::new(start.elapsed(), detail))
    }

    fn change_log(&self) -> Option<&dyn ChangeLog> {
        Some(self)
    }

    async fn close(&self) -> Result<()> {
        self.handle.link.close();
        Ok(())
    }
}
