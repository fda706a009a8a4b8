//! The backend's traits without the core: sessions that cases renew themselves, watches that they read themselves.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use discovery_core::backend::{
    Backend, Change, Desired, Lineage, Position, Registrar, Session, SessionRequest, Stamp, WatchEvent, WatchStream,
    Write, WriteBatch,
};
use discovery_core::{InstanceId, Key, Result, Scope};
use futures_util::StreamExt;
use tokio::time::{Instant, sleep, timeout_at};

use crate::case::{CaseResult, fail};
use crate::trial::Trial;

/// A write of some JSON.
pub(super) fn put(key: &Key, value: impl Into<Bytes>) -> Write {
    Write::Put { key: key.clone(), value: value.into() }
}

/// A session that nothing renews.
pub(super) struct Plain {
    pub(super) session: Box<dyn Session>,
    desired: Mutex<Desired>,
}

impl Plain {
    /// A first session of the n-th owner.
    pub(super) async fn open(t: &Trial, n: usize) -> CaseResult<Self> {
        Self::open_for(t, n, t.ttl()).await
    }

    /// One of this time to live, where the backend knows any.
    pub(super) async fn open_for(t: &Trial, n: usize, ttl: Duration) -> CaseResult<Self> {
        Self::request(t, n, None, ttl).await
    }

    /// One that follows a session that the owner gave up.
    pub(super) async fn again(t: &Trial, n: usize, id: InstanceId) -> CaseResult<Self> {
        Self::request(t, n, Some(id), t.ttl()).await
    }

    async fn request(t: &Trial, n: usize, id: Option<InstanceId>, ttl: Duration) -> CaseResult<Self> {
        let ttl = t.capabilities().ttl.then_some(ttl);
        let session = t.backend(n).await?.open(&SessionRequest::new(ttl, id)).await?;
        Ok(Self { session, desired: Mutex::default() })
    }

    pub(super) fn id(&self) -> InstanceId {
        self.session.id()
    }

    /// How long it lives without a renewal.
    pub(super) fn life(&self) -> Duration {
        self.session.effective_ttl().unwrap_or(Duration::MAX)
    }

