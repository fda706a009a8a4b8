//! The backend: one handle on a cluster.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use discovery_core::backend::{
    Backend, ChangeLog, Entry, Health, Position, Registrar, Session, SessionRequest, WatchStream, Watcher,
};
use discovery_core::{BackendContext, BackendFactory, Bounds, Capabilities, Error, ErrorKind, Key, Result, Scope};
use kube::Client;

use crate::births::Births;
use crate::bounds;
use crate::config::{Config, Namespaces};
use crate::document;
use crate::fault::Request;
use crate::identity::Identity;
use crate::own::Own;
use crate::progress;
use crate::seat::Seat;
use crate::session::{Handle, KubernetesSession, Place};
use crate::source::{Leg, Ways, legs};
use crate::watch::{self, Barriers};
use crate::{NAME, client};

/// How many namespaces are watched on one connection. The API server allows a hundred streams there; each namespace has two,
/// and twice that for as long as one watch takes over from another.
const NAMESPACES: usize = 20;

/// One handle on a cluster. See the crate's documentation for what it does there.
pub struct KubernetesBackend {
    client: Client,
    identity: Result<Identity>,
    legs: Vec<Leg>,
    place: Place,
    barriers: Barriers,
    births: Births,
    /// Taken with the first session and kept.
    seat: Mutex<Option<Seat>>,
    sessions: Arc<Handle>,
}

inventory::submit! {
    BackendFactory::new(
        NAME,
        "discovery-k8s",
        "the cluster's own API: a resource for each pod, shown while the pod is ready",
        |context| Box::pin(async move {
            Ok(Arc::new(KubernetesBackend::connect(&context).await?) as Arc<dyn Backend>)
        }),
    )
    .with_aliases(&["k8s"])
}

impl KubernetesBackend {
    /// A handle on the cluster that the context's environment names. Asks nothing of it yet.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] for a malformed setting, and where no cluster is named.
    pub async fn connect(context: &BackendContext) -> Result<Self> {
        let opened = async {
            let config = Config::from_environment(&context.environment)?;
            let settings = client::settings(&context.environment).await?;
            Self::new(config, &settings)
        };
        opened.await.map_err(|error: Error| named(error, "connect"))
    }

    fn new(config: Config, settings: &kube::Config) -> Result<Self> {
        let client = client::client(settings)?;
        let own = config.identity.as_ref().ok().map(|identity| identity.namespace.clone());
        let own = own.unwrap_or_else(|| client.default_namespace().to_owned());
        let watched = config.namespaces.unwrap_or_else(|| Namespaces::Named(vec![own]));
        let mut ways = Ways { requests: client.clone(), watches: client.clone() };
        let legs: Vec<Leg> = match &watched {
            Namespaces::All => legs(&ways, None, config.mode, config.unknown_is_ready).to_vec(),
            Namespaces::Named(names) => {
                let mut all = Vec::with_capacity(names.len() * 2);
                for (number, name) in names.iter().enumerate() {
                    if names.len() > NAMESPACES && number % NAMESPACES == 0 {
                        ways.watches = client::client(settings)?;
                    }
                    all.extend(legs(&ways, Some(name), config.mode, config.unknown_is_ready));
                }
                all
            }
        };
        let holds_own = |leg: &Leg| {
            let is_own = |identity: &Identity| leg.namespace.as_ref().is_none_or(|name| **name == *identity.namespace);
            leg.side == crate::join::Side::Records && config.identity.as_ref().is_ok_and(is_own)
        };
        Ok(Self {
            place: Place { leg: legs.iter().position(holds_own), legs: legs.len() },
            identity: config.identity,
            client,
            legs,
            barriers: Barriers::new(),
            births: Births::default(),
            seat: Mutex::default(),
            sessions: Arc::default(),
        })
    }

    /// Who registers here.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] saying what is missing to know it.
    fn identity(&self) -> Result<&Identity> {
        self.identity.as_ref().map_err(Clone::clone)
    }

    fn take_seat(&self, identity: &Identity) -> Result<()> {
        let mut seat = self.seat.lock().unwrap_or_else(PoisonError::into_inner);
        if seat.is_none() {
            *seat = Some(Seat::take(identity)?);
        }
        Ok(())
    }
}

fn named(error: Error, operation: &'static str) -> Error {
    error.with_backend(NAME).with_operation(operation)
}

#[async_trait]
impl Watcher for KubernetesBackend {
    /// Every watch begins with a snapshot: `after` is not resumed from, and tells whether the cluster went back.
    async fn watch(&self, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
        Ok(watch::open(&self.legs, &self.barriers, &self.births, scope, after))
    }

    async fn list(&self, scope: &Scope) -> Result<(Vec<Entry>, Position)> {
        let (join, position) = watch::list(&self.legs).await.map_err(|error| named(error, "list"))?;
        let mut entries = join.entries();
        entries.retain(|entry| scope.contains(&entry.key));
        Ok((entries, position))
    }

    /// One resource holds all records of its owner: there is nothing narrower to watch than all of them.
    fn coarsen(&self, _scope: &Scope) -> Scope {
        Scope::all()
    }

    async fn barrier(&self, _scope: &Scope) -> Result<Option<Position>> {
        self.barriers.raise(&self.legs).await.map(Some).map_err(|error| named(error, "barrier"))
    }

    fn reached(&self, at: &Position, target: &Position) -> bool {
        progress::reached(at, target)
    }
}

#[async_trait]
impl Registrar for KubernetesBackend {
    async fn open(&self, request: &SessionRequest) -> Result<Box<dyn Session>> {
        let opened = async {
            let identity = self.identity()?;
            if let Some(wanted) = request.instance.filter(|wanted| *wanted != identity.instance()) {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    format!(
                        "on Kubernetes the instance id follows from the pod's name and is {}: ask for no other than that ({wanted})",
                        identity.instance()
                    ),
                ));
            }
            self.take_seat(identity)?;
            let own = Own::new(&self.client, identity.clone());
            KubernetesSession::open(own, self.place, Arc::clone(&self.sessions)).await
        };
        Ok(Box::new(opened.await.map_err(|error| named(error, "open"))?))
    }
}

#[async_trait]
impl Backend for KubernetesBackend {
    fn name(&self) -> &str {
        NAME
    }

    fn capabilities(&self) -> Capabilities {
        bounds::capabilities()
    }

    fn bounds(&self) -> Bounds {
        bounds::bounds(self.legs.len())
    }

    fn admit(&self, key: &Key, value: usize) -> Result<()> {
        document::entry(key).map_err(|error| error.with_backend(NAME))?;
        self.bounds().admit_value(value).map_err(|error| error.with_backend(NAME).with_key(key))
    }

    async fn health(&self) -> Result<Health> {
        let start = Instant::now();
        let request = Request { verb: "get", resource: "/version", namespace: None };
        let version = self.client.apiserver_version().await.map_err(|error| named(request.fault(error), "health"))?;
        let detail = format!("Kubernetes {}, {} watches", version.git_version, self.legs.len());
        Ok(Health::new(start.elapsed(), detail))
    }

    fn change_log(&self) -> Option<&dyn ChangeLog> {
        None
    }

    /// Watches end with their streams, and connections with the handle.
    async fn close(&self) -> Result<()> {
        *self.seat.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }
}
