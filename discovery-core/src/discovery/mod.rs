//! The handle: what a service holds.

mod builder;
mod history;
mod patience;
mod reading;
mod storing;
mod writing;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

pub use builder::Builder;
pub use history::{ChangeToken, Committed};
pub use writing::Draft;

use patience::Patience;

use crate::backend::{Backend, Health};
use crate::backoff::Backoff;
use crate::capability::{Bounds, Capabilities};
use crate::deadline::later;
use crate::error::{Error, ErrorKind, Result};
use crate::executor::SharedExecutor;
use crate::feed::Scopes;
use crate::key::{InstanceId, Key};
use crate::reconcile::Reconciler;
use crate::select::Selection;

/// How long a handle that is dropped without a shutdown goes on withdrawing its records in the background.
const FAREWELL: Duration = Duration::from_secs(5);

/// The limits that a handle was built with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) operation_timeout: Duration,
    pub(crate) sync_timeout: Duration,
}

/// One process's access to discovery: registers records and opens views, on the backend that the environment picks.
///
/// Cloning shares the handle. It lives as long as anything made from it: clones, registrations, views, histories. Background work
/// runs on a thread of its own, so that a blocked user runtime cannot stop renewals, and the handle can be used from
/// any runtime.
#[derive(Clone)]
pub struct Discovery {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) scopes: Arc<Scopes>,
    pub(crate) reconciler: Arc<Reconciler>,
    pub(crate) settings: Settings,
    executor: SharedExecutor,
    selection: Selection,
    backend_closed: Arc<AtomicBool>,
}

/// What a shutdown could not do.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Records that may still be stored; they go when their session's time to live has passed, where there is one.
    pub not_withdrawn: Vec<Key>,
    /// Why the session or the backend did not close in order, where one did not.
    pub error: Option<Error>,
    /// Whether every task and the handle's thread ended in time.
    pub joined: bool,
}

impl ShutdownReport {
    /// Whether nothing is left behind.
    pub fn is_clean(&self) -> bool {
        self.not_withdrawn.is_empty() && self.error.is_none() && self.joined
    }
}

impl Discovery {
    /// A handle on the backend that the process's environment picks: see [`select`](crate::select()).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] where the backend is not linked in or a setting is wrong; what keeps the backend
    /// from being built.
    pub async fn from_env() -> Result<Self> {
        Self::builder().build().await
    }

    /// A builder, for everything that can be chosen.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// The backend's name.
    pub fn backend_name(&self) -> &str {
        self.inner.backend.name()
    }

    /// Which backend was chosen, and why.
    pub fn selection(&self) -> &Selection {
        &self.inner.selection
    }

    /// What the backend claims.
    pub fn capabilities(&self) -> Capabilities {
        self.inner.backend.capabilities()
    }

    /// The bounds that the backend declares.
    pub fn bounds(&self) -> Bounds {
        self.inner.backend.bounds()
    }

    /// This process's instance id. Opens the session if there is none yet. Cancel-safe.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] with the backend's last error after the operation time-out.
    pub async fn instance_id(&self) -> Result<InstanceId> {
        let reconciler = Arc::clone(&self.inner.reconciler);
        self.inner.run_limited("open session", async move { reconciler.instance().await }).await
    }

    /// The session's time to live in force; `None` before the first session, or where the store decides liveness.
    pub fn effective_ttl(&self) -> Option<Duration> {
        self.inner.reconciler.session().borrow().ttl
    }

    /// How many tasks are alive on the thread that does this handle's background work; with
    /// [`ExecutorKind::Current`](crate::ExecutorKind::Current) on the whole runtime. For who looks for one that leaks.
    pub fn alive_tasks(&self) -> usize {
        self.inner.executor.scope().alive()
    }

    /// Asks the store whether it serves. Cancel-safe.
    ///
    /// # Errors
    /// What keeps it from serving.
    pub async fn health(&self) -> Result<Health> {
        let backend = Arc::clone(&self.inner.backend);
        self.inner.run_limited("health", async move { backend.health().await }).await
    }

    /// Withdraws every record, ends the session, closes every watch, then the backend, and joins every task, within
    /// `deadline`. Views keep their last state and are stale; their streams end. A second call finds nothing to do.
    ///
    /// Cancel-safe: what was begun goes on in the background, and a second call joins what is left.
    pub async fn shutdown(&self, deadline: Duration) -> ShutdownReport {
        let inner = Arc::clone(&self.inner);
        let (answer, report) = oneshot::channel();
        let closing = async move {
            let report = inner.close(deadline).await;
            // The caller may be gone; then nobody wants the report.
            let _ = answer.send(report);
        };
        if !self.inner.executor.spawn_last(closing) {
            return ShutdownReport { joined: true, ..ShutdownReport::default() };
        }
        // The thread ends under a call that comes second only once the first one is done.
        let mut report = report.await.unwrap_or(ShutdownReport { joined: true, ..ShutdownReport::default() });
        report.joined &= self.inner.executor.join(report.joined);
        report
    }
}

