//! A namespace of a control plane, where every side is a pod.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use discovery_core::{Key, Record};
use discovery_deploy::CRD;
use discovery_dynamo::{Endpoint, layout};
use discovery_testbed::{ControlPlane, ControlPlaneOptions};
use serde_json::{Value, json};

use crate::Outcome;
use crate::speed::total;

const NODE: &str = "node";
/// What makes a pod one that discovery looks at.
const LABEL: &str = "nvidia.com/dynamo-discovery-enabled";
/// Pods of one EndpointSlice, as the controller makes them.
const SLICE: usize = 100;
/// The four collections of a pod's resource, and what they are called on stores of keys.
const COLLECTIONS: [(&str, &str); 4] = [
    ("endpoints", "instances"),
    ("model_cards", "mdc"),
    ("event_channels", "event_channels"),
    ("event_sources", "event_sources"),
];

/// Pods that are processes of this machine, in a namespace.
pub(crate) struct Pods {
    plane: ControlPlane,
    namespace: Mutex<String>,
    number: AtomicUsize,
}

impl Pods {
    pub(super) async fn start() -> Outcome<Self> {
        let options = ControlPlaneOptions { manifests: CRD.to_owned(), ..ControlPlaneOptions::default() };
        let plane = ControlPlane::start_with(options).await?;
        plane.node(NODE).await?;
        let pods = Self { plane, namespace: Mutex::default(), number: AtomicUsize::new(1) };
        pods.clear().await?;
        Ok(pods)
    }

    /// The API server's.
    pub(super) async fn version(&self) -> Outcome<String> {
        let said: Value = serde_json::from_str(&self.plane.kubectl(["get", "--raw", "/version"]).await?)?;
        Ok(said["gitVersion"].as_str().ok_or("the API server does not tell its version")?.to_owned())
    }

