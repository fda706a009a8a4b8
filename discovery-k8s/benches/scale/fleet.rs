//! The pods: made, reported ready and ended as a rollout does, with the resources that their processes would write.

use std::time::Duration;

use discovery_core::{Discovery, Environment, InstanceId, Key, Query, Record};
use discovery_deploy::CRD;
use discovery_dynamo::Endpoint;
use discovery_k8s::{DISCOVERY_LABEL, GROUP, KIND, NAMESPACES_VARIABLE, PLURAL, VERSION};
use discovery_testbed::{ControlPlane, ControlPlaneOptions};
use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::Outcome;

const NODE: &str = "bench";
/// How many pods are made at a time.
const AT_ONCE: usize = 8;
/// How long controllers may take.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Fleet {
    plane: ControlPlane,
    client: Client,
    namespace: String,
    pods: usize,
    /// How often all of them were replaced.
    pub(crate) generation: usize,
}

/// The name of a pod.
pub(crate) fn name(generation: usize, number: usize) -> String {
    format!("worker-{generation}-{number}")
}

/// The generation of the pod of this name.
pub(crate) fn generation_of(name: &str) -> Option<usize> {
    name.strip_prefix("worker-")?.split('-').next()?.parse().ok()
}

pub(crate) fn all() -> Query {
    Endpoint::in_namespace("bench")
}

/// Where each pod's endpoint is said to be: its pod's name.
pub(crate) fn pod_of(endpoint: &Endpoint) -> &str {
    let discovery_dynamo::Transport::Tcp(address) = endpoint.transport() else { return "" };
    address.rsplit('/').next().unwrap_or_default()
}

pub(crate) async fn connect(kubeconfig: &str) -> Outcome<Client> {
    let read = Kubeconfig::read_from(kubeconfig)?;
    Ok(Client::try_from(kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?)?)
}

pub(crate) async fn discovery(kubeconfig: &str, namespace: &str) -> Outcome<Discovery> {
    let settings = [("KUBECONFIG", kubeconfig), (NAMESPACES_VARIABLE, namespace)];
    let environment: Environment = settings.into_iter().collect();
    Ok(Discovery::builder().environment(environment).backend(discovery_k8s::NAME).build().await?)
}

pub(crate) fn resources(client: &Client, namespace: &str) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, KIND), PLURAL);
    Api::namespaced_with(client.clone(), namespace, &kind)
}

impl Fleet {
    /// A control plane with so many ready pods in a namespace.
    pub(crate) async fn start(pods: usize) -> Outcome<Self> {
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE } });
        let options =
            ControlPlaneOptions { manifests: format!("{CRD}\n---\n{node}"), ..ControlPlaneOptions::default() };
        let plane = ControlPlane::start_with(options).await?;
        let namespace = plane.namespace("bench").await?;
        let client = connect(&plane.kubeconfig_path().to_string_lossy()).await?;
        let service: Service = serde_json::from_value(json!({
            "metadata": { "name": "workers", "labels": { DISCOVERY_LABEL: "true" } },
            "spec": { "clusterIP": "None", "selector": { "app": "worker" } },
        }))?;
        Api::namespaced(client.clone(), &namespace).create(&PostParams::default(), &service).await?;
        let fleet = Self { plane, client, namespace, pods, generation: 0 };
        let made = stream::iter(0..pods).map(|number| fleet.make(0, number)).buffer_unordered(AT_ONCE);
        made.try_collect::<()>().await?;
        fleet.settle().await?;
        Ok(fleet)
    }

    /// What a side has to be told to find it: the configuration of a client, and the namespace.
    pub(crate) fn place(&self) -> [&str; 2] {
        [self.plane.kubeconfig_path().to_str().unwrap_or_default(), &self.namespace]
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Makes a pod with its resource, ready.
    async fn make(&self, generation: usize, number: usize) -> Outcome {
        let name = name(generation, number);
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": name, "labels": { "app": "worker" } },
            "spec": {
                "nodeName": NODE,
                "automountServiceAccountToken": false,
                "containers": [{ "name": "main", "image": "none" }],
            },
        }))?;
        let made = self.pods().create(&PostParams::default(), &pod).await?;
        let key = Key::new(endpoint(&name).path()?, InstanceId((generation * self.pods + number) as u64 + 1));
        let (collection, entry) = discovery_dynamo::layout::kubernetes_entry(&key)?;
        let value: serde_json::Value = serde_json::from_slice(&endpoint(&name).encode(&key)?)?;
        let owner = json!({ "apiVersion": "v1", "kind": "Pod", "name": name, "uid": made.metadata.uid });
        let resource: DynamicObject = serde_json::from_value(json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": KIND,
            "metadata": { "name": name, "ownerReferences": [owner] },
            "spec": { "data": { collection: { entry: value } } },
        }))?;
        resources(&self.client, &self.namespace).create(&PostParams::default(), &resource).await?;
        self.report(generation, number, true).await
    }

    /// Says of a pod what its kubelet would.
    pub(crate) async fn report(&self, generation: usize, number: usize, ready: bool) -> Outcome {
        let [_, a, b, c] = ((generation * self.pods + number) as u32 + 1).to_be_bytes();
        let address = format!("10.{a}.{b}.{c}");
        let status = json!({ "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{ "ip": address }],
            "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
        } });
        let name = name(generation, number);
        self.pods().patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await?;
        Ok(())
    }

    /// Replaces every pod by one of another name, so many at a time.
    pub(crate) async fn roll(&mut self) -> Outcome {
        let (old, new) = (self.generation, self.generation + 1);
        let fleet = &*self;
        let rolled = stream::iter(0..self.pods).map(|number| async move {
            fleet.make(new, number).await?;
            fleet.pods().delete(&name(old, number), &DeleteParams::default().grace_period(0)).await?;
            Outcome::Ok(())
        });
        rolled.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        self.generation = new;
        self.settle().await
    }

    /// Waits until the slices hold all pods of this generation, ready.
    async fn settle(&self) -> Outcome {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), &self.namespace);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let slices = slices.list(&ListParams::default()).await?;
            let ready = slices.items.iter().flat_map(crate::raw::ready);
            let ready = ready.filter(|name| generation_of(name) == Some(self.generation)).count();
            if ready == self.pods {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!("{ready} of {} pods are in slices after {PATIENCE:?}", self.pods).into());
            }
            sleep(Duration::from_millis(200)).await;
        }
    }
}

fn endpoint(pod: &str) -> Endpoint {
    Endpoint::new("bench", "backend", "generate").tcp(format!("10.0.0.1:9000/{pod}"))
}