    /// Renews, and tries again for as long as it may still live, as owners do.
    pub(super) async fn renew(&self) -> CaseResult {
        let Some(ttl) = self.session.effective_ttl() else { return Ok(()) };
        let began = Instant::now();
        while let Err(error) = self.session.renew().await {
            if !error.is_temporary() || began.elapsed() >= ttl {
                return Err(error.into());
            }
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Independent writes, and what became of each.
    pub(super) async fn publish(&self, writes: Vec<Write>) -> Vec<Result<Stamp>> {
        let desired = {
            let mut desired = self.desired.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            for write in &writes {
                match write {
                    Write::Put { key, value } => drop(desired.insert(key.clone(), value.clone())),
                    Write::Delete { key } => drop(desired.remove(key)),
                }
            }
            desired.clone()
        };
        self.session.publish(&WriteBatch { writes, atomic: false }, &desired).await
    }

    /// Writes that all have to succeed.
    pub(super) async fn write(&self, writes: Vec<Write>) -> CaseResult {
        for result in self.publish(writes).await {
            result?;
        }
        Ok(())
    }

    pub(super) async fn close(&self) -> Result<()> {
        self.session.close().await
    }
}

/// A watch of everything, read as it comes.
pub(super) struct RawWatch {
    scope: Scope,
    /// None once it ended by an error.
    stream: Option<WatchStream>,
    /// What the snapshots and batches so far add up to.
    pub(super) state: BTreeMap<Key, Bytes>,
    /// The history of the newest snapshot.
    pub(super) lineage: Lineage,
    pub(super) position: Option<Position>,
    /// How often each key was deleted.
    pub(super) deletes: BTreeMap<Key, usize>,
}

impl RawWatch {
    /// Opens one and reads its snapshot.
    pub(super) async fn open(t: &Trial, backend: &dyn Backend) -> CaseResult<Self> {
        Self::of(t, backend, &backend.coarsen(&Scope::all())).await
    }

    /// The same of one scope.
    pub(super) async fn of(t: &Trial, backend: &dyn Backend, scope: &Scope) -> CaseResult<Self> {
        let stream = backend.watch(scope, None).await?;
        let mut watch = Self {
            scope: scope.clone(),
            stream: Some(stream),
            state: BTreeMap::new(),
            lineage: Lineage::Unknown,
            position: None,
            deletes: BTreeMap::new(),
        };
        let until = Instant::now() + t.propagation();
        while watch.position.is_none() {
            if watch.event(until).await?.is_none() {
                return Err(fail!("the watch has no snapshot within {:?}", t.propagation()));
            }
        }
        Ok(watch)
    }

    /// The next event, applied; `None` at `until`.
    pub(super) async fn event(&mut self, until: Instant) -> CaseResult<Option<WatchEvent>> {
        let Some(event) = self.told(until).await? else { return Ok(None) };
        Ok(Some(self.apply(event?)))
    }

    /// The same on a store that is busy, where a watch may end by a temporary error: it goes on from where it was, as the
    /// core has it.
    pub(super) async fn event_or_again(
        &mut self,
        backend: &dyn Backend,
        until: Instant,
    ) -> CaseResult<Option<WatchEvent>> {
        loop {
            if self.stream.is_none() {
                match backend.watch(&self.scope, self.position.as_ref()).await {
                    Ok(stream) => self.stream = Some(stream),
                    Err(error) if !error.is_temporary() => return Err(error.into()),
                    Err(_) if Instant::now() >= until => return Ok(None),
                    Err(_) => sleep(Duration::from_millis(20)).await,
                }
                continue;
            }
            match self.told(until).await? {
                None => return Ok(None),
                Some(Ok(event)) => return Ok(Some(self.apply(event))),
                Some(Err(error)) if error.is_temporary() => self.stream = None,
                Some(Err(error)) => return Err(error.into()),
            }
        }
    }

    /// `None` at `until`.
    async fn told(&mut self, until: Instant) -> CaseResult<Option<Result<WatchEvent>>> {
        let Some(stream) = &mut self.stream else { return Err(fail!("the watch ended")) };
        match timeout_at(until, stream.next()).await {
            Err(_) => Ok(None),
            Ok(None) => Err(fail!("the watch ended")),
            Ok(event) => Ok(event),
        }
    }

    fn apply(&mut self, event: WatchEvent) -> WatchEvent {
        match &event {
            WatchEvent::SnapshotStart { lineage } => {
                self.lineage = *lineage;
                self.state.clear();
            }
            WatchEvent::SnapshotChunk(entries) => {
                self.state.extend(entries.iter().map(|entry| (entry.key.clone(), entry.value.clone())));
            }
            WatchEvent::SnapshotEnd(position) | WatchEvent::Progress(position) => {
                self.position = Some(position.clone());
            }
            WatchEvent::Batch { changes, position } => {
                for change in changes {
                    match change {
                        Change::Put(entry) => drop(self.state.insert(entry.key.clone(), entry.value.clone())),
                        Change::Delete(key) => {
                            self.state.remove(key);
                            *self.deletes.entry(key.clone()).or_default() += 1;
                        }
                    }
                }
                self.position = Some(position.clone());
            }
            _ => {}
        }
        event
    }

    /// The changes of the next batch.
    pub(super) async fn batch(&mut self, limit: Duration) -> CaseResult<Vec<Change>> {
        let until = Instant::now() + limit;
        loop {
            match self.event(until).await? {
                Some(WatchEvent::Batch { changes, .. }) => return Ok(changes),
                Some(_) => {}
                None => return Err(fail!("no batch within {limit:?}")),
            }
        }
    }
}
