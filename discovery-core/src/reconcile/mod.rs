//! Keeps what is stored equal to what the owner wants: opens a session, publishes, verifies, puts back.

mod claim;
mod keepalive;
mod ledger;
mod run;
mod schedule;
mod settle;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::executor::TaskScope;
use crate::key::InstanceId;
use crate::telemetry::OwnerMeter;
pub(crate) use claim::Waiter;
use ledger::Ledger;
pub(crate) use ledger::{TakenBack, Wish};

/// What is known of the owner's session.
#[derive(Clone, Debug, Default)]
pub(crate) struct SessionStatus {
    /// Kept for the life of the handle, from the first session on.
    pub(crate) id: Option<InstanceId>,
    pub(crate) ttl: Option<Duration>,
    /// Whether a session is proven alive.
    pub(crate) up: bool,
    /// How often opening one has failed, and how the last time.
    pub(crate) failures: u64,
    pub(crate) error: Option<Error>,
    /// What the newest write waits to be tried again for.
    pub(crate) write: Option<Error>,
}

/// What the user asked for of sessions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SessionWish {
    pub(crate) ttl: Option<Duration>,
    pub(crate) instance: Option<InstanceId>,
}

#[derive(Default)]
struct Demand {
    /// Callers that wait for the instance id.
    waiting: usize,
    closing: bool,
}

/// The shared side of the reconciler; its task is in `run`.
pub(crate) struct Reconciler {
    /// The handle's.
    seed: u64,
    backend: Arc<dyn Backend>,
    wish: SessionWish,
    ledger: Mutex<Ledger>,
    demand: Mutex<Demand>,
    work: Notify,
    /// Cuts delays short.
    hurry: Notify,
    session: watch::Sender<SessionStatus>,
    /// How the last session ended, once the task has.
    finished: watch::Sender<Option<Result<()>>>,
    meter: OwnerMeter,
}

impl Reconciler {
    pub(crate) fn start(backend: Arc<dyn Backend>, wish: SessionWish, tasks: &TaskScope) -> Arc<Self> {
        let reconciler = Arc::new(Self {
            seed: tasks.seed(),
            meter: OwnerMeter::new(backend.name()),
            ledger: Mutex::new(Ledger::new(patience(&*backend), tasks.seed())),
            backend,
            wish,
            demand: Mutex::default(),
            work: Notify::new(),
            hurry: Notify::new(),
            session: watch::Sender::default(),
            finished: watch::Sender::new(None),
        });
        tasks.spawn(run::run(Arc::clone(&reconciler)));
        reconciler
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// The ledger, for a moment: the guard never lives across an await.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the task that the ledger changed.
    pub(crate) fn notify(&self) {
        self.work.notify_one();
    }

    pub(crate) fn session(&self) -> watch::Receiver<SessionStatus> {
        self.session.subscribe()
    }

    fn demand(&self) -> MutexGuard<'_, Demand> {
        self.demand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closing(&self) -> bool {
        self.demand().closing
    }

    /// Whether anybody needs a session.
    fn is_needed(&self) -> bool {
        self.demand().waiting > 0 || !self.ledger().is_empty()
    }

    /// The owner's instance id, of a session that is opened now if none ever was.
    pub(crate) async fn instance(&self) -> Result<InstanceId> {
        let mut session = self.session.subscribe();
        if let Some(id) = session.borrow().id {
            return Ok(id);
        }
        let seen = session.borrow().failures;
        let _waiting = Waiting::new(self)?;
        loop {
            {
                let status = session.borrow_and_update();
                if let Some(id) = status.id {
                    return Ok(id);
                }
                // A failure that trying again cannot mend is told at once; others until the caller's deadline.
                if let Some(error) =
                    status.error.as_ref().filter(|error| status.failures > seen && !error.is_temporary())
                {
                    return Err(error.clone());
                }
            }
            if session.changed().await.is_err() {
                return Err(closed());
            }
        }
    }

    /// Withdraws everything, ends the session and stops the task. Answers, once that is done, how the session ended.
    pub(crate) async fn close(&self) -> Result<()> {
        self.demand().closing = true;
        self.ledger().withdraw_all();
        self.notify();
        self.hurry.notify_one();
        let mut finished = self.finished.subscribe();
        match finished.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
            Err(_) => Err(closed()),
        }
    }

    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_closing() { Err(closed()) } else { Ok(()) }
    }
}

/// The longest pause between two tries: half of R.
fn patience(backend: &dyn Backend) -> Duration {
    (backend.bounds().recovery / 2).max(Duration::from_millis(100))
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "this discovery handle was shut down: build a new one")
}

/// A caller that needs a session to be open.
struct Waiting<'a>(&'a Reconciler);

impl<'a> Waiting<'a> {
    fn new(reconciler: &'a Reconciler) -> Result<Self> {
        reconciler.check_open()?;
        reconciler.demand().waiting += 1;
        reconciler.notify();
        Ok(Self(reconciler))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.demand().waiting -= 1;
    }
}
