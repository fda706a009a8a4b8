//! The backend: one handle on one etcd.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use discovery_core::backend::{
    Backend, ChangeLog, Entry, Health, Position, Registrar, Session, SessionRequest, WatchStream, Watcher,
};
use discovery_core::{
    BackendContext, BackendFactory, Bounds, Capabilities, Error, ErrorKind, Key, Result, Scope, TaskScope,
};
use tokio::time::{Instant, sleep, timeout_at};

use crate::bounds;
use crate::config::{Config, STARTUP_VARIABLE};
use crate::fault::Fault;
use crate::link::Wire;
use crate::owner::Owner;
use crate::place::Place;
use crate::session::EtcdSession;
use crate::store::{CALL, Store};
use crate::{NAME, snapshot, watch};

/// One handle on an etcd: its own session, its own connections. See the crate's documentation for what it does there.
pub struct EtcdBackend {
    store: Arc<Store>,
    owner: Arc<Owner>,
    tasks: TaskScope,
}

inventory::submit! {
    BackendFactory::new(NAME, "discovery-etcd", "an etcd, for fleets on many machines", |context| {
        Box::pin(async move { Ok(Arc::new(EtcdBackend::connect(&context).await?) as Arc<dyn Backend>) })
    })
}

impl EtcdBackend {
    /// A handle on the etcd that the context's environment names.
    ///
    /// # Errors
    /// As [`EtcdBackend::with_config`], and [`ErrorKind::InvalidConfig`] for a malformed setting.
    pub async fn connect(context: &BackendContext) -> Result<Self> {
        let environment = context.environment.clone();
        // It reads files: one that is mounted may not answer, and the handle's thread would wait for it.
        let reading = tokio::task::spawn_blocking(move || Config::from_environment(&environment)).await;
        let config = reading.unwrap_or_else(|error| {
            Err(Error::new(ErrorKind::Internal, "reading the settings did not end: please report it")
                .with_source(error))
        });
        Self::with_config(config.map_err(|error| named(error, "connect"))?, context).await
    }

    /// A handle on an etcd. Where [`Config::startup`] is set, waits until a member answers, for as long as that allows; else
    /// connects with the first operation.
    ///
    /// # Errors
    /// What kept the members from answering. [`ErrorKind::InvalidConfig`] without endpoints, or with a user in one.
    pub async fn with_config(config: Config, context: &BackendContext) -> Result<Self> {
        config.check().map_err(|error| named(error, "connect"))?;
        let startup = config.startup;
        let store = Arc::new(Store::new(config));
        if let Some(startup) = startup {
            // With time for the error to be told.
            context.allow(startup + Duration::from_secs(1));
            reach(&store, Instant::now() + startup).await.map_err(|error| named(error, "connect"))?;
        }
        Ok(Self { store, owner: Arc::new(Owner::new()), tasks: context.tasks.clone() })
    }

    /// How many stored keys were passed over because they are no records: written by something else, or malformed.
    pub fn skipped(&self) -> u64 {
        self.store.skipped.load(Ordering::Relaxed)
    }

    /// The lease of the newest session, as etcd numbers it; `None` before the first. etcdctl writes it in hexadecimal.
    pub fn lease(&self) -> Option<i64> {
        self.owner.newest_lease()
    }

    pub(crate) fn store(&self) -> &Arc<Store> {
        &self.store
    }

    pub(crate) fn name_error(&self, error: Error, operation: &'static str) -> Error {
        named(error, operation)
    }
}

fn named(error: Error, operation: &'static str) -> Error {
    error.with_backend(NAME).with_operation(operation)
}

