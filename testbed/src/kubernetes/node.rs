//! What plays the scheduler and the kubelet: runs pods as processes of this machine.

mod address;
mod container;
mod environment;
mod pod;
mod probe;
mod process;
mod status;
mod volumes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::Status;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use self::address::Address;
use self::pod::{Played, Wanted, is_final};
use super::Cluster;
use crate::error::{Error, Result};
use crate::server::home;

/// The label of a node whose pods are processes of the machine that it is on.
const LOCAL: &str = "discovery-testbed/local";
/// Between two tries to bind a pod.
const RETRY: Duration = Duration::from_millis(500);

/// How a node is set up.
#[derive(Clone, Debug, Default)]
pub struct NodeOptions {
    /// The name of the Node object, which is made. One process plays it at a time.
    pub name: String,
    /// Where pods that have no node yet get this one: in one namespace, or in all where this is `None`. Pods that name the
    /// node are run wherever they are.
    pub namespace: Option<String>,
    /// The program that each image consists of. It is the first on the `PATH` of the image's containers, after which the
    /// machine's programs come.
    pub images: BTreeMap<String, PathBuf>,
    /// Where the directory of its own is made that logs and volumes go to; the system's place for temporary files by
    /// default.
    pub files: Option<PathBuf>,
}

/// A node whose pods are processes of this machine, as a scheduler and a kubelet would have them run. Needs root.
///
/// A pod has an address of its own, which only this machine reaches. Its processes have the environment that the manifest
/// asks for, and see the pod's volumes: a token that is bound to the pod, the API server's certificate, the downward API.
/// They are probed over HTTP and TCP, told of in the pod's status, started again with back-off, and ended in order when the
/// pod is deleted: preStop, SIGTERM, and SIGKILL after its grace. What is not played, as init containers, secrets and
/// volumes of other sorts, is told in the pod's status, and the pod does not start. Limits and images' own files there are
/// not: the machine's are seen.
///
/// A container's process id is in its status: `containerID: process://PID`.
///
/// For control planes of this crate: a real cluster's would miss the node's lease. Everything ends when this is dropped, and
/// also when this process dies in whatever way; the addresses of a killed process go when the next node starts.
#[derive(Debug)]
pub struct Node {
    name: String,
    logs: PathBuf,
    end: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// What the pods of a node have in common.
struct Kubelet {
    name: String,
    namespace: Option<String>,
    images: BTreeMap<String, PathBuf>,
    /// Where pods find the API server.
    api: (String, u16),
    client: Client,
    home: TempDir,
}

impl Node {
    /// A node on this cluster, which from now on runs what is bound to it.
    ///
    /// # Errors
    /// This process is not root, there is no `ip`, or the API refuses the node.
    pub async fn start(cluster: &Cluster, options: NodeOptions) -> Result<Self> {
        let NodeOptions { name, namespace, images, files } = options;
        if !rustix::process::geteuid().is_root() {
            return Err(Error::new(format!(
                "the node {name} can run no pods: only root gives them addresses and files of their own: run this as root"
            )));
        }
        let cleared = tokio::task::spawn_blocking(Address::clear).await;
        cleared.map_err(|error| Error::because("addresses", error))??;
        let labels = json!({ LOCAL: "true", "kubernetes.io/hostname": name });
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": labels } });
        cluster.apply(&node.to_string()).await?;
        let ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "True", "reason": "Played" }] } });
        let patch = ["patch", "node", &name, "--subresource=status", "--type=merge", "--patch", &ready.to_string()];
        cluster.kubectl(patch).await?;
        let address = cluster.kubeconfig().address().await?;
        let kubelet = Kubelet {
            api: (address.ip().to_string(), address.port()),
            client: client(cluster).await?,
            home: home(files.as_deref())?,
            name: name.clone(),
            namespace,
            images,
        };
        let logs = kubelet.home.path().to_owned();
        let end = watch::Sender::new(false);
        let task = tokio::spawn(Arc::new(kubelet).run(end.subscribe()));
        Ok(Self { name, logs, end, task })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The directory of the logs, `NAMESPACE_POD_CONTAINER.log`. A pod's outlives the pod, and goes with the node.
    pub fn logs(&self) -> &Path {
        &self.logs
    }

    /// Kills all its processes, and returns when they have ended and their addresses are gone. The API server is told
    /// nothing, as by a node that is cut off. Dropped instead, the node does the same in the background.
    ///
    /// # Errors
    /// Its task has panicked.
    pub async fn stop(mut self) -> Result<()> {
        self.end.send_replace(true);
        (&mut self.task).await.map_err(|error| Error::because(format!("the node {}", self.name), error))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn client(cluster: &Cluster) -> Result<Client> {
    let failed = |error: &dyn std::fmt::Display| Error::because("a client of the API server", error);
    let kubeconfig = Kubeconfig::from_yaml(&cluster.kubeconfig().text()).map_err(|error| failed(&error))?;
    let settings = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    Client::try_from(settings.map_err(|error| failed(&error))?).map_err(|error| failed(&error))
}

impl Kubelet {
    /// Follows all pods of the cluster until `end` says so, and takes everything that runs along.
    async fn run(self: Arc<Self>, mut end: watch::Receiver<bool>) {
        let mut pods =
            Pods { kubelet: self.clone(), wanted: HashMap::new(), bound: BTreeSet::new(), tasks: JoinSet::new() };
        let all: Api<Pod> = Api::all(self.client.clone());
        let mut events = pin!(watcher(all, watcher::Config::default()).default_backoff());
        let mut listed = BTreeSet::new();
        loop {
            tokio::select! {
                _ = end.wait_for(|end| *end) => break,
                Some(event) = events.next() => match event {
                    Ok(Event::Init) => listed.clear(),
                    Ok(Event::InitApply(pod)) => {
                        listed.extend(pod.metadata.uid.clone());
                        pods.apply(pod);
                    }
                    Ok(Event::InitDone) => pods.keep(&listed),
                    Ok(Event::Apply(pod)) => pods.apply(pod),
                    Ok(Event::Delete(pod)) => pods.remove(&pod),
                    // It is asked again.
                    Err(_) => {}
                },
                Some(_) = pods.tasks.join_next() => {}
            }
        }
        pods.tasks.shutdown().await;
    }

    /// Binds a pod to this node, unless another has it.
    async fn bind(self: Arc<Self>, pod: Pod) {
        let name = pod.metadata.name.unwrap_or_default();
        let pods: Api<Pod> =
            Api::namespaced(self.client.clone(), pod.metadata.namespace.as_deref().unwrap_or_default());
        let target = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            name: Some(self.name.clone()),
            ..ObjectReference::default()
        };
        // The uid is compared with the pod's.
        let metadata = ObjectMeta { name: Some(name.clone()), uid: pod.metadata.uid, ..ObjectMeta::default() };
        let binding = Binding { metadata, target };
        loop {
            match pods.create_subresource::<_, Status>("binding", &name, &PostParams::default(), &binding).await {
                Err(error) if !is_final(&error) => sleep(RETRY).await,
                _ => return,
            }
        }
    }
}

