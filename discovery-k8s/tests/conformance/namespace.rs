//! One namespace, as its administrator, the scheduler and the kubelet see it: accounts, pods, and what is said of them.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use discovery_core::{Error, ErrorKind, Result};
use discovery_deploy::{Mode, rbac};
use discovery_k8s::{DISCOVERY_LABEL, GROUP, PLURAL};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use k8s_openapi::api::core::v1::{self, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::NODE;
use crate::client::failed;

/// The Service whose endpoints the pods are.
const SERVICE: &str = "workers";
/// The container that registers, where containers do.
pub(super) const CONTAINER: &str = "engine";
/// How long the controller may take before it is reminded.
const REMIND: Duration = Duration::from_secs(10);

/// How long controllers may take: after an outage of the API they come back late.
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(20);

/// A pod of the API, without a process.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(super) name: String,
    pub(super) uid: String,
}

/// What the EndpointSlices say of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Ready,
    NotReady,
    Terminating,
}

pub(crate) struct Namespace {
    client: Client,
    pub(super) name: String,
    pub(super) mode: Mode,
}

impl Namespace {
    /// A new one, with a Service whose endpoints are discoverable.
    pub(super) async fn create(client: Client, mode: Mode) -> Result<Self> {
        let name = format!("world-{:016x}", fastrand::u64(..));
        let namespaces: Api<v1::Namespace> = Api::all(client.clone());
        let made = read(json!({ "metadata": { "name": name } }))?;
        namespaces.create(&PostParams::default(), &made).await.map_err(|error| failed("namespace", error))?;
        let namespace = Self { client, name, mode };
        let service: Service = read(json!({
            "metadata": { "name": SERVICE, "labels": { DISCOVERY_LABEL: "true" } },
            "spec": { "clusterIP": "None", "selector": { "app": SERVICE } },
        }))?;
        namespace.make(&service).await?;
        Ok(namespace)
    }

    /// Nobody waits until everything in it is gone.
    pub(super) async fn delete(&self) {
        let namespaces: Api<v1::Namespace> = Api::all(self.client.clone());
        // A control plane that is down takes it along.
        let _ = namespaces.delete(&self.name, &DeleteParams::background()).await;
    }

    pub(crate) fn all<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// What is there already is what an earlier try made, which an outage ended.
    async fn make<K>(&self, object: &K) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Serialize
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let (all, name) = (self.all::<K>(), object.meta().name.as_deref().unwrap_or(""));
        let made = match all.create(&PostParams::default(), object).await {
            Err(kube::Error::Api(status)) if status.code == 409 => all.get(name).await,
            made => made,
        };
        made.map_err(|error| failed(&format!("{} {name}", K::kind(&())), error))
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// The name of the resource of a pod, or of its container.
    pub(super) fn resource(&self, pod: &str) -> String {
        match self.mode {
            Mode::Pod => pod.to_owned(),
            Mode::Container => format!("{pod}-{CONTAINER}"),
        }
    }

    /// An account that may do what `deploy/` lets a worker do.
    pub(super) async fn account(&self, name: &str) -> Result<()> {
        for object in self.permissions(name)? {
            match object["kind"].as_str() {
                Some("ServiceAccount") => drop(self.make(&read::<ServiceAccount>(object)?).await?),
                Some("Role") => drop(self.make(&read::<Role>(object)?).await?),
                _ => drop(self.make(&read::<RoleBinding>(object)?).await?),
            }
        }
        Ok(())
    }

    fn permissions(&self, account: &str) -> Result<Vec<Value>> {
        let manifests = rbac(Some(&self.name), Some(account), self.mode);
        serde_saphyr::from_multiple(&manifests).map_err(|error| failed("the manifests of a worker's account", error))
    }

    /// Withdraws what an account may do, or gives it back, and waits until that holds. What is given back is so after an outage
    /// too; what is withdrawn is so now or not at all, since who judges counts from now.
    pub(super) async fn permit(&self, account: &str, may: bool) -> Result<()> {
        let bindings = self.all::<RoleBinding>();
        if may {
            let binding = self.permissions(account)?.into_iter().find(|object| object["kind"] == "RoleBinding");
            let binding: RoleBinding = read(binding.unwrap_or_default())?;
            until("the RoleBinding is there", || async {
                match bindings.create(&PostParams::default(), &binding).await {
                    // An answer was lost, or somebody else did it.
                    Err(kube::Error::Api(status)) if status.code == 409 => Ok(true),
                    made => made.map(|_| true).map_err(|error| failed("RoleBinding", error)),
                }
            })
            .await?;
        } else {
            match bindings.delete(account, &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                deleted => drop(deleted.map_err(|error| failed("RoleBinding", error))?),
            }
        }
        let reviews: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let review: SubjectAccessReview = read(json!({ "spec": {
            "user": format!("system:serviceaccount:{}:{account}", self.name),
            "resourceAttributes": { "namespace": self.name, "verb": "list", "group": GROUP, "resource": PLURAL },
        } }))?;
        until("the permission holds", || async {
            let reviewed = reviews.create(&PostParams::default(), &review).await;
            let allowed = reviewed.map(|review| review.status.is_some_and(|status| status.allowed));
            Ok(allowed.map_err(|error| failed("review", error))? == may)
        })
        .await
    }

