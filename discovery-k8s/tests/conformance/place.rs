//! A world: a namespace, and owners that each have a pod, an account and a network of their own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use discovery_conformance::{Fault, World};
use discovery_core::backend::Backend;
use discovery_core::{BackendContext, Environment, Error, ErrorKind, Key, Result, TaskScope};
use discovery_deploy::Mode;
use discovery_k8s::{KubernetesBackend, MODE_VARIABLE, PODINFO_VARIABLE};
use discovery_testbed::{Cluster, ControlPlane, Network, Way};
use futures_util::future::try_join_all;
use tokio::sync::OnceCell;

use super::Servers;
use super::namespace::{CONTAINER, Made, Namespace};
use super::resources::Resources;
use crate::client::{connect, failed};

/// The pod of those whose records nobody registered.
const STRANGER: &str = "stranger";

#[derive(Clone)]
struct Owner {
    pod: Made,
    network: Arc<Network>,
    environment: Environment,
    dead: Arc<AtomicBool>,
    /// Held while something is said of the pod, which whoever says it waits for.
    said: Arc<tokio::sync::Mutex<()>>,
    /// The same for what its account may do.
    permitted: Arc<tokio::sync::Mutex<()>>,
}

pub(crate) struct Place {
    servers: Servers,
    pub(crate) namespace: Namespace,
    resources: Resources,
    owners: Mutex<BTreeMap<usize, Owner>>,
    stranger: OnceCell<()>,
    /// Held while the API server is ended or started: an outage lasts until it is ended, whoever else strikes.
    serving: tokio::sync::Mutex<()>,
}

impl Place {
    /// With pods for so many owners.
    pub(super) async fn new(servers: Servers, mode: Mode, owners: usize) -> Result<Self> {
        let client = connect(cluster(&servers)?.kubeconfig_path()).await?;
        let namespace = Namespace::create(client, mode).await?;
        let resources = Resources::of(&namespace);
        let place = Self {
            servers,
            namespace,
            resources,
            owners: Mutex::default(),
            stranger: OnceCell::new(),
            serving: tokio::sync::Mutex::default(),
        };
        try_join_all((0..owners).map(|n| place.prepare(n))).await?;
        Ok(place)
    }

    fn the(&self, n: usize) -> Result<Owner> {
        let owner = self.owners.lock().unwrap_or_else(PoisonError::into_inner).get(&n).cloned();
        owner.ok_or_else(|| Error::new(ErrorKind::Internal, format!("there is no owner {n}")))
    }

    fn way(&self, n: usize, change: impl FnOnce(&mut Way)) -> Result<()> {
        self.the(n)?.network.change(change);
        Ok(())
    }

    pub(crate) fn plane(&self) -> Result<&ControlPlane> {
        let shared = || Error::new(ErrorKind::Unsupported, "the control plane of this world serves others too");
        self.servers.plane().ok_or_else(shared)
    }