/// The pods that this node has to do with.
struct Pods {
    kubelet: Arc<Kubelet>,
    /// What is to become of those that it runs, by uid.
    wanted: HashMap<String, watch::Sender<Wanted>>,
    bound: BTreeSet<String>,
    tasks: JoinSet<()>,
}

impl Pods {
    fn apply(&mut self, pod: Pod) {
        let (Some(uid), Some(spec)) = (pod.metadata.uid.clone(), &pod.spec) else { return };
        let leaves = pod.metadata.deletion_timestamp.is_some();
        match &spec.node_name {
            None => {
                let here = self.kubelet.namespace.is_none() || self.kubelet.namespace == pod.metadata.namespace;
                if here && !leaves && self.bound.insert(uid) {
                    self.tasks.spawn(self.kubelet.clone().bind(pod));
                }
            }
            Some(node) if *node == self.kubelet.name => {
                let grace = pod.metadata.deletion_grace_period_seconds.and_then(|grace| grace.try_into().ok());
                let next = if leaves { Wanted::Leave(Duration::from_secs(grace.unwrap_or(0))) } else { Wanted::Run };
                if let Some(wanted) = self.wanted.get(&uid) {
                    wanted.send_if_modified(|wanted| {
                        let changes = *wanted == Wanted::Run && next != Wanted::Run;
                        if changes {
                            *wanted = next;
                        }
                        changes
                    });
                    return;
                }
                let wanted = watch::Sender::new(next);
                let played = Played { kubelet: self.kubelet.clone(), pod, wanted: wanted.subscribe() };
                self.wanted.insert(uid, wanted);
                self.tasks.spawn(played.run());
            }
            Some(_) => {}
        }
    }

    fn remove(&mut self, pod: &Pod) {
        let Some(uid) = &pod.metadata.uid else { return };
        self.bound.remove(uid);
        if let Some(wanted) = self.wanted.remove(uid) {
            wanted.send_replace(Wanted::Gone);
        }
    }

    /// What is not in a complete list is gone.
    fn keep(&mut self, listed: &BTreeSet<String>) {
        self.bound.retain(|uid| listed.contains(uid));
        self.wanted.retain(|uid, wanted| {
            let there = listed.contains(uid);
            if !there {
                wanted.send_replace(Wanted::Gone);
            }
            there
        });
    }
}
