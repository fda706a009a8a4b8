#![allow(missing_docs, missing_debug_implementations, unused_must_use)]
//! Interleavings that once went wrong, on a backend whose failures are scripted.
mod arriving;
mod asking;
mod moving;
mod pacing;
mod reading;
mod refusals;
mod writing;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use discovery_core::backend::*;
use discovery_core::*;
use discovery_memory::{Cluster, MemoryBackend};
use futures_util::{StreamExt, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    pub pool: String,
    pub load: u32,
}
impl Record for Worker {
    const KIND: &'static str = "worker";
    fn path(&self) -> Result<Path> {
        Path::new(Self::KIND, [&self.pool])
    }
}
pub fn worker(pool: &str, load: u32) -> Worker {
    Worker { pool: pool.to_owned(), load }
}
pub fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[derive(Clone, Default)]
pub struct Plan {
    /// Fails the opening.
    pub deny: Option<Error>,
    /// Panics in the opening.
    pub panic: bool,
    /// Hangs the opening.
    pub hang: bool,
    /// Delays the first event.
    pub delay: Duration,
    /// Holds the events after the snapshot back.
    pub hold: bool,
    /// A snapshot, one progress, an error.
    pub flap: bool,
    /// A progress before the snapshot.
    pub early: bool,
    /// Of its own accord it gives no sign of life.
    pub quiet: bool,
    /// All incarnations are the same.
    pub flat: bool,
    /// The snapshot is read when the watch is opened, whenever it is delivered.
    pub eager: bool,
}

type PublishHook = Box<dyn FnMut(&WriteBatch) -> Option<(bool, Error)> + Send>;

pub struct Hooks {
    pub plans: Mutex<HashMap<String, Plan>>,
    pub moved: watch::Sender<()>,
    pub open: AtomicUsize,
    pub most: AtomicUsize,
    pub opened: AtomicUsize,
    pub barrier_delay: Mutex<Duration>,
    pub no_barrier: Mutex<bool>,
    pub closes: Mutex<Vec<usize>>,
    pub max_watches: Mutex<usize>,
    pub list_fails: Mutex<Option<Error>>,
    /// How long a list takes before it reads.
    pub list_delay: Mutex<Duration>,
    pub barrier_fails: Mutex<Option<Error>>,
    /// (apply first?, error)
    pub publish: Mutex<Option<PublishHook>>,
    pub batches: Mutex<Vec<WriteBatch>>,
    /// What was wanted with each of them.
    pub desired: Mutex<Vec<Desired>>,
    /// How long a publish takes.
    pub publish_delay: Mutex<Duration>,
    /// What is published has its effect, and no answer comes.
    pub answers_lost: Mutex<bool>,
    /// When each verification was asked for.
    pub verified: Mutex<Vec<Instant>>,
    pub verify_fails: Mutex<Option<Error>>,
    pub verify_by: Mutex<Option<Instant>>,
    pub lose_at_once: Mutex<bool>,
    pub close_hangs: Mutex<bool>,
    pub by_revision: Mutex<bool>,
    pub opens: AtomicUsize,
    /// Sessions do not open.
    pub open_hangs: Mutex<bool>,
    pub published: tokio::sync::Notify,
    /// What the next watch says between the events of its store.
    pub says: Mutex<Option<mpsc::UnboundedReceiver<WatchEvent>>>,
}

#[derive(Clone)]
pub struct Scripted {
    pub inner: MemoryBackend,
    pub hooks: Arc<Hooks>,
}

impl Scripted {
    pub fn new(cluster: &Cluster) -> Self {
        Self {
            inner: cluster.connect(),
            hooks: Arc::new(Hooks {
                plans: Mutex::default(),
                moved: watch::Sender::new(()),
                open: AtomicUsize::new(0),
                most: AtomicUsize::new(0),
                opened: AtomicUsize::new(0),
                barrier_delay: Mutex::default(),
                no_barrier: Mutex::new(false),
                closes: Mutex::default(),
                max_watches: Mutex::new(64),
                list_fails: Mutex::default(),
                list_delay: Mutex::default(),
                barrier_fails: Mutex::default(),
                publish: Mutex::default(),
                batches: Mutex::default(),
                desired: Mutex::default(),
                publish_delay: Mutex::default(),
                answers_lost: Mutex::default(),
                verified: Mutex::default(),
                verify_fails: Mutex::default(),
                verify_by: Mutex::default(),
                lose_at_once: Mutex::default(),
                close_hangs: Mutex::default(),
                by_revision: Mutex::default(),
                opens: AtomicUsize::new(0),
                open_hangs: Mutex::default(),
                published: tokio::sync::Notify::new(),
                says: Mutex::default(),
            }),
        }
    }
    pub fn plan(&self, scope: &str, plan: Plan) {
        self.hooks.plans.lock().unwrap().insert(scope.to_owned(), plan);
        self.hooks.moved.send_replace(());
    }
    pub fn at(&self, scope: &Scope) -> Plan {
        self.hooks.plans.lock().unwrap().get(scope.as_str()).cloned().unwrap_or_default()
    }
    pub fn on_publish(&self, hook: impl FnMut(&WriteBatch) -> Option<(bool, Error)> + Send + 'static) {
        *self.hooks.publish.lock().unwrap() = Some(Box::new(hook));
    }
    pub fn clear_publish(&self) {
        *self.hooks.publish.lock().unwrap() = None;
    }
    pub async fn handle(&self) -> Discovery {
        self.builder().build().await.unwrap()
    }
    pub fn builder(&self) -> Builder {
        Discovery::builder().with_backend(Arc::new(self.clone())).executor(ExecutorKind::Current)
    }
}

