//! A namespace of the demo's own, and the example of `deploy/` in it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use discovery_core::Environment;
use discovery_deploy::{ADMISSION, CRD, Mode, rbac};
use discovery_k8s::{Identity, MODE_VARIABLE, NAMESPACES_VARIABLE};
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::super::store::Variables;
use super::{PATIENCE, WORKERS};
use crate::failure::{Failure, Outcome};

const EXAMPLE: &str = include_str!("../../../../deploy/example/worker.yaml");
/// What the example's objects are called.
const DEPLOYMENT: &str = "example-worker";
/// Where its pods listen for requests.
const PORT: u16 = 9000;
const MANAGER: &str = "discovery-demo";
/// How long the namespace may take to go.
const FAREWELL: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(100);
const ADVICE: &str =
    "`eval \"$(cargo xtask testbed up kubernetes)\"`, as root, starts a cluster that runs the demo's pods here";

pub(in super::super) struct Space {
    client: Client,
    server: String,
    namespace: String,
}

/// A pod of the example's, as the API shows it.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub(super) name: String,
    pub(super) address: String,
    pub(super) instance: String,
    pub(super) ready: bool,
    /// Its process on this machine, where the cluster is one whose containers are that.
    pub(super) process: Option<i32>,
    /// What keeps it from running.
    waits: String,
}

fn failed(what: &str, why: impl fmt::Display) -> Failure {
    Failure::failed(format!("demo: {what}: {why}: {ADVICE}"))
}

