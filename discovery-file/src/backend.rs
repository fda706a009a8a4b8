//! The backend: one handle on a shared directory.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use discovery_core::backend::{
    Backend, ChangeLog, Entry, Health, Position, Registrar, Session, SessionRequest, WatchStream, Watcher,
};
use discovery_core::{
    BackendContext, BackendFactory, Bounds, Capabilities, Error, InstanceId, Key, Result, Scope, TaskScope,
};
use rustix::fs::Access;

use crate::config::{Config, MIN_TTL};
use crate::fault::{fault, is_out_of_place, obstacle};
use crate::place::{Place, Spot};
use crate::session::{FileSession, Sessions, blocking};
use crate::watch::Mirror;
use crate::{MAX_VALUE, NAME};

/// One handle on a shared directory. See the crate's documentation for what it does there.
#[derive(Debug)]
pub struct FileBackend {
    place: Place,
    ttl: Duration,
    sessions: Arc<Sessions>,
    mirror: Arc<Mirror>,
    tasks: TaskScope,
}

inventory::submit! {
    BackendFactory::new(NAME, "discovery-file", "a directory that the processes of one machine share; no server", |context| {
        Box::pin(async move { Ok(Arc::new(FileBackend::connect(&context).await?) as Arc<dyn Backend>) })
    })
}

impl FileBackend {
    /// A handle on the directory that the context's environment names. Makes nothing there.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](discovery_core::ErrorKind::InvalidConfig) for a malformed setting, or where a file stands in the directory's place.
    pub async fn connect(context: &BackendContext) -> Result<Self> {
        Self::with_config(Config::from_environment(&context.environment)?, context).await
    }

    /// A handle on a directory, with background work on the context's tasks.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`](discovery_core::ErrorKind::InvalidConfig) where a file stands in the directory's place.
    pub async fn with_config(config: Config, context: &BackendContext) -> Result<Self> {
        let place = Place::new(config.directory);
        let checked = place.clone();
        blocking("connect", move || match fs::metadata(checked.root()) {
            Ok(metadata) if !metadata.is_dir() => Err(fault(checked.root(), rustix::io::Errno::NOTDIR.into())),
            Err(error) if is_out_of_place(&error) => Err(fault(checked.root(), error)),
            // Missing, it is made by the first registration.
            _ => Ok(()),
        })
        .await?
        .map_err(|error| named(error, "connect"))?;
        Ok(Self {
            mirror: Mirror::new(place.clone(), context.tasks.clone()),
            place,
            ttl: config.ttl.max(MIN_TTL),
            sessions: Arc::default(),
            tasks: context.tasks.clone(),
        })
    }

    /// How many files lie in the watched buckets that are no records: their names do not parse, or they are too large.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`](discovery_core::ErrorKind::Internal) where the runtime ends meanwhile.
    pub async fn skipped(&self) -> Result<u64> {
        self.mirror.skipped().await
    }
}

fn named(error: Error, operation: &'static str) -> Error {
    error.with_backend(NAME).with_operation(operation)
}

#[async_trait]
impl Watcher for FileBackend {
    /// Every watch begins with a snapshot: `after` is never resumed from.
    async fn watch(&self, scope: &Scope, _after: Option<&Position>) -> Result<WatchStream> {
        self.mirror.watch(scope).await.map_err(|error| named(error, "watch"))
    }

    async fn list(&self, scope: &Scope) -> Result<(Vec<Entry>, Position)> {
        self.mirror.list(scope).await.map_err(|error| named(error, "list"))
    }

    /// A bucket is one flat directory: all of a kind, or else everything.
    fn coarsen(&self, scope: &Scope) -> Scope {
        let kind = scope.kind().and_then(|kind| Scope::new(kind, std::iter::empty::<&str>()).ok());
        kind.unwrap_or_else(Scope::all)
    }

    async fn barrier(&self, scope: &Scope) -> Result<Option<Position>> {
        self.mirror.barrier(scope).await.map(Some).map_err(|error| named(error, "barrier"))
    }

    fn reached(&self, at: &Position, target: &Position) -> bool {
        matches!((at.as_u64(), target.as_u64()), (Some(at), Some(target)) if at >= target)
    }
}

#[async_trait]
impl Registrar for FileBackend {
    async fn open(&self, request: &SessionRequest) -> Result<Box<dyn Session>> {
        // As the reference's ids on stores with leases: positive as an i64, and not zero.
        let id = request.instance.unwrap_or_else(|| InstanceId(fastrand::u64(1..=i64::MAX as u64)));
        let ttl = request.ttl.unwrap_or(self.ttl).max(MIN_TTL);
        let (place, sessions) = (self.place.clone(), Arc::clone(&self.sessions));
        let tasks = self.tasks.clone();
        let session = blocking("open", move || FileSession::open(&place, &sessions, id, ttl, &tasks)).await?;
        Ok(Box::new(session.map_err(|error| named(error, "open"))?))
    }
}

#[async_trait]
impl Backend for FileBackend {
    fn name(&self) -> &str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        let mut claims = Capabilities::none();
        (claims.ttl, claims.death_notice, claims.exclusive, claims.file) = (true, true, true, true);
        claims
    }

    fn bounds(&self) -> Bounds {
        let mut bounds = Bounds::default();
        bounds.propagation = Duration::from_millis(50);
        bounds.min_ttl = Some(MIN_TTL);
        bounds.default_ttl = Some(self.ttl);
        bounds.slack = Duration::from_secs(2);
        bounds.recovery = Duration::from_secs(2);
        bounds.max_value = MAX_VALUE;
        bounds
    }

    fn admit(&self, key: &Key, value: usize) -> Result<()> {
        Spot::of(key).map_err(|error| error.with_backend(NAME))?;
        self.bounds().admit_value(value).map_err(|error| error.with_backend(NAME).with_key(key))
    }

    async fn health(&self) -> Result<Health> {
        let place = self.place.clone();
        let start = Instant::now();
        let checked = blocking("health", move || check(&place)).await?;
        checked.map(|detail| Health::new(start.elapsed(), detail)).map_err(|error| named(error, "health"))
    }

    fn change_log(&self) -> Option<&dyn ChangeLog> {
        None
    }

    /// There is nothing to close: watches end with their streams.
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

/// Whether this process may read and write here, or may make the directory where it is missing.
fn check(place: &Place) -> Result<String> {
    let (owners, buckets) = (place.owners(), place.buckets());
    if let Some(obstacle) = obstacle(&owners).or_else(|| obstacle(&buckets)) {
        return Err(obstacle);
    }
    let existing = place.root().ancestors().find(|path| path.exists()).unwrap_or(place.root());
    for path in [existing, &owners, &buckets].into_iter().filter(|path| path.exists()) {
        rustix::fs::access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)
            .map_err(|error| fault(path, error.into()))?;
    }
    let missing = if existing == place.root() { "" } else { " (not made yet)" };
    Ok(format!("directory {}{missing}", place.root().display()))
}
