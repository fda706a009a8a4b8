//! Worlds on real control planes: a namespace each.

mod namespace;
mod place;
mod resources;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use discovery_conformance::{Factory, Hook, World};
use discovery_core::Result;
use discovery_deploy::{ADMISSION, CRD, Mode};
use discovery_testbed::{Cluster, ControlPlane, ControlPlaneOptions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use self::place::Place;
use crate::client::failed;

/// Faults that harm everybody on a control plane.
const HARMFUL: [Hook; 2] = [Hook::Outage, Hook::Compact];

/// How many control planes there are beside the shared one: they take half a GiB each.
const PLANES: usize = 3;

/// The node that all pods are on.
const NODE: &str = "conformance";

/// Who registers: each pod, or one container of each. Each world has a namespace. A world that harms the control plane has one to itself, which serves another such world
/// afterwards.
pub(crate) struct OnKubernetes {
    mode: Mode,
    idle: Arc<Mutex<Vec<ControlPlane>>>,
    permits: Arc<Semaphore>,
}

impl OnKubernetes {
    /// One for each mode, on the same control planes.
    pub(crate) fn in_modes<const N: usize>(modes: [Mode; N]) -> [Self; N] {
        let (idle, permits) = (Arc::default(), Arc::new(Semaphore::new(PLANES)));
        modes.map(|mode| Self { mode, idle: Arc::clone(&idle), permits: Arc::clone(&permits) })
    }

    /// See [`Factory::world_for`].
    pub(crate) async fn place(&self, faults: &[Hook]) -> Result<Place> {
        if !faults.iter().any(|fault| HARMFUL.contains(fault)) {
            let shared = Cluster::shared(options).await.map_err(|error| failed("the shared control plane", error))?;
            return Place::new(Servers::Shared(shared), self.mode, 0).await;
        }
        let permit = Arc::clone(&self.permits).acquire_owned().await.map_err(|error| failed("a permit", error))?;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let plane = match idle {
            Some(plane) => plane,
            None => ControlPlane::start_with(options()).await.map_err(|error| failed("a control plane", error))?,
        };
        let lent = Lent { plane: Some(plane), idle: Arc::clone(&self.idle), _permit: permit };
        // Who starts while the API server is down has a pod already.
        Place::new(Servers::Own(Box::new(lent)), self.mode, 4).await
    }
}

/// A control plane that one world has to itself.
struct Lent {
    /// `None` once it is given back.
    plane: Option<ControlPlane>,
    idle: Arc<Mutex<Vec<ControlPlane>>>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(plane) = self.plane.take().filter(|plane| plane.api().pid().is_some()) {
            self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(plane);
        }
    }
}

/// Where a world is.
enum Servers {
    Shared(&'static Cluster),
    Own(Box<Lent>),
}

impl Servers {
    fn cluster(&self) -> Option<&Cluster> {
        match self {
            Self::Shared(cluster) => Some(cluster),
            Self::Own(_) => self.plane().map(|plane| &**plane),
        }
    }

    fn plane(&self) -> Option<&ControlPlane> {
        match self {
            Self::Shared(_) => None,
            Self::Own(lent) => lent.plane.as_ref(),
        }
    }
}

fn options() -> ControlPlaneOptions {
    let node = format!("apiVersion: v1\nkind: Node\nmetadata: {{name: {NODE}}}\n");
    ControlPlaneOptions { manifests: [CRD, ADMISSION, &node].join("\n---\n"), ..ControlPlaneOptions::default() }
}

#[async_trait]
impl Factory for OnKubernetes {
    fn name(&self) -> &str {
        match self.mode {
            Mode::Pod => discovery_k8s::NAME,
            Mode::Container => "kubernetes-containers",
        }
    }

    fn impossible(&self, fault: Hook) -> Option<&'static str> {
        match fault {
            Hook::Revoke => Some("the pod is the session, and lives"),
            Hook::Reorder => Some("a watch tells the changes of an object in their order, over TCP"),
            Hook::Duplicate => Some("a watch tells each change of an object once, over TCP"),
            _ => None,
        }
    }

    // Nobody restores etcd under a cluster whose pods run, and only the machine's administrator moves its clock.
    fn missing(&self) -> Option<Vec<Hook>> {
        Some(vec![Hook::LoseData, Hook::RollBack, Hook::WallClock])
    }

    fn hooks(&self) -> Vec<Hook> {
        vec![
            Hook::Cut,
            Hook::HalfOpen,
            Hook::Outage,
            Hook::Crash,
            Hook::Pause,
            Hook::Compact,
            Hook::Delete,
            Hook::Write,
            Hook::DropAcks,
            Hook::DelayWrites,
            Hook::Deny,
            Hook::Ready,
            Hook::Terminate,
            Hook::Impostor,
        ]
    }

    async fn world(&self) -> Result<Box<dyn World>> {
        self.world_for(&[]).await
    }

    async fn world_for(&self, faults: &[Hook]) -> Result<Box<dyn World>> {
        Ok(Box::new(self.place(faults).await?))
    }
}
