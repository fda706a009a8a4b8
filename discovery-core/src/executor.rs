//! Where the core's own work runs: a dedicated thread, so that a blocked user runtime cannot stop renewals.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::{Error, ErrorKind, Result};

/// Which thread a handle's background work runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExecutorKind {
    /// A thread of the handle's own: renewals go on while the user's runtime is blocked.
    #[default]
    Dedicated,
    /// The runtime that the handle is built on, for tests that pause tokio's clock.
    Current,
}

/// The tasks of one handle. Cloned scopes are the same scope; a backend spawns its background work here, and the core
/// cancels and joins it at shutdown.
#[derive(Clone, Debug)]
pub struct TaskScope {
    handle: Handle,
    tracker: TaskTracker,
    cancel: CancellationToken,
    /// What all that is random in the handle follows from, in whatever order its tasks come to draw.
    seed: u64,
}

impl TaskScope {
    /// A scope on the current runtime, for backends that are tried without a [`Discovery`](crate::Discovery).
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn current() -> Self {
        Self::on(Handle::current())
    }

    fn on(handle: Handle) -> Self {
        Self { handle, tracker: TaskTracker::new(), cancel: CancellationToken::new(), seed: fastrand::u64(..) }
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Runs a task until it ends or the scope does.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        self.tracker.spawn_on(
            async move {
                tokio::select! {
                    biased;
                    () = cancel.cancelled() => {}
                    () = task => {}
                }
            },
            &self.handle,
        );
    }

    /// Runs a task that ends itself once it sees the scope's end: see [`TaskScope::cancelled`].
    pub(crate) fn spawn_graceful(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn_on(task, &self.handle);
    }

    /// Runs a future on this scope's thread and awaits its result from wherever the caller is. Cancel-safe: dropping
    /// the returned future drops the one that runs.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let (mut answer, result) = oneshot::channel();
        let cancel = self.cancel.clone();
        self.tracker.spawn_on(
            async move {
                let outcome = tokio::select! {
                    biased;
                    () = cancel.cancelled() => Err(closed()),
                    () = answer.closed() => return,
                    outcome = std::panic::AssertUnwindSafe(work).catch_unwind() => outcome.unwrap_or_else(|_| {
                        Err(Error::new(ErrorKind::Internal, "the backend panicked: please report it"))
                    }),
                };
                // The caller may be gone; then nobody wants the answer.
                let _ = answer.send(outcome);
            },
            &self.handle,
        );
        result.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Resolves when the scope ends.
    pub async fn cancelled(&self) {
        self.cancel.cancelled().await;
    }

    /// How many tasks are alive on this scope's thread, whoever spawned them.
    pub(crate) fn alive(&self) -> usize {
        self.handle.metrics().num_alive_tasks()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// A token that is cancelled with the scope, or alone.
    pub(crate) fn child_token(&self) -> CancellationToken {
        self.cancel.child_token()
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "this discovery handle was shut down: build a new one")
}

/// Owns the thread and the tasks on it.
#[derive(Debug)]
pub(crate) struct Executor {
    scope: TaskScope,
    thread: Option<Dedicated>,
}

#[derive(Debug)]
struct Dedicated {
    stop: CancellationToken,
    join: Mutex<Option<thread::JoinHandle<()>>>,
}

impl Executor {
    pub(crate) fn start(kind: ExecutorKind) -> Result<Self> {
        let (handle, thread) = match kind {
            ExecutorKind::Current => {
                let handle = Handle::try_current().map_err(|error| {
                    Error::new(ErrorKind::InvalidConfig, "no tokio runtime here: use the dedicated executor")
                        .with_source(error)
                })?;
                (handle, None)
            }
            ExecutorKind::Dedicated => {
                let failed =
                    |error| Error::new(ErrorKind::Internal, "cannot start the discovery thread").with_source(error);
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
                let handle = runtime.handle().clone();
                let stop = CancellationToken::new();
                let stopped = stop.clone();
                let join = thread::Builder::new()
                    .name("discovery".to_owned())
                    .spawn(move || {
                        runtime.block_on(stopped.cancelled());
                        runtime.shutdown_background();
                    })
                    .map_err(failed)?;
                (handle, Some(Dedicated { stop, join: Mutex::new(Some(join)) }))
            }
        };
        Ok(Self { scope: TaskScope::on(handle), thread })
    }

    pub(crate) fn scope(&self) -> &TaskScope {
        &self.scope
    }

    /// Runs a task that outlives the scope: the one that ends it. Answers whether it could be begun.
    pub(crate) fn spawn_last(&self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        let ended = self.thread.as_ref().is_some_and(|thread| thread.stop.is_cancelled());
        if !ended {
            self.scope.handle.spawn(task);
        }
        !ended
    }

    /// Cancels and joins every task of the scope. Answers whether all of them ended in time. Cancel-safe: a second call
    /// goes on where the first one was dropped.
    pub(crate) async fn cancel_and_join(&self, within: Duration) -> bool {
        self.scope.cancel.cancel();
        self.scope.tracker.close();
        tokio::time::timeout(within, self.scope.tracker.wait()).await.is_ok()
    }

    /// Ends the thread, and joins it where its tasks are known to have ended. Not to be called on that thread.
    pub(crate) fn join(&self, tasks_ended: bool) -> bool {
        let Some(thread) = &self.thread else { return true };
        thread.stop.cancel();
        // A thread whose task never yields cannot be joined without hanging here too.
        let join = thread.join.lock().unwrap_or_else(PoisonError::into_inner).take();
        match join {
            Some(join) if tasks_ended => join.join().is_ok(),
            _ => true,
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.scope.cancel.cancel();
        if let Some(thread) = &self.thread {
            thread.stop.cancel();
        }
    }
}

/// Shared ownership of an executor by everything that needs its thread alive.
pub(crate) type SharedExecutor = Arc<Executor>;
