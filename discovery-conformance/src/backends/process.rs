//! An owner's process and its way to the store, for stores that have neither servers nor connections to break.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use discovery_core::backend::{
    Backend, ChangeLog, Desired, Drift, Entry, Health, Position, Registrar, Session, SessionRequest, Stamp,
    WatchStream, Watcher, WriteBatch,
};
use discovery_core::{Bounds, Capabilities, Effect, Error, ErrorKind, InstanceId, Key, Result, Scope};
use futures_util::{StreamExt, stream};
use tokio::sync::watch;

/// What is wrong with the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Way {
    #[default]
    Whole,
    /// Calls and streams fail.
    Fails(ErrorKind),
    /// Calls and streams hang, until the way is another.
    Hangs,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    way: Way,
    /// How often it broke: a stream does not outlive that.
    breaks: u64,
    drop_acks: bool,
}

type Held = Arc<Mutex<Option<Arc<dyn Session>>>>;

/// A backend in a process that can be stopped, killed and cut off.
pub(crate) struct Process {
    inner: Arc<dyn Backend>,
    state: watch::Sender<State>,
    sessions: Mutex<Vec<Held>>,
}

fn held(session: &Held) -> Option<Arc<dyn Session>> {
    session.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

impl Process {
    pub(crate) fn new(inner: Arc<dyn Backend>) -> Arc<Self> {
        Arc::new(Self { inner, state: watch::Sender::default(), sessions: Mutex::default() })
    }

    pub(crate) fn set(&self, way: Way) {
        self.state.send_modify(|state| {
            state.way = way;
            state.breaks += u64::from(matches!(way, Way::Fails(_)));
        });
    }

    pub(crate) fn drop_acks(&self, on: bool) {
        self.state.send_modify(|state| state.drop_acks = on);
    }

    /// What the process held, locks above all, is let go by the kernel; nothing else is done.
    pub(crate) fn kill(&self) {
        self.set(Way::Hangs);
        for session in self.sessions.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            session.lock().unwrap_or_else(PoisonError::into_inner).take();
        }
    }
}

/// Waits until something gets through, or says why not.
async fn through(state: &mut watch::Receiver<State>) -> Result<()> {
    loop {
        match state.borrow_and_update().way {
            Way::Whole => return Ok(()),
            Way::Fails(kind) => return Err(Error::new(kind, "the way to the store is broken")),
            Way::Hangs => {}
        }
        if state.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[async_trait]
impl Watcher for Process {
    async fn watch(&self, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
        let mut state = self.state.subscribe();
        through(&mut state).await?;
        let opened = state.borrow().breaks;
        let inner = self.inner.watch(scope, after).await?;
        let events = stream::unfold(Some((inner, state)), move |open| async move {
            let (mut inner, mut state) = open?;
            loop {
                if let Err(error) = through(&mut state).await {
                    return Some((Err(error), None));
                }
                if state.borrow().breaks != opened {
                    return Some((Err(Error::new(ErrorKind::Unavailable, "the way to the store broke")), None));
                }
                tokio::select! {
                    biased;
                    _ = state.changed() => {}
                    event = inner.next() => return Some((event?, Some((inner, state)))),
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
        let session = Arc::new(Mutex::new(Some(inner)));
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&session));
        Ok(Box::new(Life { session, state: self.state.clone(), id, ttl }))
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
    id: InstanceId,
    ttl: Option<Duration>,
}

impl Life {
    async fn session(&self) -> Result<Arc<dyn Session>> {
        through(&mut self.state.subscribe()).await?;
        held(&self.session).ok_or_else(|| Error::new(ErrorKind::SessionLost, "the process was killed"))
    }

    fn acknowledged(&self) -> Result<()> {
        if self.state.borrow().drop_acks {
            let lost = Error::new(ErrorKind::Unavailable, "the answer got lost").with_effect(Effect::Unknown);
            return Err(lost);
        }
        Ok(())
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
        let results = match self.session().await {
            Ok(session) => session.publish(batch, desired).await,
            Err(error) => return vec![Err(error); batch.writes.len()],
        };
        match self.acknowledged() {
            Ok(()) => results,
            Err(error) => vec![Err(error); batch.writes.len()],
        }
    }

    async fn verify(&self, desired: &Desired) -> Result<Vec<(Key, Drift)>> {
        self.session().await?.verify(desired).await
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
            while state.borrow().way == Way::Hangs {
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
