//! A store that says what the benchmark tells it to, so that the core alone is measured.

use std::cell::Cell;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use discovery_core::backend::{
    Backend, Change, ChangeLog, Entry, Health, Lineage, Position, Registrar, Session, SessionRequest, WatchEvent,
    WatchStream, Watcher,
};
use discovery_core::{
    Bounds, Capabilities, Discovery, Error, ErrorKind, ExecutorKind, Key, Query, Record, Result, Scope, View,
};
use futures_util::{StreamExt, stream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::record::Worker;

/// How many entries one part of a snapshot has.
const CHUNK: usize = 1_000;

/// How many changes may wait for the core.
const WAITING: usize = 4_096;

/// Holds one snapshot for its one watch, which always is of the whole kind; then passes on what it is sent.
struct Scripted {
    script: Mutex<Option<(Vec<WatchEvent>, mpsc::Receiver<WatchEvent>)>>,
}

/// A handle on a scripted store, and the store's other end.
pub(crate) struct Script {
    pub(crate) runtime: Runtime,
    pub(crate) discovery: Discovery,
    events: mpsc::Sender<WatchEvent>,
    position: Cell<u64>,
}

impl Script {
    /// A handle whose background work runs on the calling thread, within [`Script::runtime`].
    pub(crate) fn new(entries: Vec<Entry>) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (events, receiver) = mpsc::channel(WAITING);
        let mut snapshot = vec![WatchEvent::SnapshotStart { lineage: Lineage::Unknown }];
        let mut entries = entries.into_iter();
        while entries.len() > 0 {
            snapshot.push(WatchEvent::SnapshotChunk(entries.by_ref().take(CHUNK).collect()));
        }
        snapshot.push(WatchEvent::SnapshotEnd(Position::from_u64(1)));
        let backend = Arc::new(Scripted { script: Mutex::new(Some((snapshot, receiver))) });
        let minutes = Duration::from_secs(600);
        let discovery = Discovery::builder()
            .with_backend(backend)
            .executor(ExecutorKind::Current)
            .operation_timeout(minutes)
            .sync_timeout(minutes);
        let discovery = runtime.block_on(discovery.build()).expect("a handle");
        Self { runtime, discovery, events, position: Cell::new(1) }
    }

    /// A view of one type of record.
    pub(crate) fn view<T: Record>(&self, query: Query) -> View<T> {
        self.runtime.block_on(self.discovery.view(query)).expect("a view")
    }

    /// Says that a transaction was committed.
    pub(crate) fn commit(&self, changes: Vec<Change>) {
        self.position.update(|position| position + 1);
        let batch = WatchEvent::Batch { changes, position: Position::from_u64(self.position.get()) };
        self.events.try_send(batch).expect("the core keeps up");
    }
}

#[async_trait]
impl Watcher for Scripted {
    async fn watch(&self, _: &Scope, _: Option<&Position>) -> Result<WatchStream> {
        let script = self.script.lock().expect("no panic under the lock").take();
        let Some((snapshot, mut events)) = script else {
            return Err(Error::new(ErrorKind::Internal, "the benchmark's watch was opened twice"));
        };
        let live = stream::poll_fn(move |context| events.poll_recv(context));
        Ok(stream::iter(snapshot).chain(live).map(Ok).boxed())
    }

    fn coarsen(&self, _: &Scope) -> Scope {
        Scope::new(Worker::KIND, [] as [&str; 0]).expect("a scope")
    }

    async fn barrier(&self, _: &Scope) -> Result<Option<Position>> {
        Ok(None)
    }

    fn reached(&self, at: &Position, target: &Position) -> bool {
        at.as_u64() >= target.as_u64()
    }
}

#[async_trait]
impl Registrar for Scripted {
    async fn open(&self, _: &SessionRequest) -> Result<Box<dyn Session>> {
        Err(Error::new(ErrorKind::Unsupported, "a script takes no registrations"))
    }
}

#[async_trait]
impl Backend for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::none()
    }

    fn bounds(&self) -> Bounds {
        let mut bounds = Bounds::default();
        // As the backends of real stores do; the core then keeps a timer for each event.
        bounds.silence = Some(Duration::from_secs(600));
        bounds
    }

    fn admit(&self, _: &Key, _: usize) -> Result<()> {
        Ok(())
    }

    async fn health(&self) -> Result<Health> {
        Ok(Health::new(Duration::ZERO, "a script"))
    }

    fn change_log(&self) -> Option<&dyn ChangeLog> {
        None
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}
