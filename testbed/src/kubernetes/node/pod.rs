//! What happens to one pod from its binding to its end?

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Kubelet;
use super::address::Address;
use super::container::Container;
use super::environment::environment;
use super::process::{Files, Recipe};
use super::status::{Now, States};
use super::volumes;

/// Between two tries of what the API server did not take.
const RETRY: Duration = Duration::from_millis(500);

/// What is to become of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wanted {
    Run,
    /// It is being deleted: its processes have this long to end.
    Leave(Duration),
    /// There is no such pod any more.
    Gone,
}

/// A pod on this node.
pub(super) struct Played {
    pub(super) kubelet: Arc<Kubelet>,
    pub(super) pod: Pod,
    pub(super) wanted: watch::Receiver<Wanted>,
}

impl Played {
    /// Runs the pod's containers, tells of them, ends them when it is deleted, and confirms that they have ended. Dropped
    /// before that, the processes are killed, and the pod's address and files go.
    pub(super) async fn run(self) {
        let containers = self.pod.spec.as_ref().map_or(0, |spec| spec.containers.len());
        let states = watch::Sender::new(States::new(containers));
        let address = watch::Sender::new(None);
        if matches!(*self.wanted.borrow(), Wanted::Run) {
            tokio::select! {
                () = self.play(&states, &address) => {}
                never = self.report(states.subscribe(), address.subscribe()) => match never {},
            }
        }
        // Not where nobody plays it any more: then the pod is none the worse.
        let mut wanted = self.wanted.clone();
        if matches!(*wanted.borrow_and_update(), Wanted::Leave(_)) {
            tokio::select! {
                () = self.confirm() => {}
                _ = wanted.wait_for(|wanted| *wanted == Wanted::Gone) => {}
            }
        }
    }

    fn name(&self) -> &str {
        self.pod.metadata.name.as_deref().unwrap_or_default()
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.kubelet.client.clone(), self.pod.metadata.namespace.as_deref().unwrap_or_default())
    }

    /// Returns once the pod is to go, and its processes have ended.
    async fn play(&self, states: &watch::Sender<States>, address: &watch::Sender<Option<Ipv4Addr>>) {
        let mut wanted = self.wanted.clone();
        // Both stay for as long as the processes.
        let prepared = async {
            let home = TempDir::with_prefix_in("pod-", self.kubelet.home.path()).map_err(|error| error.to_string())?;
            let own = spawn_blocking(Address::take).await.map_err(|error| error.to_string())?;
            let own = own.map_err(|error| error.to_string())?;
            address.send_replace(Some(own.ip()));
            let containers = self.containers(&home, own.ip(), states).await?;
            Ok::<_, String>((containers, own, home))
        };
        let prepared = tokio::select! {
            prepared = prepared => prepared,
            _ = wanted.wait_for(|wanted| *wanted != Wanted::Run) => return,
        };
        let _kept = match prepared {
            Ok((containers, own, home)) => {
                join_all(containers.iter().map(|container| container.run(wanted.clone()))).await;
                Some((own, home))
            }
            Err(message) => {
                let reason = "CreateContainerConfigError";
                states.send_modify(|states| {
                    states.all(|state| state.now = Now::Waiting { reason, message: message.clone() });
                });
                None
            }
        };
        // One that has ended by itself is there until it is deleted. An error: nobody plays it any more.
        let _ = wanted.wait_for(|wanted| *wanted != Wanted::Run).await;
    }

    async fn containers(
        &self,
        home: &TempDir,
        address: Ipv4Addr,
        states: &watch::Sender<States>,
    ) -> Result<Vec<Container>, String> {
        let spec = self.pod.spec.as_ref().ok_or("it has no spec")?;
        if spec.init_containers.as_ref().is_some_and(|containers| !containers.is_empty()) {
            return Err("initContainers are not played here".to_owned());
        }
        let again: fn(i32) -> bool = match spec.restart_policy.as_deref() {
            Some("Never") => |_| false,
            Some("OnFailure") => |code| code != 0,
            _ => |_| true,
        };
        let grace = spec.termination_grace_period_seconds.and_then(|grace| grace.try_into().ok()).unwrap_or(30);
        let written = volumes::write(&self.kubelet.client, &self.pod, address, home.path()).await?;
        let mut containers = Vec::new();
        for (number, spec) in spec.containers.iter().enumerate() {
            let files = Files {
                program: self.program(spec.image.as_deref().unwrap_or_default())?,
                volumes: &written,
                log: self.log(&spec.name),
                home: home.path(),
            };
            let variables: BTreeMap<_, _> = environment(&self.pod, spec, address, &self.kubelet.api)?;
            let container = Container {
                number,
                spec: spec.clone(),
                recipe: Recipe::new(&self.pod, spec, files, variables)?,
                address,
                again,
                grace: Duration::from_secs(grace),
                states: states.clone(),
            };
            container.check()?;
            containers.push(container);
        }
        Ok(containers)
    }

    fn program(&self, image: &str) -> Result<&std::path::Path, String> {
        let program = self.kubelet.images.get(image).ok_or_else(|| {
            let known: Vec<&str> = self.kubelet.images.keys().map(String::as_str).collect();
            format!("this node has no program for the image {image}: it knows {}", known.join(", "))
        })?;
        if program.is_file() { Ok(program) } else { Err(format!("{} is not there: build it", program.display())) }
    }

    fn log(&self, container: &str) -> PathBuf {
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or_default();
        self.kubelet.home.path().join(format!("{namespace}_{}_{container}.log", self.name()))
    }

    /// Tells the API server how the pod is, whenever that changes.
    async fn report(
        &self,
        mut states: watch::Receiver<States>,
        address: watch::Receiver<Option<Ipv4Addr>>,
    ) -> Infallible {
        let pods = self.pods();
        loop {
            let status = states.borrow_and_update().status(&self.pod, *address.borrow());
            // For this pod alone, and not for another one that has its name since.
            let patch = json!({ "metadata": { "uid": self.pod.metadata.uid }, "status": status });
            match pods.patch_status(self.name(), &PatchParams::default(), &Patch::Merge(patch)).await {
                Err(error) if !is_final(&error) => sleep(RETRY).await,
                _ => {
                    if states.changed().await.is_err() {
                        return pending().await;
                    }
                }
            }
        }
    }

    /// Tells the API server that the pod's processes have ended, so that it removes the pod.
    async fn confirm(&self) {
        let preconditions = Preconditions { uid: self.pod.metadata.uid.clone(), resource_version: None };
        let now = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        let pods = self.pods();
        while let Err(error) = pods.delete(self.name(), &now).await {
            if is_final(&error) {
                return;
            }
            sleep(RETRY).await;
        }
    }
}

/// Whether the object is not there any more, or is another one, so that it is of no use to try again.
pub(super) fn is_final(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 403 | 404 | 409 | 422))
}
