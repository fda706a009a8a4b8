//! A wrapper around a backend that counts what the core asks of it, and can spoil an answer.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use discovery_core::backend::{
    Backend, Change, ChangeLog, Desired, Drift, Entry, Health, Position, Registrar, Session, SessionRequest, Stamp,
    WatchEvent, WatchStream, Watcher, Write, WriteBatch,
};
use discovery_core::{Bounds, Capabilities, Error, ErrorKind, InstanceId, Key, Result, Scope};
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::Instant;

/// What was asked of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Watch,
    List,
    Barrier,
    Open,
    Renew,
    /// A renewal that was answered with Ok.
    Renewed,
    /// A renewal that was dropped before it was answered.
    GivenUp,
    Publish,
    Verify,
    /// A verification that found something to set right.
    Found,
}

/// How the next renewal goes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Renewal {
    /// It fails at once.
    Fails,
    /// It gets no answer.
    Hangs,
    /// It is carried out, and acknowledged this much later.
    Slow(Duration),
}

/// How watches go, until told otherwise.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Watching {
    /// Opening one fails.
    Refused(ErrorKind),
    /// One opens, and fails before it says anything.
    Mute,
}

#[derive(Default)]
struct Tricks {
    renewals: VecDeque<Renewal>,
    watching: Option<Watching>,
}

struct Shared {
    open: AtomicUsize,
    most: AtomicUsize,
    calls: Mutex<Vec<(Call, Instant)>>,
    tricks: Mutex<Tricks>,
    kick: watch::Sender<()>,
    /// The kind of calls that are held.
    held_back: watch::Sender<Option<Call>>,
    counts: AtomicBool,
    /// Values that went through and are still held by somebody.
    held: Arc<AtomicUsize>,
}

impl Shared {
    fn note(&self, call: Call) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push((call, Instant::now()));
    }

    /// The same value, which counts as held for as long as anybody holds it.
    fn counted(&self, value: Bytes) -> Bytes {
        if !self.counts.load(Ordering::Acquire) {
            return value;
        }
        self.held.fetch_add(1, Ordering::AcqRel);
        Bytes::from_owner(Counted { value, held: Arc::clone(&self.held) })
    }

    fn counted_entry(&self, entry: Entry) -> Entry {
        Entry { value: self.counted(entry.value), ..entry }
    }

    fn counted_event(&self, event: WatchEvent) -> WatchEvent {
        match event {
            WatchEvent::SnapshotChunk(chunk) => {
                WatchEvent::SnapshotChunk(chunk.into_iter().map(|entry| self.counted_entry(entry)).collect())
            }
            WatchEvent::Batch { changes, position } => {
                let changes = changes.into_iter().map(|change| match change {
                    Change::Put(entry) => Change::Put(self.counted_entry(entry)),
                    gone => gone,
                });
                WatchEvent::Batch { changes: changes.collect(), position }
            }
            other => other,
        }
    }

    fn counted_batch(&self, batch: &WriteBatch) -> WriteBatch {
        let writes = batch.writes.iter().map(|write| match write {
            Write::Put { key, value } => Write::Put { key: key.clone(), value: self.counted(value.clone()) },
            gone => gone.clone(),
        });
        WriteBatch { writes: writes.collect(), atomic: batch.atomic }
    }

    /// Notes a call, which goes on when its kind is not held back any more.
    async fn reach(&self, call: Call) {
        self.note(call);
        // The sender lives as long as this does.
        let _ = self.held_back.subscribe().wait_for(|held| *held != Some(call)).await;
    }

    fn tricks(&self) -> MutexGuard<'_, Tricks> {
        self.tricks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Counted {
    value: Bytes,
    held: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.value
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.held.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The backend of one owner, observed.
pub(crate) struct Probe {
    inner: Arc<dyn Backend>,
    shared: Arc<Shared>,
}

impl Probe {
    pub(crate) fn new(inner: Arc<dyn Backend>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            shared: Arc::new(Shared {
                open: AtomicUsize::new(0),
                most: AtomicUsize::new(0),
                calls: Mutex::default(),
                tricks: Mutex::default(),
                kick: watch::Sender::new(()),
                held_back: watch::Sender::new(None),
                counts: AtomicBool::new(false),
                held: Arc::default(),
            }),
        })
    }

    /// How many watches are open.
    pub(crate) fn open_watches(&self) -> usize {
        self.shared.open.load(Ordering::Acquire)
    }

    /// How many were open at once at most.
    pub(crate) fn most_watches(&self) -> usize {
        self.shared.most.load(Ordering::Acquire)
    }

    /// When each call of a kind was made.
    pub(crate) fn times(&self, call: Call) -> Vec<Instant> {
        let calls = self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().filter(|(made, _)| *made == call).map(|(_, at)| *at).collect()
    }

    pub(crate) fn count(&self, call: Call) -> usize {
        self.times(call).len()
    }

    /// How many calls of any kind were made.
    pub(crate) fn calls(&self) -> usize {
        self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// From now on, counts the values that go through in watches and writes, and says how many of them somebody holds.
    pub(crate) fn count_values(&self) -> Arc<AtomicUsize> {
        self.shared.counts.store(true, Ordering::Release);
        Arc::clone(&self.shared.held)
    }

    /// Spoils the next renewals, in order.
    pub(crate) fn spoil_renewals(&self, renewals: impl IntoIterator<Item = Renewal>) {
        self.shared.tricks().renewals.extend(renewals);
    }

    /// Spoils every watch from now on; `None` ends that.
    pub(crate) fn spoil_watches(&self, watching: Option<Watching>) {
        self.shared.tricks().watching = watching;
    }

    /// Holds back every publish before it is made, or every verification that found something before it is answered, from
    /// now on; `None` lets them go.
    pub(crate) fn hold_back(&self, call: Option<Call>) {
        self.shared.held_back.send_replace(call);
    }

    /// Breaks every open watch with a temporary error.
    pub(crate) fn break_watches(&self) {
        self.shared.kick.send_replace(());
    }
}