impl fmt::Debug for Discovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discovery").field("backend", &self.backend_name()).finish()
    }
}

impl Inner {
    /// For an operation that begins now.
    pub(crate) fn patience(&self) -> Patience {
        Patience::new(self.backoff(), self.settings.operation_timeout)
    }

    /// The delays between an operation's tries.
    pub(crate) fn backoff(&self) -> Backoff {
        let cap = self.backend.bounds().recovery.max(Duration::from_millis(100));
        Backoff::seeded(cap, self.reconciler.seed())
    }

    /// Runs a future on the handle's thread, its errors told which operation and backend they belong to.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        // Boxed, because each layer around a future holds it twice: the caller's own future would be huge.
        let work: BoxFuture<'static, Result<T>> = Box::pin(work);
        let outcome = self.executor.scope().run(self.scopes.reading(work)).await;
        outcome.map_err(|error| error.with_backend(self.backend.name()).with_operation(operation))
    }

    /// The same, for at most the operation time-out.
    pub(crate) async fn run_limited<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let limit = self.settings.operation_timeout;
        let session = self.reconciler.session();
        let work: BoxFuture<'static, Result<T>> = Box::pin(work);
        let limited = async move {
            timeout(limit, work).await.unwrap_or_else(|_| {
                let error =
                    Error::new(ErrorKind::Timeout, format!("not done within {limit:?}: is the store reachable?"));
                let cause = session.borrow().error.clone();
                Err(match cause {
                    Some(cause) => error.with_source(cause),
                    None => error,
                })
            })
        };
        self.run(operation, limited).await
    }

    /// Everything that a shutdown does but joining the thread that it runs on.
    async fn close(&self, deadline: Duration) -> ShutdownReport {
        let until = later(Instant::now(), deadline);
        // Part of the time is kept for closing and joining, which is quick unless something hangs.
        let for_closing = (deadline / 4).min(Duration::from_millis(500));
        let (not_withdrawn, left_open) = Inner::take_leave(&self.reconciler, deadline - for_closing).await;
        let left = || until.saturating_duration_since(Instant::now());
        let closed = close_backend(&self.scopes, &self.backend, &self.backend_closed, left() / 2).await;
        let joined = self.executor.cancel_and_join(left()).await;
        let error = left_open.or(closed.err());
        let error = error.map(|error| error.with_backend(self.backend.name()).with_operation("close"));
        ShutdownReport { not_withdrawn, error, joined }
    }

    /// Withdraws everything and ends the session within `deadline`, and answers what may be left, and why.
    async fn take_leave(reconciler: &Reconciler, deadline: Duration) -> (Vec<Key>, Option<Error>) {
        match timeout(deadline, reconciler.close()).await {
            Ok(ended) => (Vec::new(), ended.err()),
            Err(_) => {
                let error = Error::new(ErrorKind::Timeout, "the session did not end in time: it expires by itself");
                (reconciler.ledger().keys(), Some(error))
            }
        }
    }
}

/// Closes every watch, and then the backend: once, whoever asks.
async fn close_backend(
    scopes: &Scopes,
    backend: &Arc<dyn Backend>,
    closed: &AtomicBool,
    within: Duration,
) -> Result<()> {
    let closing = async {
        scopes.close().await;
        if closed.swap(true, Ordering::AcqRel) { Ok(()) } else { backend.close().await }
    };
    timeout(within, closing)
        .await
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "the backend did not close in time")))
}

impl Drop for Inner {
    fn drop(&mut self) {
        let scope = self.executor.scope();
        if scope.is_closed() {
            return;
        }
        let executor = Arc::clone(&self.executor);
        let (reconciler, backend) = (Arc::clone(&self.reconciler), Arc::clone(&self.backend));
        let (scopes, closed) = (Arc::clone(&self.scopes), Arc::clone(&self.backend_closed));
        scope.spawn_graceful(async move {
            Inner::take_leave(&reconciler, FAREWELL).await;
            if let Err(error) = close_backend(&scopes, &backend, &closed, FAREWELL).await {
                tracing::debug!(error = %error, "the backend did not close in order");
            }
            drop(executor);
        });
    }
}