/// Waits until a member answers.
async fn reach(store: &Store, until: Instant) -> Result<()> {
    let mut pause = Duration::from_millis(50);
    let mut last = None;
    loop {
        match timeout_at(until, store.now(store.names.root())).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(fault)) if !fault.error.is_temporary() => return Err(fault.error),
            Ok(Err(fault)) => last = Some(fault.error),
            Err(_) => {
                let message = format!("no member answered in the time that {STARTUP_VARIABLE} allows");
                let error = Error::new(ErrorKind::Timeout, message);
                return Err(match last {
                    Some(cause) => error.with_source(cause),
                    None => error,
                });
            }
        }
        let _ = timeout_at(until, sleep(pause)).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

impl fmt::Debug for EtcdBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdBackend").field("config", &self.store.config).finish_non_exhaustive()
    }
}

#[async_trait]
impl Watcher for EtcdBackend {
    async fn watch(&self, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
        watch::open(&self.store, scope, after).await.map_err(|error| named(error, "watch"))
    }

    async fn list(&self, scope: &Scope) -> Result<(Vec<Entry>, Position)> {
        let range = self.store.names.range(scope).map_err(|error| named(error, "list"))?;
        let before = self.store.known();
        let read = snapshot::read(&self.store, &range).await.map_err(|fault| named(fault.error, "list"))?;
        let (entries, revision) = read;
        Ok((entries, self.store.answered(before, revision).position()))
    }

    /// Every scope is a range of keys.
    fn coarsen(&self, scope: &Scope) -> Scope {
        scope.clone()
    }

    async fn barrier(&self, scope: &Scope) -> Result<Option<Position>> {
        // Who may read the scope alone asks there; the answer is of the whole store.
        let range = self.store.names.range(scope).map_err(|error| named(error, "barrier"))?;
        let now = self.store.now(range.start.clone()).await.map_err(|fault| named(fault.error, "barrier"))?;
        self.store.awaited.expect(&range, now.revision);
        Ok(Some(now.position()))
    }

    fn reached(&self, at: &Position, target: &Position) -> bool {
        matches!((Place::parse(at), Place::parse(target)), (Some(at), Some(target)) if at.reached(&target))
    }
}

#[async_trait]
impl Registrar for EtcdBackend {
    async fn open(&self, request: &SessionRequest) -> Result<Box<dyn Session>> {
        let session = EtcdSession::open(&self.store, &self.owner, &self.tasks, request).await;
        Ok(Box::new(session.map_err(|error| named(error, "open"))?))
    }
}

#[async_trait]
impl Backend for EtcdBackend {
    fn name(&self) -> &str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        bounds::capabilities(self.store.config.endpoints.len())
    }

    fn bounds(&self) -> Bounds {
        bounds::bounds(self.store.config.ttl, self.store.config.min_ttl)
    }

    fn admit(&self, key: &Key, value: usize) -> Result<()> {
        self.store.names.stored(key).map_err(|error| error.with_backend(NAME))?;
        self.bounds().admit_value(value).map_err(|error| error.with_backend(NAME).with_key(key))
    }

    async fn health(&self) -> Result<Health> {
        let start = Instant::now();
        let root = self.store.names.root();
        let ask = |wire: Wire| {
            let root = root.clone();
            async move {
                let endpoint = Arc::clone(&wire.endpoint);
                let mut client = wire.client.clone();
                let revision = crate::store::revision(wire, root).await?;
                let answered = start.elapsed();
                Ok((endpoint, revision, answered, client.status().await?))
            }
        };
        let answer = self.store.control.read(CALL, ask).await.map_err(|fault: Fault| named(fault.error, "health"))?;
        let (endpoint, revision, latency, status) = answer;
        let mut detail =
            format!("etcd {} at {endpoint}, revision {revision}, leader {:x}", status.version(), status.leader());
        for problem in status.errors() {
            detail.push_str("; ");
            detail.push_str(problem);
        }
        Ok(Health::new(latency, detail))
    }

    fn change_log(&self) -> Option<&dyn ChangeLog> {
        Some(self)
    }

    async fn close(&self) -> Result<()> {
        self.store.close();
        Ok(())
    }
}
