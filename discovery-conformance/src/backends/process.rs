//! An owner's process and its way to the store, for stores that have neither servers nor connections to break.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use discovery_core::backend::{
    Backend, ChangeLog, Desired, Drift, Entry, Health, Position, Registrar, Session, SessionRequest, Stamp, WatchEvent,
    WatchStream, Watcher, WriteBatch,
};
use discovery_core::{Bounds, Capabilities, Effect, Error, ErrorKind, InstanceId, Key, Result, Scope};
use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// What is wrong with the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Way {
    #[default]
    Whole,
    /// Calls and streams fail.
    Fails(ErrorKind),
    /// The process stands still: calls and streams hang, until the way is another, and nothing that it holds is let go.
    Stands,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    way: Way,
    /// How often it broke: a stream does not outlive that.
    breaks: u64,
    drop_acks: bool,
    /// How much later writes reach the store.
    delay: Option<Duration>,
    /// Whether every transaction is told twice.
    twice: bool,
}

/// A session that its process holds, until it lets go of it or dies.
#[derive(Default)]
struct Hold {
    session: Option<Arc<dyn Session>>,
    /// The core has let go of it, and the process stands still.
    left: bool,
}

type Held = Arc<Mutex<Hold>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Is told of each write before it is done.
pub(crate) type Witness = Arc<dyn Fn(&WriteBatch) + Send + Sync>;

/// A backend in a process that can be stopped, killed and cut off.
pub(crate) struct Process {
    inner: Arc<dyn Backend>,
    state: watch::Sender<State>,
    sessions: Mutex<Vec<Held>>,
    /// Whose turn it is to write: a process does its writes one after another.
    turn: Arc<tokio::sync::Mutex<()>>,
    witness: Witness,
}

fn held(session: &Held) -> Option<Arc<dyn Session>> {
    lock(session).session.clone()
}

impl Process {
    pub(crate) fn new(inner: Arc<dyn Backend>, witness: Witness) -> Arc<Self> {
        let (state, sessions, turn) = (watch::Sender::default(), Mutex::default(), Arc::default());
        Arc::new(Self { inner, state, sessions, turn, witness })
    }

    pub(crate) fn set(&self, way: Way) {
        self.state.send_modify(|state| {
            state.way = way;
            state.breaks += u64::from(matches!(way, Way::Fails(_)));
        });
        if way != Way::Stands {
            // It goes on, and does what it was about to do.
            lock(&self.sessions).retain(|session| {
                let mut hold = lock(session);
                let left = hold.left;
                if left {
                    hold.session = None;
                }
                !left
            });
        }
    }

    /// The instances of the sessions that it holds.
    pub(crate) fn instances(&self) -> Vec<InstanceId> {
        lock(&self.sessions).iter().filter_map(held).map(|session| session.id()).collect()
    }

    pub(crate) fn delay(&self, by: Option<Duration>) {
        self.state.send_modify(|state| state.delay = by);
    }

    pub(crate) fn tell_twice(&self, on: bool) {
        self.state.send_modify(|state| state.twice = on);
    }

    pub(crate) fn drop_acks(&self, on: bool) {
        self.state.send_modify(|state| state.drop_acks = on);
    }

    /// What the process held, locks above all, is let go by the kernel; nothing else is done.
    pub(crate) fn kill(&self) {
        self.set(Way::Stands);
        lock(&self.sessions).drain(..).for_each(|session| lock(&session).session = None);
    }
}