struct OpenWatch(Arc<Shared>);

impl OpenWatch {
    fn new(shared: &Arc<Shared>) -> Self {
        let now = shared.open.fetch_add(1, Ordering::AcqRel) + 1;
        shared.most.fetch_max(now, Ordering::AcqRel);
        Self(Arc::clone(shared))
    }
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

#[async_trait]
impl Watcher for Probe {
    async fn watch(&self, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
        self.shared.note(Call::Watch);
        let watching = self.shared.tricks().watching;
        match watching {
            Some(Watching::Refused(kind)) => return Err(Error::new(kind, "the probe refuses this watch")),
            Some(Watching::Mute) => {
                let failure = Err(Error::new(ErrorKind::Unavailable, "the probe breaks this watch"));
                return Ok(futures_util::stream::iter([failure]).boxed());
            }
            None => {}
        }
        let inner = self.inner.watch(scope, after).await?;
        let open = OpenWatch::new(&self.shared);
        let kick = self.shared.kick.subscribe();
        let stream = futures_util::stream::unfold(Some((inner, kick, open)), |state| async move {
            let (mut inner, mut kick, open) = state?;
            let shared = Arc::clone(&open.0);
            tokio::select! {
                biased;
                // The stream holds the state that holds the sender.
                _ = kick.changed() => {
                    Some((Err(Error::new(ErrorKind::Unavailable, "the probe broke this watch")), None))
                }
                item = inner.next() => {
                    let item = item?.map(|event| shared.counted_event(event));
                    Some((item, Some((inner, kick, open))))
                }
            }
        });
        Ok(stream.boxed())
    }

    async fn list(&self, scope: &Scope) -> Result<(Vec<Entry>, Position)> {
        self.shared.note(Call::List);
        self.inner.list(scope).await
    }

    fn coarsen(&self, scope: &Scope) -> Scope {
        self.inner.coarsen(scope)
    }

    async fn barrier(&self, scope: &Scope) -> Result<Option<Position>> {
        self.shared.note(Call::Barrier);
        self.inner.barrier(scope).await
    }

    fn reached(&self, at: &Position, target: &Position) -> bool {
        self.inner.reached(at, target)
    }
}

#[async_trait]
impl Registrar for Probe {
    async fn open(&self, request: &SessionRequest) -> Result<Box<dyn Session>> {
        self.shared.note(Call::Open);
        let inner = self.inner.open(request).await?;
        Ok(Box::new(ProbedSession { inner, shared: Arc::clone(&self.shared) }))
    }
}

#[async_trait]
impl Backend for Probe {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn bounds(&self) -> Bounds {
        self.inner.bounds()
    }

    fn admit(&self, key: &Key, value: usize) -> Result<()> {
        self.inner.admit(key, value)
    }

    async fn health(&self) -> Result<Health> {
        self.inner.health().await
    }

    fn change_log(&self) -> Option<&dyn ChangeLog> {
        self.inner.change_log()
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

/// Notes that a renewal is given up, where its future is dropped.
struct GivenUp<'a>(Option<&'a Shared>);

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        if let Some(shared) = self.0 {
            shared.note(Call::GivenUp);
        }
    }
}

struct ProbedSession {
    inner: Box<dyn Session>,
    shared: Arc<Shared>,
}

#[async_trait]
impl Session for ProbedSession {
    fn id(&self) -> InstanceId {
        self.inner.id()
    }

    fn effective_ttl(&self) -> Option<Duration> {
        self.inner.effective_ttl()
    }

    async fn renew(&self) -> Result<Duration> {
        self.shared.note(Call::Renew);
        let mut given_up = GivenUp(Some(&self.shared));
        let trick = self.shared.tricks().renewals.pop_front();
        let renewed = match trick {
            None => self.inner.renew().await,
            Some(Renewal::Fails) => Err(Error::new(ErrorKind::Unavailable, "the probe spoils this renewal")),
            Some(Renewal::Hangs) => std::future::pending().await,
            Some(Renewal::Slow(by)) => match self.inner.renew().await {
                Ok(life) => {
                    tokio::time::sleep(by).await;
                    Ok(life)
                }
                failed => failed,
            },
        };
        given_up.0 = None;
        if renewed.is_ok() {
            self.shared.note(Call::Renewed);
        }
        renewed
    }

    async fn publish(&self, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        self.shared.reach(Call::Publish).await;
        self.inner.publish(&self.shared.counted_batch(batch), desired).await
    }

    async fn verify(&self, desired: &Desired) -> Result<Vec<(Key, Drift)>> {
        self.shared.note(Call::Verify);
        let found = self.inner.verify(desired).await?;
        if !found.is_empty() {
            self.shared.reach(Call::Found).await;
        }
        Ok(found)
    }

    fn verify_by(&self) -> Option<Instant> {
        self.inner.verify_by()
    }

    async fn lost(&self) -> Error {
        self.inner.lost().await
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}
