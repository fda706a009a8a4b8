//! Builds a handle.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::{Discovery, Inner, Settings};
use crate::backend::Backend;
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::executor::{Executor, ExecutorKind};
use crate::feed::{FeedSettings, Scopes};
use crate::key::InstanceId;
use crate::reconcile::{Reconciler, SessionWish};
use crate::registry::{BackendContext, BackendFactory, Registry};
use crate::select::{Selection, select};

/// Chooses what a [`Discovery`] is made of. Nothing is opened before [`Builder::build`].
#[derive(Debug)]
#[must_use]
pub struct Builder {
    environment: Option<Environment>,
    registry: Registry,
    name: Option<String>,
    backend: Option<Arc<dyn Backend>>,
    executor: ExecutorKind,
    wish: SessionWish,
    operation_timeout: Duration,
    sync_timeout: Duration,
    connect_timeout: Duration,
    resync_grace: Duration,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            environment: None,
            registry: Registry::linked(),
            name: None,
            backend: None,
            executor: ExecutorKind::default(),
            wish: SessionWish::default(),
            operation_timeout: Duration::from_secs(15),
            sync_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            resync_grace: Duration::ZERO,
        }
    }

    /// The settings to read instead of the process's environment.
    pub fn environment(mut self, environment: Environment) -> Self {
        self.environment = Some(environment);
        self
    }

    /// The backend's name, over the environment's choice.
    pub fn backend(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// One more backend that can be picked by name, beside those that were linked in.
    pub fn factory(mut self, factory: BackendFactory) -> Self {
        self.registry = self.registry.with(factory);
        self
    }

    /// A backend that exists already: nothing is picked.
    pub fn with_backend(mut self, backend: Arc<dyn Backend>) -> Self {
        self.backend = Some(backend);
        self
    }

    /// Where background work runs. The default is a dedicated thread.
    pub fn executor(mut self, executor: ExecutorKind) -> Self {
        self.executor = executor;
        self
    }

    /// The time to live to ask for; the backend reports [what is in force](Discovery::effective_ttl).
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.wish.ttl = Some(ttl);
        self
    }

    /// The instance id to register under, where the backend lets it be chosen. The default is the backend's choice.
    pub fn instance(mut self, instance: InstanceId) -> Self {
        self.wish.instance = Some(instance);
        self
    }

    /// How long registering, listing and the like may take, retries included. The default is 15 seconds.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// How long opening a view waits for it to be live. The default is 30 seconds.
    pub fn sync_timeout(mut self, timeout: Duration) -> Self {
        self.sync_timeout = timeout;
        self
    }

    /// How long connecting and opening a watch may take before it is tried again. The default is 10 seconds. Connecting
    /// takes longer where a setting of the backend's says so.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// For how long views keep records that a store lost, once the loss was proven: their owners put them back
    /// meanwhile. The default is zero, which shows them leave.
    pub fn resync_grace(mut self, grace: Duration) -> Self {
        self.resync_grace = grace;
        self
    }

    /// Builds the handle. Whether the store can be reached shows with the first operation: building needs no store
    /// unless the backend does.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] where the backend is not linked in or a setting is wrong; what keeps the backend
    /// from being built.
    pub async fn build(self) -> Result<Discovery> {
        let executor = Executor::start(self.executor)?;
        let (backend, selection) = match self.backend {
            Some(backend) => {
                let selection =
                    Selection { backend: backend.name().to_owned(), reason: "the program brought it".to_owned() };
                (backend, selection)
            }
            None => {
                let environment = self.environment.unwrap_or_else(Environment::process);
                let selection = match self.name {
                    Some(name) => Selection { backend: name, reason: "the program names it".to_owned() },
                    None => select(&environment)?,
                };
                let factory = *self.registry.find(&selection.backend)?;
                let context = BackendContext::new(environment, executor.scope().clone())
                    .with_connect_timeout(self.connect_timeout);
                let mut limit = self.connect_timeout;
                let connect = async move {
                    let asked = context.clone();
                    let mut connecting = (factory.connect)(context);
                    let mut connected = timeout(limit, &mut connecting).await;
                    if let (Err(_), Some(longer)) = (&connected, asked.allowed().filter(|longer| *longer > limit)) {
                        connected = timeout(longer - limit, connecting).await;
                        limit = longer;
                    }
                    connected.unwrap_or_else(|_| {
                        Err(Error::new(
                            ErrorKind::Timeout,
                            format!("not connected within {limit:?}: is the store reachable?"),
                        ))
                    })
                };
                let connected = executor.scope().run(connect).await;
                (connected.map_err(|error| error.with_backend(factory.name).with_operation("connect"))?, selection)
            }
        };
        tracing::info!(backend = selection.backend, reason = selection.reason, "discovery backend chosen");
        let tasks = executor.scope();
        let feed = FeedSettings { resync_grace: self.resync_grace, open_timeout: self.connect_timeout };
        Ok(Discovery {
            inner: Arc::new(Inner {
                scopes: Arc::new(Scopes::new(Arc::clone(&backend), tasks.clone(), feed)),
                reconciler: Reconciler::start(Arc::clone(&backend), self.wish, tasks),
                backend,
                settings: Settings { operation_timeout: self.operation_timeout, sync_timeout: self.sync_timeout },
                executor: Arc::new(executor),
                selection,
                backend_closed: Arc::default(),
            }),
        })
    }
}