/// Waits until something gets through, or says why not.
async fn through(state: &mut watch::Receiver<State>) -> Result<()> {
    loop {
        match state.borrow_and_update().way {
            Way::Whole => return Ok(()),
            Way::Fails(kind) => return Err(Error::new(kind, "the way to the store is broken")),
            Way::Stands => {}
        }
        if state.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn is_batch(event: &WatchEvent) -> bool {
    matches!(event, WatchEvent::Batch { .. })
}

#[async_trait]
impl Watcher for Process {
    async fn watch(&self, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
        let mut state = self.state.subscribe();
        through(&mut state).await?;
        let opened = state.borrow().breaks;
        let inner = self.inner.watch(scope, after).await?;
        let events = stream::unfold(Some((inner, state, None)), move |open| async move {
            let (mut inner, mut state, again) = open?;
            loop {
                if let Err(error) = through(&mut state).await {
                    return Some((Err(error), None));
                }
                if state.borrow().breaks != opened {
                    return Some((Err(Error::new(ErrorKind::Unavailable, "the way to the store broke")), None));
                }
                if let Some(again) = again {
                    return Some((Ok(again), Some((inner, state, None))));
                }
                tokio::select! {
                    biased;
                    _ = state.changed() => {}
                    event = inner.next() => {
                        let event = event?;
                        let again = event.as_ref().ok().filter(|event| state.borrow().twice && is_batch(event)).cloned();
                        return Some((event, Some((inner, state, again))));
                    }
                }
            }
        });
        Ok(events.boxed())
    }

    async fn list(&self, scope: &Scope) -> Result<(Vec<Entry>, Position)> {
        through(&mut self.state.subscribe()).await?;
        self.inner.list(scope).await
    }

    fn coarsen(&self, scope: &Scope) -> Scope {
        self.inner.coarsen(scope)
    }

    async fn barrier(&self, scope: &Scope) -> Result<Option<Position>> {
        through(&mut self.state.subscribe()).await?;
        self.inner.barrier(scope).await
    }

    fn reached(&self, at: &Position, target: &Position) -> bool {
        self.inner.reached(at, target)
    }
}

#[async_trait]
impl Registrar for Process {
    async fn open(&self, request: &SessionRequest) -> Result<Box<dyn Session>> {
        through(&mut self.state.subscribe()).await?;
        let inner: Arc<dyn Session> = Arc::from(self.inner.open(request).await?);
        let (id, ttl) = (inner.id(), inner.effective_ttl());
        let session = Arc::new(Mutex::new(Hold { session: Some(inner), left: false }));
        {
            let mut sessions = lock(&self.sessions);
            sessions.retain(|session| lock(session).session.is_some());
            sessions.push(Arc::clone(&session));
        }
        let (turn, witness) = (Arc::clone(&self.turn), Arc::clone(&self.witness));
        Ok(Box::new(Life { session, state: self.state.clone(), turn, witness, id, ttl }))
    }
}

#[async_trait]
impl Backend for Process {
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
        through(&mut self.state.subscribe()).await?;
        self.inner.health().await
    }

    fn change_log(&self) -> Option<&dyn ChangeLog> {
        self.inner.change_log()
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

struct Life {
    session: Held,
    state: watch::Sender<State>,
    turn: Arc<tokio::sync::Mutex<()>>,
    witness: Witness,
    id: InstanceId,
    ttl: Option<Duration>,
}

fn killed() -> Error {
    Error::new(ErrorKind::SessionLost, "the process was killed")
}

impl Life {
    async fn session(&self) -> Result<Arc<dyn Session>> {
        through(&mut self.state.subscribe()).await?;
        held(&self.session).ok_or_else(killed)
    }

    fn acknowledged(&self) -> Result<()> {
        if self.state.borrow().drop_acks {
            let lost = Error::new(ErrorKind::Unavailable, "the answer got lost").with_effect(Effect::Unknown);
            return Err(lost);
        }
        Ok(())
    }
}

/// A process that goes on lets go of a session with the core, and what the session holds, its lock above all, with it: so
/// that watchers take away a lost session's records while the next one writes them.
impl Drop for Life {
    fn drop(&mut self) {
        let stands = self.state.borrow().way == Way::Stands;
        let mut hold = lock(&self.session);
        hold.left = stands;
        if !stands {
            hold.session = None;
        }
    }
}

#[async_trait]
impl Session for Life {
    fn id(&self) -> InstanceId {
        self.id
    }

    fn effective_ttl(&self) -> Option<Duration> {
        self.ttl
    }

    async fn renew(&self) -> Result<Duration> {
        self.session().await?.renew().await
    }

    async fn publish(&self, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        let session = match self.session().await {
            Ok(session) => session,
            Err(error) => return vec![Err(error); batch.writes.len()],
        };
        let delay = self.state.borrow().delay;
        let (turn, witness) = (Arc::clone(&self.turn), Arc::clone(&self.witness));
        let results = match delay {
            None => {
                let _turn = turn.lock().await;
                witness(batch);
                session.publish(batch, desired).await
            }
            // On its way it does not come back, though its caller gives it up. A process that dies meanwhile writes nothing.
            Some(by) => {
                drop(session);
                let (batch, desired, count) = (batch.clone(), desired.clone(), batch.writes.len());
                let session = Arc::clone(&self.session);
                let writing = tokio::spawn(async move {
                    let _turn = turn.lock().await;
                    sleep(by).await;
                    let Some(session) = held(&session) else { return vec![Err(killed()); count] };
                    witness(&batch);
                    session.publish(&batch, &desired).await
                });
                writing.await.unwrap_or_else(|error| {
                    let lost = Error::new(ErrorKind::Internal, "the write was lost").with_source(error);
                    vec![Err(lost.with_effect(Effect::Unknown)); count]
                })
            }
        };
        match self.acknowledged() {
            Ok(()) => results,
            Err(error) => vec![Err(error); batch.writes.len()],
        }
    }

    async fn verify(&self, desired: &Desired) -> Result<Vec<(Key, Drift)>> {
        self.session().await?.verify(desired).await
    }

    fn verify_by(&self) -> Option<Instant> {
        held(&self.session).and_then(|session| session.verify_by())
    }

    async fn lost(&self) -> Error {
        let mut state = self.state.subscribe();
        loop {
            {
                let Some(session) = held(&self.session) else { return std::future::pending().await };
                tokio::select! {
                    biased;
                    // Dropped with its process: nothing may keep it.
                    _ = state.changed() => {}
                    error = session.lost() => return error,
                }
            }
            while state.borrow().way == Way::Stands {
                if state.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }

    async fn close(&self) -> Result<()> {
        self.session().await?.close().await
    }
}