    fn namespace(&self) -> String {
        self.namespace.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Another namespace: what is in the old one disturbs nobody in it.
    pub(super) async fn clear(&self) -> Outcome {
        let namespace = self.plane.namespace("peers").await?;
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "workers", "namespace": namespace, "labels": { LABEL: "true" } },
            "spec": { "selector": { LABEL: "true" }, "ports": [{ "port": 80 }], "clusterIP": "None" },
        });
        self.plane.apply(&service.to_string()).await?;
        *self.namespace.lock().unwrap_or_else(PoisonError::into_inner) = namespace;
        Ok(())
    }

    /// A pod that is ready; its name, and what its process has in its environment.
    pub(super) async fn pod(&self) -> Outcome<(String, Vec<(String, String)>)> {
        let namespace = self.namespace();
        let name = format!("worker-{}", self.number.fetch_add(1, Ordering::Relaxed));
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": namespace, "labels": { LABEL: "true" } },
            "spec": { "nodeName": NODE, "containers": [{ "name": "main", "image": "none" }] },
        });
        self.plane.apply(&pod.to_string()).await?;
        self.plane.report(&namespace, &name, true).await?;
        let uid = self.plane.pod_uid(&namespace, &name).await?;
        let environment = [
            ("DYN_DISCOVERY_BACKEND", "kubernetes".to_owned()),
            ("KUBECONFIG", self.plane.kubeconfig_path().to_string_lossy().into_owned()),
            ("POD_NAME", name.clone()),
            ("POD_NAMESPACE", namespace),
            ("POD_UID", uid),
        ];
        Ok((name, environment.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()))
    }

    /// The kubelet sees that the process of a pod has died.
    pub(crate) async fn bury(&self, pod: &str) -> Outcome {
        Ok(self.plane.report(&self.namespace(), pod, false).await?)
    }

    /// The records of all pods, each under the name that stores of keys have for it.
    pub(super) async fn stored(&self) -> Outcome<BTreeMap<String, String>> {
        let kind = "dynamoworkermetadatas.nvidia.com";
        let found = self.plane.kubectl_json(["get", kind, "--namespace", &self.namespace()]).await?;
        let mut records = BTreeMap::new();
        for resource in found["items"].as_array().into_iter().flatten() {
            for (collection, bucket) in COLLECTIONS {
                for (name, record) in resource["spec"]["data"][collection].as_object().into_iter().flatten() {
                    // The order of an object's fields is lost here, so that texts are equal where values are.
                    records.insert(format!("v1/{bucket}/{name}"), Value::to_string(record));
                }
            }
        }
        Ok(records)
    }

    /// So many ready pods without processes, each with an endpoint of `bench/pool-{n / 100}/generate`.
    pub(crate) async fn crowd(&self, count: usize) -> Outcome {
        let namespace = self.namespace();
        let name = |number: usize| format!("crowd-{number}");
        let list = |items: Vec<Value>| json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string();
        let pod = |number| {
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": { "name": name(number), "namespace": namespace },
                "spec": { "nodeName": NODE, "containers": [{ "name": "main", "image": "none" }] },
            })
        };
        self.plane.apply(&list((0..count).map(pod).collect())).await?;
        let found = self.plane.kubectl_json(["get", "pods", "--namespace", &namespace]).await?;
        let uids: BTreeMap<&str, &str> = found["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|pod| Some((pod["metadata"]["name"].as_str()?, pod["metadata"]["uid"].as_str()?)))
            .collect();
        let mut resources = Vec::new();
        let mut members: Vec<Vec<Value>> = Vec::new();
        for number in 0..count {
            let name = name(number);
            let uid = uids.get(&name[..]).copied().ok_or("a pod is missing")?;
            resources.push(resource(&namespace, &name, uid, number)?);
            if number % SLICE == 0 {
                members.push(Vec::new());
            }
            members.last_mut().into_iter().for_each(|slice| {
                slice.push(json!({
                    "addresses": [format!("10.200.{}.{}", number / 250, number % 250 + 1)],
                    "conditions": { "ready": true, "serving": true, "terminating": false },
                    "targetRef": { "kind": "Pod", "name": name, "namespace": namespace, "uid": uid },
                }));
            });
        }
        self.plane.apply(&list(resources)).await?;
        let slice = |(number, endpoints): (usize, Vec<Value>)| {
            json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {
                    "name": format!("crowd-{number}"), "namespace": namespace, "labels": { LABEL: "true" },
                },
                "addressType": "IPv4", "endpoints": endpoints,
            })
        };
        self.plane.apply(&list(members.into_iter().enumerate().map(slice).collect())).await?;
        Ok(())
    }

    /// What the API server has done for its clients up to now: watches that are open, requests, kB sent, and milliseconds
    /// of processor time.
    pub(crate) async fn served(&self) -> Outcome<[f64; 4]> {
        let text = self.plane.kubectl(["get", "--raw", "/metrics"]).await?;
        let of_discovery = |line: &str| line.contains("dynamoworkermetadatas") || line.contains("endpointslices");
        let sum = |name: &str, with: &str| total(&text, name, |line| line.contains(with) && of_discovery(line));
        let sent = sum("apiserver_response_sizes_sum", "")? + sum("apiserver_watch_events_sizes_sum", "")?;
        Ok([
            sum("apiserver_longrunning_requests", "WATCH")?,
            sum("apiserver_request_total", "")?,
            sent / 1e3,
            total(&text, "process_cpu_seconds_total", |_| true)? * 1e3,
        ])
    }

    /// The same once nobody opens or closes a watch, asks, or is told anything for two seconds.
    pub(crate) async fn quiet(&self, within: Duration) -> Outcome<[f64; 4]> {
        let deadline = Instant::now() + within;
        let mut last = self.served().await?;
        while Instant::now() < deadline {
            tokio::time::sleep(Duration::from_secs(2)).await;
            let now = self.served().await?;
            if now[..3] == last[..3] {
                return Ok(now);
            }
            last = now;
        }
        Err(format!("the API server has no quiet moment in {} s", within.as_secs()).into())
    }

    /// Removes the records of all pods, which stay.
    pub(crate) async fn forget(&self) -> Outcome {
        let arguments = ["delete", "dynamoworkermetadatas.nvidia.com", "--all", "--namespace", &self.namespace()];
        self.plane.kubectl(arguments).await?;
        Ok(())
    }
}

/// The resource of a pod, as its process would write it.
fn resource(namespace: &str, name: &str, uid: &str, number: usize) -> Outcome<Value> {
    let endpoint = Endpoint::new("bench", format!("pool-{}", number / SLICE), "generate").tcp(format!(
        "10.0.0.{}:9000/{:020}",
        number % 250,
        0
    ));
    let key = Key::new(endpoint.path()?, layout::kubernetes_instance_id(name));
    let (collection, entry) = layout::kubernetes_entry(&key)?;
    let record = layout::kubernetes_value(&key, &endpoint.encode(&key)?)?;
    let mut data = json!({ "endpoints": {}, "model_cards": {}, "event_channels": {}, "event_sources": {} });
    data[collection][entry] = record;
    Ok(json!({
        "apiVersion": "nvidia.com/v1alpha1", "kind": "DynamoWorkerMetadata",
        "metadata": {
            "name": name, "namespace": namespace,
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid,
                "controller": true, "blockOwnerDeletion": false,
            }],
        },
        "spec": { "data": data },
    }))
}