    /// The n-th owner's pod, ready, and all that its process needs.
    async fn prepare(&self, n: usize) -> Result<Owner> {
        let name = format!("owner-{n}");
        self.namespace.account(&name).await?;
        let pod = self.namespace.pod(&name, Some(&name)).await?;
        let (token, reported) = tokio::join!(self.namespace.token(&name, &pod), self.namespace.report(&pod, true));
        reported?;
        let cluster = cluster(&self.servers)?;
        let server = cluster.kubeconfig().address().await.map_err(|error| failed("the API server", error))?;
        let network = Network::to([server]).map_err(|error| failed("a network", error))?;
        let kubeconfig = cluster.kubeconfig().with_token(&token?).through(&network.proxies()[0]);
        let kubeconfig = kubeconfig.and_then(|kubeconfig| cluster.save(&kubeconfig));
        let kubeconfig = kubeconfig.map_err(|error| failed("a kubeconfig", error))?;
        let settings = [
            ("KUBECONFIG", &*kubeconfig.to_string_lossy()),
            ("POD_NAME", &pod.name),
            ("POD_UID", &pod.uid),
            ("POD_NAMESPACE", &self.namespace.name),
            (PODINFO_VARIABLE, "/nonexistent"),
            (MODE_VARIABLE, self.namespace.mode.as_str()),
            ("CONTAINER_NAME", CONTAINER),
        ];
        let environment = settings.into_iter().collect();
        let (dead, said, permitted) = Default::default();
        let owner = Owner { pod, network: Arc::new(network), environment, dead, said, permitted };
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).insert(n, owner.clone());
        Ok(owner)
    }

    /// What the kubelet says of an owner's pod. Whose process is dead is not ready, whoever says so: its records would show.
    async fn report(&self, n: usize, ready: bool) -> Result<()> {
        let owner = self.the(n)?;
        let _said = owner.said.lock().await;
        self.namespace.report(&owner.pod, ready && !owner.dead.load(Ordering::Acquire)).await
    }

    async fn permit(&self, owner: &Owner, may: bool) -> Result<()> {
        let _permitted = owner.permitted.lock().await;
        self.namespace.permit(&owner.pod.name, may).await
    }

    /// Does to the API server what nobody else does anything to it beside.
    async fn harm(&self, plane: &ControlPlane, fault: Fault) -> Result<()> {
        let harmed = match fault {
            Fault::Outage => plane.api().kill().await,
            // One that runs goes on: to start it anew would open every view anew, and mend what it has missed.
            Fault::Restore if plane.api().pid().is_some() => plane.wait().await,
            Fault::Restore => plane.restart_api().await,
            // To compact is to start anew, which would end the outage.
            _ if plane.api().pid().is_none() => {
                return Err(Error::new(ErrorKind::Unavailable, "the API server does not run"));
            }
            _ => plane.forget().await,
        };
        harmed.map_err(|error| failed("the API server", error))
    }

    /// Writes a record into the resource that holds it, or else into one that is nobody's here.
    async fn write(&self, key: &Key, value: &Bytes) -> Result<()> {
        let holder = match self.resources.holder(key).await? {
            Some(holder) => holder,
            None => {
                let make = || async {
                    let pod = self.namespace.pod(STRANGER, None).await?;
                    self.namespace.report(&pod, true).await?;
                    self.resources.make(&self.namespace.resource(STRANGER), &pod).await
                };
                self.stranger.get_or_try_init(make).await?;
                self.namespace.resource(STRANGER)
            }
        };
        self.resources.write(&holder, key, value).await
    }

    /// A ready pod, and a resource of its name that belongs to another one.
    async fn impostor(&self, key: &Key, value: &Bytes) -> Result<()> {
        let (pod, other) = (self.namespace.pod("impostor", None).await?, self.namespace.pod("other", None).await?);
        self.namespace.report(&pod, true).await?;
        let resource = self.namespace.resource(&pod.name);
        self.resources.make(&resource, &other).await?;
        self.resources.write(&resource, key, value).await
    }
}

fn cluster(servers: &Servers) -> Result<&Cluster> {
    servers.cluster().ok_or_else(|| Error::new(ErrorKind::Closed, "this world has ended"))
}

#[async_trait]
impl World for Place {
    async fn owner(&self, n: usize) -> Result<Arc<dyn Backend>> {
        let owner = match self.the(n) {
            Ok(prepared) => prepared,
            Err(_) => self.prepare(n).await?,
        };
        let context = BackendContext::new(owner.environment, TaskScope::current());
        Ok(Arc::new(KubernetesBackend::connect(&context).await?))
    }

    async fn inject(&self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Cut(n) => self.way(n, |way| way.cut = true),
            // To the API server a stopped process is a silent one.
            Fault::HalfOpen(n) | Fault::Pause(n) => self.way(n, |way| way.stalled = true),
            Fault::Heal(n) | Fault::Resume(n) => self.way(n, |way| (way.cut, way.stalled) = (false, false)),
            Fault::DropAcks(n, on) => self.way(n, |way| way.deaf = on),
            Fault::DelayWrites(n, by) => self.way(n, |way| way.late = by),
            // The kernel closes its connections, and the kubelet sees it.
            Fault::Crash(n) => {
                self.way(n, |way| way.dead = true)?;
                self.the(n)?.dead.store(true, Ordering::Release);
                self.report(n, false).await
            }
            Fault::Outage | Fault::Restore | Fault::Compact => {
                let _serving = self.serving.lock().await;
                self.harm(self.plane()?, fault).await
            }
            Fault::Delete(key) => match self.resources.holder(&key).await? {
                Some(holder) => self.resources.delete(&holder, &key).await,
                None => Ok(()),
            },
            Fault::Write(key, value) => self.write(&key, &value).await,
            Fault::Deny(n) => {
                let owner = self.the(n)?;
                self.permit(&owner, false).await?;
                // The API server asks when a watch is opened and never again: what is open ends now, not in minutes.
                owner.network.reset();
                Ok(())
            }
            Fault::Allow(n) => self.permit(&self.the(n)?, true).await,
            Fault::Ready(n, ready) => self.report(n, ready).await,
            Fault::Terminate(n) => self.namespace.terminate(&self.the(n)?.pod).await,
            Fault::Impostor(key, value) => self.impostor(&key, &value).await,
            other => Err(Error::new(ErrorKind::Unsupported, format!("nothing like {}", other.hook()))),
        }
    }

    async fn close(&self) {
        self.namespace.delete().await;
    }
}