fn resource(group: &str, version: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

impl Space {
    /// A name for a namespace on the cluster of `KUBECONFIG`, which answers and can run pods. Makes nothing there.
    pub(in super::super) async fn find() -> Outcome<Self> {
        let none = |why: &dyn fmt::Display| failed("no Kubernetes cluster can be used", why);
        // It looks where every process of the backend does, and says better what it misses.
        discovery_k8s::Cluster::connect(&Environment::process()).await.map_err(|error| none(&error))?;
        let settings = Config::infer().await.map_err(|error| none(&error))?;
        let server = settings.cluster_url.to_string().trim_end_matches('/').to_owned();
        let client = Client::try_from(settings).map_err(|error| none(&error))?;
        client.apiserver_version().await.map_err(|error| none(&format!("{server}: {error}")))?;
        let space = Self { client, server, namespace: format!("discovery-demo-{:08x}", fastrand::u32(..)) };
        match space.all("", "v1", "Node").list(&ListParams::default()).await {
            Ok(nodes) if nodes.iter().any(|node| is_true(&node.data, "Ready")) => Ok(space),
            Ok(_) => Err(failed("no pods run in this cluster", "it has no node that is ready")),
            // Who may make a namespace need not be allowed to see nodes.
            Err(kube::Error::Api(status)) if status.code == 403 => Ok(space),
            Err(error) => Err(failed("the cluster's nodes cannot be seen", error)),
        }
    }

    fn all(&self, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
        Api::all_with(self.client.clone(), &resource(group, version, kind))
    }

    fn own(&self, group: &str, version: &str, kind: &str) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource(group, version, kind))
    }

    pub(super) fn slices(&self) -> Api<DynamicObject> {
        self.own("discovery.k8s.io", "v1", "EndpointSlice")
    }

    fn deployment(&self) -> Api<DynamicObject> {
        self.own("apps", "v1", "Deployment")
    }

    /// For the router, which is no pod.
    pub(in super::super) fn variables(&self) -> Variables {
        vec![(NAMESPACES_VARIABLE, self.namespace.as_str().into()), (MODE_VARIABLE, Mode::Pod.as_str().into())]
    }

    /// Makes the namespace with all that `deploy/` has for one, and of what the whole cluster shares what is not there.
    /// Answers the names of that.
    pub(super) async fn make(&self) -> Outcome<Vec<String>> {
        let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": self.namespace } });
        self.apply(&namespace).await?;
        let mut added = Vec::new();
        for object in [CRD, ADMISSION].into_iter().map(documents).collect::<Outcome<Vec<_>>>()?.concat() {
            let (api, name) = self.of(&object);
            let there = api.get_metadata_opt(&name).await.map_err(|error| failed("the cluster", error))?;
            if there.is_none() {
                self.apply(&object).await?;
                added.push(format!("{} {name}", object["kind"].as_str().unwrap_or_default()));
            }
        }
        for object in documents(&rbac(Some(&self.namespace), None, Mode::Pod))? {
            self.apply(&object).await?;
        }
        Ok(added)
    }

    /// The example, unchanged but for the namespace.
    pub(super) async fn deploy(&self) -> Outcome {
        for mut object in documents(EXAMPLE)? {
            object["metadata"]["namespace"] = json!(self.namespace);
            self.apply(&object).await?;
        }
        Ok(())
    }

    async fn apply(&self, object: &Value) -> Outcome {
        let (api, name) = self.of(object);
        let applied = api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object)).await;
        let what = format!("{} {name} cannot be applied", object["kind"].as_str().unwrap_or_default());
        applied.map(drop).map_err(|error| failed(&what, error))
    }

    /// Where an object belongs, and its name.
    fn of(&self, object: &Value) -> (Api<DynamicObject>, String) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
        let (group, version) = version.split_once('/').unwrap_or(("", &version));
        let resource = resource(group, version, &kind);
        let api = match object["metadata"]["namespace"].as_str() {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        };
        (api, text(&object["metadata"]["name"]))
    }

    /// The pods that are not leaving.
    async fn pods(&self) -> Outcome<Vec<Pod>> {
        let list = self.own("", "v1", "Pod").list(&ListParams::default()).await;
        let list = list.map_err(|error| failed("the pods cannot be read", error))?;
        let staying = list.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
        staying.map(|pod| self.read(&pod)).collect()
    }

    fn read(&self, pod: &DynamicObject) -> Outcome<Pod> {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let identity = Identity::new(discovery_k8s::Mode::Pod, &name, &uid, &self.namespace, None)?;
        let status = &pod.data["status"];
        let container = &status["containerStatuses"][0];
        let id = container["containerID"].as_str().and_then(|id| id.strip_prefix("process://"));
        let waits = &container["state"]["waiting"];
        let waits = waits["message"].as_str().or(waits["reason"].as_str()).or(status["phase"].as_str());
        Ok(Pod {
            address: status["podIP"]
                .as_str()
                .and_then(|ip| ip.parse::<IpAddr>().ok())
                .map_or_else(String::new, |ip| SocketAddr::from((ip, PORT)).to_string()),
            instance: identity.instance().to_string(),
            ready: is_true(&pod.data, "Ready"),
            process: id.and_then(|id| id.parse().ok()),
            waits: waits.unwrap_or("not seen by any node").to_owned(),
            name,
        })
    }

    /// The pods, once all that are wanted are ready, and none of `old` is among them. Cancel-safe.
    pub(super) async fn ready(&self, old: &[&str]) -> Outcome<Vec<Pod>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let pods = self.pods().await?;
            let new = pods.iter().all(|pod| pod.ready && !old.contains(&pod.name.as_str()));
            if new && pods.len() == WORKERS {
                return Ok(pods);
            }
            if Instant::now() >= deadline {
                let told = pods.iter().find(|pod| !pod.ready).map(|pod| format!("{}: {}", pod.name, pod.waits));
                let told = told.unwrap_or_else(|| format!("there are {}", pods.len()));
                return Err(failed(&format!("not {WORKERS} ready pods within {PATIENCE:?}"), told));
            }
            sleep(PAUSE).await;
        }
    }

    /// Deletes a pod, as `kubectl delete pod` does.
    pub(super) async fn delete(&self, pod: &str) -> Outcome {
        let deleted = self.own("", "v1", "Pod").delete(pod, &DeleteParams::default()).await;
        deleted.map(drop).map_err(|error| failed(&format!("pod {pod} cannot be deleted"), error))
    }

    /// Changes the template of the pods.
    pub(super) async fn roll(&self) -> Outcome {
        let annotations = json!({ "discovery-demo/version": "2" });
        self.change(&json!({ "spec": { "template": { "metadata": { "annotations": annotations } } } })).await
    }

    async fn change(&self, change: &Value) -> Outcome {
        let changed = self.deployment().patch(DEPLOYMENT, &PatchParams::default(), &Patch::Merge(change)).await;
        changed.map(drop).map_err(|error| failed("the Deployment cannot be changed", error))
    }

    /// Removes the namespace and all that is in it, and waits until it is gone.
    pub(in super::super) async fn remove(self) -> Outcome {
        let left = |why: &dyn fmt::Display| {
            let name = &self.namespace;
            Failure::failed(format!("demo: namespace {name} is left: {why}: `kubectl delete namespace {name}`"))
        };
        let deadline = Instant::now() + FAREWELL;
        // A namespace that goes looks for its pods at long intervals, so they leave before. There may be none.
        if self.change(&json!({ "spec": { "replicas": 0 } })).await.is_ok() {
            let pods = self.own("", "v1", "Pod");
            while Instant::now() < deadline
                && pods.list_metadata(&ListParams::default()).await.is_ok_and(|pods| pods.iter().next().is_some())
            {
                sleep(PAUSE).await;
            }
        }
        let namespaces = self.all("", "v1", "Namespace");
        match namespaces.delete(&self.namespace, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            Err(error) => return Err(left(&error)),
            Ok(_) => {}
        }
        loop {
            match namespaces.get_metadata_opt(&self.namespace).await {
                Ok(None) => return Ok(()),
                Ok(Some(_)) if Instant::now() < deadline => sleep(PAUSE).await,
                Ok(Some(_)) => return Err(left(&"it is being deleted still")),
                Err(error) => return Err(left(&error)),
            }
        }
    }
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "namespace {} of {}", self.namespace, self.server)
    }
}

fn documents(text: &str) -> Outcome<Vec<Value>> {
    serde_saphyr::from_multiple(text).map_err(|error| Failure::failed(format!("demo: a manifest: {error}")))
}

fn is_true(object: &Value, condition: &str) -> bool {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.filter(|one| one["type"] == condition).any(|one| one["status"] == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_as_the_demo_takes_it_to_be() {
        let objects = documents(EXAMPLE).unwrap();
        let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
        assert_eq!(deployment["metadata"]["name"], DEPLOYMENT);
        assert_eq!(deployment["spec"]["replicas"], WORKERS);
        let ports = &deployment["spec"]["template"]["spec"]["containers"][0]["ports"];
        assert_eq!(ports[0]["containerPort"], PORT);
    }
}
