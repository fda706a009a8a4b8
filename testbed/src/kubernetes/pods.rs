//! What a kubelet would say of a pod.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

use super::Cluster;
use crate::error::{Error, Result};

/// Endpoints have addresses, which nobody answers at. Not loopback ones, which an EndpointSlice refuses.
static ADDRESSES: AtomicU32 = AtomicU32::new(1);

impl Cluster {
    /// Says of a pod, and of all its containers, that it runs and whether it is ready, as its kubelet would. Nothing
    /// runs. A pod that has no address yet gets one.
    ///
    /// # Errors
    /// There is no such pod.
    pub async fn report(&self, namespace: &str, pod: &str, ready: bool) -> Result<()> {
        let read = self.kubectl_json(["get", "pod", pod, "--namespace", namespace]).await?;
        let status = json!({ "status": status(&read, ready) }).to_string();
        let patch = ["patch", "pod", pod, "--namespace", namespace, "--subresource=status", "--type=merge", "--patch"];
        self.kubectl(patch.into_iter().chain([status.as_str()])).await.map(drop)
    }

    /// The uid of a pod.
    ///
    /// # Errors
    /// There is no such pod.
    pub async fn pod_uid(&self, namespace: &str, pod: &str) -> Result<String> {
        let read = self.kubectl_json(["get", "pod", pod, "--namespace", namespace]).await?;
        let uid = read["metadata"]["uid"].as_str().ok_or_else(|| Error::new(format!("the pod {pod} has no uid")))?;
        Ok(uid.to_owned())
    }
}

fn status(pod: &Value, ready: bool) -> Value {
    let address = match pod["status"]["podIP"].as_str() {
        Some(address) => address.to_owned(),
        None => {
            let [_, a, b, c] = ADDRESSES.fetch_add(1, Ordering::Relaxed).to_be_bytes();
            format!("10.{a}.{b}.{c}")
        }
    };
    let condition = |kind: &str| json!({ "type": kind, "status": if ready { "True" } else { "False" } });
    let container = |container: &Value| {
        json!({
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "restartCount": 0,
            "started": true,
            "ready": ready,
            "state": { "running": {} },
        })
    };
    let containers: Vec<Value> = pod["spec"]["containers"].as_array().into_iter().flatten().map(container).collect();
    json!({
        "phase": "Running",
        "podIP": address,
        "podIPs": [{ "ip": address }],
        "conditions": [condition("Ready"), condition("ContainersReady")],
        "containerStatuses": containers,
    })
}