struct Counted(Arc<Hooks>);
impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Watcher for Scripted {
    async fn watch(&self, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
        self.hooks.opened.fetch_add(1, Ordering::SeqCst);
        let open = self.hooks.open.fetch_add(1, Ordering::SeqCst) + 1;
        self.hooks.most.fetch_max(open, Ordering::SeqCst);
        let counted = Counted(Arc::clone(&self.hooks));
        let mut moved = self.hooks.moved.subscribe();
        loop {
            moved.borrow_and_update();
            let plan = self.at(scope);
            assert!(!plan.panic, "a bug of the backend");
            if let Some(error) = plan.deny {
                return Err(error);
            }
            if !plan.hang {
                break;
            }
            let _ = moved.changed().await;
        }
        let plan = self.at(scope);
        let mut inner = self.inner.watch(scope, if plan.flap { None } else { after }).await?;
        if plan.quiet {
            let is_news = |event: &Result<WatchEvent>| !matches!(event, Ok(WatchEvent::Progress(_)));
            inner = inner.filter(move |event| std::future::ready(is_news(event))).boxed();
        }
        if let Some(mut says) = self.hooks.says.lock().unwrap().take() {
            inner = stream::select(inner, stream::poll_fn(move |context| says.poll_recv(context)).map(Ok)).boxed();
        }
        if plan.flat {
            inner = inner
                .map(|event| {
                    event.map(|event| match event {
                        WatchEvent::SnapshotChunk(mut entries) => {
                            entries.iter_mut().for_each(|entry| entry.incarnation = Incarnation(0));
                            WatchEvent::SnapshotChunk(entries)
                        }
                        WatchEvent::Batch { mut changes, position } => {
                            for change in &mut changes {
                                if let Change::Put(entry) = change {
                                    entry.incarnation = Incarnation(0);
                                }
                            }
                            WatchEvent::Batch { changes, position }
                        }
                        other => other,
                    })
                })
                .boxed();
        }
        if plan.flap {
            let mut events = Vec::new();
            while let Some(event) = inner.next().await {
                let end = match &event {
                    Ok(WatchEvent::SnapshotEnd(position)) => Some(position.clone()),
                    _ => None,
                };
                events.push(event);
                if let Some(position) = end {
                    events.push(Ok(WatchEvent::Progress(position)));
                    events.push(Err(Error::new(ErrorKind::Unavailable, "flap")));
                    break;
                }
            }
            return Ok(stream::iter(events)
                .map(move |event| {
                    let _ = &counted;
                    event
                })
                .boxed());
        }
        if plan.eager {
            let mut read = Vec::new();
            while let Some(event) = inner.next().await {
                let whole = !matches!(event, Ok(WatchEvent::SnapshotStart { .. } | WatchEvent::SnapshotChunk(_)));
                read.push(event);
                if whole {
                    break;
                }
            }
            inner = stream::iter(read).chain(inner).boxed();
        }
        if plan.early {
            let position = self.inner.barrier(scope).await?.unwrap();
            inner = stream::iter([Ok(WatchEvent::Progress(position))])
                .chain(stream::once(async {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    Ok(WatchEvent::Recovered)
                }))
                .chain(inner)
                .boxed();
        }
        let me = self.clone();
        let scope = scope.clone();
        Ok(stream::unfold(
            (inner, counted, moved, false, true),
            move |(mut inner, counted, mut moved, mut past, first)| {
                let (me, scope) = (me.clone(), scope.clone());
                async move {
                    if first {
                        tokio::time::sleep(me.at(&scope).delay).await;
                    }
                    loop {
                        moved.borrow_and_update();
                        if !(past && me.at(&scope).hold) {
                            break;
                        }
                        let _ = moved.changed().await;
                    }
                    let event = inner.next().await?;
                    if matches!(event, Ok(WatchEvent::SnapshotEnd(_) | WatchEvent::Resumed)) {
                        past = true;
                    }
                    // Held back though it arrived.
                    if past && !matches!(event, Ok(WatchEvent::SnapshotEnd(_) | WatchEvent::Resumed)) {
                        loop {
                            moved.borrow_and_update();
                            if !me.at(&scope).hold {
                                break;
                            }
                            let _ = moved.changed().await;
                        }
                    }
                    Some((event, (inner, counted, moved, past, false)))
                }
            },
        )
        .boxed())
    }
    async fn list(&self, scope: &Scope) -> Result<(Vec<Entry>, Position)> {
        if let Some(error) = self.hooks.list_fails.lock().unwrap().clone() {
            return Err(error);
        }
        let delay = *self.hooks.list_delay.lock().unwrap();
        tokio::time::sleep(delay).await;
        self.inner.list(scope).await
    }
    fn coarsen(&self, scope: &Scope) -> Scope {
        scope.clone()
    }
    async fn barrier(&self, scope: &Scope) -> Result<Option<Position>> {
        if let Some(error) = self.hooks.barrier_fails.lock().unwrap().clone() {
            return Err(error);
        }
        let delay = *self.hooks.barrier_delay.lock().unwrap();
        let at = self.inner.barrier(scope).await?;
        tokio::time::sleep(delay).await;
        if *self.hooks.no_barrier.lock().unwrap() { Ok(None) } else { Ok(at) }
    }
    fn reached(&self, at: &Position, target: &Position) -> bool {
        if *self.hooks.by_revision.lock().unwrap() {
            // What a store does whose positions are revisions and nothing else, and that came back 50 revisions older.
            let part = |position: &Position, from: usize| {
                u64::from_be_bytes(position.0[from..from + 8].try_into().unwrap()) as i64
            };
            let older = if part(at, 0) == part(target, 0) { 0 } else { 50 };
            return part(at, 8) - older >= part(target, 8);
        }
        self.inner.reached(at, target)
    }
}