    /// A pod that runs under an account of its own name, if it has one, and is not ready.
    pub(crate) async fn pod(&self, name: &str, account: Option<&str>) -> Result<Made> {
        let pod = json!({
            "metadata": { "name": name, "labels": { "app": SERVICE, DISCOVERY_LABEL: "true" } },
            "spec": {
                "nodeName": NODE,
                "serviceAccountName": account.unwrap_or("default"),
                "automountServiceAccountToken": false,
                "containers": [{ "name": CONTAINER, "image": "none" }],
            },
        });
        let made = self.make(&read::<Pod>(pod)?).await?;
        Ok(Made { name: name.to_owned(), uid: made.metadata.uid.unwrap_or_default() })
    }

    /// Says of a pod what its kubelet would, which an API server that is away hears once it is back, and waits until its
    /// endpoint follows.
    pub(super) async fn report(&self, pod: &Made, ready: bool) -> Result<()> {
        let [a, b, ..] = pod.uid.as_bytes() else { return Err(Error::new(ErrorKind::Internal, "a pod without a uid")) };
        let address = format!("10.1.{a}.{b}");
        let said = if ready { "True" } else { "False" };
        let status = json!({ "status": {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{ "ip": address }],
            "conditions": [{ "type": "Ready", "status": said }, { "type": "ContainersReady", "status": said }],
            "containerStatuses": [{
                "name": CONTAINER, "image": "none", "imageID": "", "restartCount": 0, "started": true, "ready": ready,
            }],
        } });
        let pods = self.all::<Pod>();
        until("the pod's status is told", || async {
            let told = pods.patch_status(&pod.name, &PatchParams::default(), &Patch::Merge(&status)).await;
            told.map(|_| true).map_err(|error| failed("the pod's status", error))
        })
        .await?;
        self.said(pod, if ready { Said::Ready } else { Said::NotReady }).await
    }

    /// Begins to end a pod, whose process takes its time.
    pub(super) async fn terminate(&self, pod: &Made) -> Result<()> {
        let deleted = self.all::<Pod>().delete(&pod.name, &DeleteParams::default().grace_period(3_600)).await;
        deleted.map_err(|error| failed("pod", error))?;
        self.said(pod, Said::Terminating).await
    }

    /// A token such as the pod's processes have.
    pub(super) async fn token(&self, account: &str, pod: &Made) -> Result<String> {
        let bound = json!({ "kind": "Pod", "apiVersion": "v1", "name": pod.name, "uid": pod.uid });
        let request: TokenRequest = read(json!({ "spec": { "audiences": [], "boundObjectRef": bound } }))?;
        let accounts = self.all::<ServiceAccount>();
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
        let status = answer.map_err(|error| failed("token", error))?.status;
        status.map(|status| status.token).ok_or_else(|| Error::new(ErrorKind::Internal, "no token"))
    }

    async fn said(&self, pod: &Made, wanted: Said) -> Result<()> {
        if self.mode == Mode::Container {
            // The pod's own object says it.
            return Ok(());
        }
        let slices = self.all::<EndpointSlice>();
        let params = ListParams::default().labels(&format!("kubernetes.io/service-name={SERVICE}"));
        let reminded = Mutex::new(Instant::now());
        until(&format!("the slices say {wanted:?} of {}", pod.name), || async {
            let slices = slices.list(&params).await.map_err(|error| failed("slices", error))?;
            let endpoints = slices.items.iter().flat_map(|slice| &slice.endpoints);
            let mut of_pod = endpoints.filter(|endpoint| uid(endpoint) == Some(&pod.uid));
            let so = of_pod.next().map_or(Said::NotReady, said) == wanted;
            if !so && is_due(&reminded) {
                self.remind().await?;
            }
            Ok(so)
        })
        .await
    }

    /// Has the controller look at the Service now: after looks that failed, as while its caches were behind, it waits twice as
    /// long each time, up to minutes.
    async fn remind(&self) -> Result<()> {
        let at = json!({ "metadata": { "annotations": { "reminded": format!("{:?}", Instant::now()) } } });
        let reminded = self.all::<Service>().patch(SERVICE, &PatchParams::default(), &Patch::Merge(&at)).await;
        reminded.map(drop).map_err(|error| failed("the Service", error))
    }
}

fn is_due(reminded: &Mutex<Instant>) -> bool {
    let mut reminded = reminded.lock().unwrap_or_else(PoisonError::into_inner);
    let due = reminded.elapsed() >= REMIND;
    if due {
        *reminded = Instant::now();
    }
    due
}

fn uid(endpoint: &Endpoint) -> Option<&String> {
    endpoint.target_ref.as_ref()?.uid.as_ref()
}

fn said(endpoint: &Endpoint) -> Said {
    match &endpoint.conditions {
        Some(conditions) if conditions.terminating == Some(true) => Said::Terminating,
        Some(conditions) if conditions.ready == Some(true) => Said::Ready,
        _ => Said::NotReady,
    }
}

fn read<T: DeserializeOwned>(object: Value) -> Result<T> {
    serde_json::from_value(object).map_err(|error| failed("an object of the test", error))
}

/// Asks again and again. A failure may pass.
async fn until<F>(what: &str, mut holds: impl FnMut() -> F) -> Result<()>
where
    F: Future<Output = Result<bool>>,
{
    let deadline = Instant::now() + PATIENCE;
    loop {
        let last = match holds().await {
            Ok(true) => return Ok(()),
            Ok(false) => "not so".to_owned(),
            Err(error) => error.to_string(),
        };
        if Instant::now() >= deadline {
            return Err(Error::new(ErrorKind::Timeout, format!("{what}: not within {PATIENCE:?}: {last}")));
        }
        sleep(PAUSE).await;
    }
}
