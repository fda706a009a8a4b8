//! Namespaces of a real control plane, each for one test, with pods that are as ready as the test says.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use discovery_core::backend::Backend;
use discovery_core::{BackendContext, Discovery, Environment, Result, TaskScope};
use discovery_deploy::{CRD, Mode, rbac};
use discovery_k8s::{DISCOVERY_LABEL, GROUP, KIND, KubernetesBackend, PLURAL, VERSION};
use discovery_testbed::{ControlPlaneOptions, Kubeconfig};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::client::{connect, failed};

/// A control plane, as its administrator sees it.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub(crate) kubeconfig: String,
    pub(crate) client: Client,
}

impl Cluster {
    /// The one of all tests, with the CRD installed.
    pub(crate) async fn shared() -> Result<Self> {
        Self::of(testbed().await?).await
    }

    /// One of a test's own.
    pub(crate) async fn of(cluster: &discovery_testbed::Cluster) -> Result<Self> {
        let path = cluster.kubeconfig_path();
        Ok(Self { kubeconfig: path.to_string_lossy().into_owned(), client: connect(path).await? })
    }

    /// A namespace of its own, in which pods can be made.
    pub(crate) async fn space(&self) -> Result<Space> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let namespace = format!("t{:x}-{number}", std::process::id());
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let made = serde_json::from_value(json!({ "metadata": { "name": namespace } })).expect("a namespace");
        namespaces.create(&PostParams::default(), &made).await.map_err(|error| failed("namespace", error))?;
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &namespace);
        until("the namespace has its ServiceAccount", || async {
            accounts.get_opt("default").await.is_ok_and(|account| account.is_some())
        })
        .await;
        Ok(Space { cluster: self.clone(), namespace, pods: Mutex::default() })
    }
}

/// A pod of the API, without a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    pub(crate) name: String,
    pub(crate) uid: String,
}

/// One namespace.
pub(crate) struct Space {
    pub(crate) cluster: Cluster,
    pub(crate) namespace: String,
    pods: Mutex<BTreeMap<String, Made>>,
}

/// How an endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    NotReady,
    /// Nothing is said of `ready`.
    Unknown,
    Terminating,
}