struct ScriptedSession {
    inner: Box<dyn Session>,
    hooks: Arc<Hooks>,
}

#[async_trait]
impl Registrar for Scripted {
    async fn open(&self, request: &SessionRequest) -> Result<Box<dyn Session>> {
        self.hooks.opens.fetch_add(1, Ordering::SeqCst);
        if *self.hooks.open_hangs.lock().unwrap() {
            std::future::pending::<()>().await;
        }
        let inner = self.inner.open(request).await?;
        Ok(Box::new(ScriptedSession { inner, hooks: Arc::clone(&self.hooks) }))
    }
}

#[async_trait]
impl Session for ScriptedSession {
    fn id(&self) -> InstanceId {
        self.inner.id()
    }
    fn effective_ttl(&self) -> Option<Duration> {
        self.inner.effective_ttl()
    }
    async fn renew(&self) -> Result<Duration> {
        self.inner.renew().await
    }
    async fn publish(&self, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        self.hooks.batches.lock().unwrap().push(batch.clone());
        self.hooks.desired.lock().unwrap().push(desired.clone());
        let fault = self.hooks.publish.lock().unwrap().as_mut().and_then(|hook| hook(batch));
        let delay = *self.hooks.publish_delay.lock().unwrap();
        tokio::time::sleep(delay).await;
        match fault {
            None => {
                let results = self.inner.publish(batch, desired).await;
                if *self.hooks.answers_lost.lock().unwrap() {
                    std::future::pending::<()>().await;
                }
                if *self.hooks.lose_at_once.lock().unwrap() {
                    let hooks = Arc::clone(&self.hooks);
                    tokio::spawn(async move {
                        tokio::task::yield_now().await;
                        tokio::task::yield_now().await;
                        hooks.published.notify_one()
                    });
                }
                results
            }
            Some((apply, error)) => {
                if apply {
                    self.inner.publish(batch, desired).await;
                }
                batch.writes.iter().map(|_| Err(error.clone())).collect()
            }
        }
    }
    async fn verify(&self, desired: &Desired) -> Result<Vec<(Key, Drift)>> {
        self.hooks.verified.lock().unwrap().push(Instant::now());
        if let Some(error) = self.hooks.verify_fails.lock().unwrap().clone() {
            return Err(error);
        }
        self.inner.verify(desired).await
    }
    fn verify_by(&self) -> Option<Instant> {
        *self.hooks.verify_by.lock().unwrap()
    }
    async fn lost(&self) -> Error {
        tokio::select! {
            error = self.inner.lost() => error,
            () = self.hooks.published.notified() => Error::new(ErrorKind::SessionLost, "taken away"),
        }
    }
    async fn close(&self) -> Result<()> {
        if *self.hooks.close_hangs.lock().unwrap() {
            std::future::pending::<()>().await;
        }
        self.inner.close().await
    }
}

#[async_trait]
impl Backend for Scripted {
    fn name(&self) -> &str {
        "scripted"
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    fn bounds(&self) -> Bounds {
        let mut bounds = self.inner.bounds();
        bounds.silence = None;
        bounds.max_watches = *self.hooks.max_watches.lock().unwrap();
        bounds
    }
    fn admit(&self, key: &Key, value: usize) -> Result<()> {
        self.inner.admit(key, value)
    }
    async fn health(&self) -> Result<Health> {
        self.inner.health().await
    }
    fn change_log(&self) -> Option<&dyn ChangeLog> {
        None
    }
    async fn close(&self) -> Result<()> {
        self.hooks.closes.lock().unwrap().push(self.hooks.open.load(Ordering::SeqCst));
        self.inner.close().await
    }
}