impl Space {
    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }

    pub(crate) fn slices(&self) -> Api<EndpointSlice> {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }

    pub(crate) fn resources(&self) -> Api<DynamicObject> {
        let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, KIND), PLURAL);
        Api::namespaced_with(self.cluster.client.clone(), &self.namespace, &kind)
    }

    /// Makes a pod; one of this name before is gone at once.
    pub(crate) async fn pod(&self, name: &str) -> Result<Made> {
        self.delete_pod(name).await?;
        let pod = json!({
            "metadata": { "name": name, "labels": { DISCOVERY_LABEL: "true" } },
            "spec": { "containers": [{ "name": "main", "image": "none" }], "automountServiceAccountToken": false },
        });
        let pod = serde_json::from_value(pod).expect("a pod");
        let made = self.pods().create(&PostParams::default(), &pod).await.map_err(|error| failed("pod", error))?;
        let made = Made { name: name.to_owned(), uid: made.metadata.uid.unwrap_or_default() };
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), made.clone());
        Ok(made)
    }

    pub(crate) async fn delete_pod(&self, name: &str) -> Result<()> {
        match self.pods().delete(name, &DeleteParams::default().grace_period(0)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            deleted => deleted.map(drop).map_err(|error| failed("pod", error)),
        }
    }

    /// Sets an EndpointSlice.
    pub(crate) async fn slice(&self, name: &str, endpoints: &[(&Made, State)]) -> Result<()> {
        let endpoint = |(number, (pod, state)): (usize, &(&Made, State))| {
            json!({
                "addresses": [format!("10.0.{}.{}", number / 250, number % 250 + 1)],
                "conditions": {
                    "ready": (*state != State::Unknown).then_some(*state != State::NotReady),
                    "serving": true,
                    "terminating": *state == State::Terminating,
                },
                "targetRef": { "kind": "Pod", "name": pod.name, "namespace": self.namespace, "uid": pod.uid },
            })
        };
        let endpoints: Vec<Value> = endpoints.iter().enumerate().map(endpoint).collect();
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": { "name": name, "labels": { DISCOVERY_LABEL: "true" } },
            "addressType": "IPv4",
            "endpoints": endpoints,
        });
        let params = PatchParams::apply("test").force();
        self.slices().patch(name, &params, &Patch::Apply(&slice)).await.map_err(|error| failed("slice", error))?;
        Ok(())
    }

    pub(crate) async fn delete_slice(&self, name: &str) -> Result<()> {
        self.slices().delete(name, &DeleteParams::default()).await.map_err(|error| failed("slice", error))?;
        Ok(())
    }

    /// A ready pod: in a slice of its own.
    pub(crate) async fn ready_pod(&self, name: &str) -> Result<Made> {
        let pod = self.pod(name).await?;
        self.slice(&format!("slice-{name}"), &[(&pod, State::Ready)]).await?;
        Ok(pod)
    }

    /// Sets how a pod that [`Space::ready_pod`] made is.
    pub(crate) async fn set(&self, pod: &Made, state: State) -> Result<()> {
        self.slice(&format!("slice-{}", pod.name), &[(pod, state)]).await
    }

    /// What a process in this pod would have in its environment.
    pub(crate) fn environment(&self, pod: &Made) -> Environment {
        let settings = [
            ("KUBECONFIG", self.cluster.kubeconfig.as_str()),
            ("POD_NAME", &pod.name),
            ("POD_UID", &pod.uid),
            ("POD_NAMESPACE", &self.namespace),
            ("DYN_DISCOVERY_KUBERNETES_PODINFO", "/nonexistent"),
        ];
        settings.into_iter().collect()
    }

    /// A handle as a process in this pod would have it.
    pub(crate) async fn discovery(&self, pod: &Made) -> Result<Discovery> {
        discovery(self.environment(pod)).await
    }

    /// Makes a resource that no process of this test wrote.
    pub(crate) async fn leave(&self, name: &str, owner: Option<&Made>, items: &Value) -> Result<DynamicObject> {
        self.leave_unread(name, owner, items).await?;
        Ok(self.resource(name).await?.expect("it was made"))
    }

    /// The same of values that this client cannot read.
    pub(crate) async fn leave_unread(&self, name: &str, owner: Option<&Made>, items: &Value) -> Result<()> {
        let owner_reference =
            |pod: &Made| json!([{ "apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": pod.uid }]);
        let resource = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": KIND,
            "metadata": { "name": name, "ownerReferences": owner.map_or(json!([]), owner_reference) },
            "spec": { "data": { "item": items } },
        });
        let request = kube::core::Request::new(self.resources().resource_url());
        let request = request.create(&PostParams::default(), resource.to_string().into_bytes()).expect("a request");
        let answer = self.cluster.client.request_text(request).await;
        answer.map(drop).map_err(|error| failed("resource", error))
    }

    /// The resource of this name, as it is stored.
    pub(crate) async fn resource(&self, name: &str) -> Result<Option<DynamicObject>> {
        self.resources().get_opt(name).await.map_err(|error| failed("resource", error))
    }
}

/// A handle as a process of this environment would have it.
pub(crate) async fn discovery(environment: Environment) -> Result<Discovery> {
    Discovery::builder().with_backend(backend(environment).await?).build().await
}

/// The backend alone, which tells a failure that the core would wait out.
pub(crate) async fn backend(environment: Environment) -> Result<Arc<dyn Backend>> {
    let context = BackendContext::new(environment, TaskScope::current());
    Ok(Arc::new(KubernetesBackend::connect(&context).await?))
}

/// The control plane of all tests, with the CRD installed.
pub(crate) async fn testbed() -> Result<&'static discovery_testbed::Cluster> {
    let options = || ControlPlaneOptions { manifests: CRD.to_owned(), ..ControlPlaneOptions::default() };
    discovery_testbed::Cluster::shared(options).await.map_err(|error| failed("cluster", error))
}

/// The environment of a process with a token such as the kubelet mounts, which ends with its pod.
pub(crate) async fn as_pod(cluster: &discovery_testbed::Cluster, space: &Space, pod: &Made) -> Environment {
    let kubeconfig = cluster.save(&kubeconfig_of(cluster, space, pod).await).unwrap();
    space.environment(pod).with("KUBECONFIG", kubeconfig)
}

/// The kubeconfig of such a process.
pub(crate) async fn kubeconfig_of(cluster: &discovery_testbed::Cluster, space: &Space, pod: &Made) -> Kubeconfig {
    const ACCOUNT: &str = "default";
    cluster.apply(&rbac(Some(&space.namespace), Some(ACCOUNT), Mode::Pod)).await.unwrap();
    let token = cluster.token_of_pod(&space.namespace, ACCOUNT, &pod.name, &pod.uid).await.unwrap();
    cluster.kubeconfig().with_token(&token)
}

/// Waits until something holds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "waited a minute for: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
