//! The owner's own resource: read, applied, repaired and removed, each under a precondition.
//!
//! An apply names the version that it builds on, and with it the object's uid; one that creates names a version that no
//! object has. So whichever of two writes arrives late changes nothing where an object is: it is answered with a conflict,
//! and whoever sent it reads again. An apply on an object that is absent is not compared with its version, which is how
//! creating works: see [`crate::late`].

use std::future::Future;
use std::time::Duration;

use discovery_core::{Effect, Error, ErrorKind, Result};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::document::Draft;
use crate::fault::{Request, is_missing_resource, is_unrecognised, qualified};
use crate::identity::Identity;
use crate::reflector::PAGE;
use crate::resource::{FIELD_MANAGER, GROUP, KIND, MANAGED_BY, PLURAL, Resource, VERSION, pod_owner};
use crate::yaml;

/// How long one request may take: a publish of the core's may need three.
const REQUEST: Duration = Duration::from_secs(3);
/// The version of an apply that creates. The store begins at 1 before it holds anything.
const NEVER: &str = "1";

/// The version of an object of this uid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) uid: String,
    pub(crate) version: String,
}

impl Version {
    pub(crate) fn of(resource: &Resource) -> Self {
        let metadata = &resource.metadata;
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            version: metadata.resource_version.clone().unwrap_or_default(),
        }
    }

    pub(crate) fn number(&self) -> Option<u64> {
        self.version.parse().ok()
    }
}

/// What became of a write under a precondition.
#[derive(Debug)]
pub(crate) enum Written<T> {
    Done(T),
    /// The precondition did not hold, and nothing was written.
    Outdated,
}

/// Whose the resource is that stands under the own name.
#[derive(Debug)]
pub(crate) enum Standing {
    Absent,
    Ours(Box<Resource>),
    /// Of a pod that is gone, or of none.
    Left(Version),
    /// Of another pod that lives.
    Taken(Error),
}

/// What is known of a pod.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PodState {
    Lives,
    Gone,
    /// This identity may not ask.
    Unknown,
}

/// The own resource.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(crate) identity: Identity,
    records: Api<Resource>,
    pods: Api<Pod>,
}

impl Own {
    pub(crate) fn new(client: &Client, identity: Identity) -> Self {
        Self {
            records: Api::namespaced(client.clone(), &identity.namespace),
            pods: Api::namespaced(client.clone(), &identity.namespace),
            identity,
        }
    }

    /// Asks, with a deadline, and says what a failure means.
    async fn ask<T>(
        &self,
        verb: &'static str,
        resource: &str,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<kube::Result<T>> {
        let asked = Request { verb, resource, namespace: Some(&self.identity.namespace) };
        match timeout(REQUEST, request).await {
            Err(_) => {
                let effect = if asked.is_write() { Effect::Unknown } else { Effect::None };
                let text = format!("the API server did not answer within {REQUEST:?}");
                Err(Error::new(ErrorKind::Timeout, text).with_effect(effect))
            }
            Ok(Err(kube::Error::Api(status))) if is_decided(&status) => Ok(Err(kube::Error::Api(status))),
            Ok(Err(error)) => Err(asked.fault(error)),
            Ok(Ok(answer)) => Ok(Ok(answer)),
        }
    }

    /// The resource as it is stored; with `cached`, as the API server last saw it, which costs the store nothing.
    pub(crate) async fn read(&self, cached: bool) -> Result<Option<Resource>> {
        let name = &self.identity.resource;
        let params = if cached { kube::api::GetParams::any() } else { kube::api::GetParams::default() };
        match self.ask("get", &qualified(), self.records.get_with(name, &params)).await? {
            Ok(resource) => Ok(Some(resource)),
            Err(_) => Ok(None),
        }
    }

    /// Whether the pod of this name and uid lives.
    pub(crate) async fn pod(&self, name: &str, uid: &str) -> Result<PodState> {
        match self.ask("get", "pods", self.pods.get_metadata(name)).await {
            Ok(Ok(pod)) if pod.metadata.uid.as_deref() == Some(uid) => Ok(PodState::Lives),
            Ok(_) => Ok(PodState::Gone),
            Err(error) if error.kind() == ErrorKind::PermissionDenied && !is_unrecognised(&error) => {
                tracing::warn!(%error, "pods cannot be read: whose a resource is can be told less well");
                Ok(PodState::Unknown)
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the own pod lives.
    pub(crate) async fn own_pod(&self) -> Result<PodState> {
        self.pod(&self.identity.pod, &self.identity.uid).await
    }

    /// Why nothing can be registered for a pod that is [`PodState::Gone`].
    pub(crate) fn no_such_pod(&self) -> Error {
        let identity = &self.identity;
        let text = format!(
            "there is no pod {:?} of uid {:?} in namespace {:?}: its records would be removed at once. Check POD_NAME and \
             POD_UID, and end this process if its pod was deleted",
            identity.pod, identity.uid, identity.namespace
        );
        Error::new(ErrorKind::InvalidConfig, text)
    }

    /// Reads the resource and finds out whose it is.
    pub(crate) async fn standing(&self) -> Result<Standing> {
        let Some(resource) = self.read(false).await? else { return Ok(Standing::Absent) };
        let Some(owner) = pod_owner(&resource.metadata) else { return Ok(Standing::Left(Version::of(&resource))) };
        if owner.uid == self.identity.uid {
            return Ok(Standing::Ours(Box::new(resource)));
        }
        Ok(match self.pod(&owner.name, &owner.uid).await? {
            PodState::Gone => Standing::Left(Version::of(&resource)),
            PodState::Lives | PodState::Unknown => Standing::Taken(Error::new(
                ErrorKind::Conflict,
                format!(
                    "the resource {:?} belongs to the pod {:?} of uid {:?}, and this process says that its pod's is {:?}: \
                     check POD_NAME and POD_UID",
                    self.identity.resource, owner.name, owner.uid, self.identity.uid
                ),
            )),
        })
    }

    /// Stores the draft in the place of `known`, or anew.
    pub(crate) async fn apply(&self, draft: &Draft, known: Option<&Version>) -> Result<Written<Resource>> {
        let body = self.body(draft, known);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let body = yaml::body(&body)?;
        let patch = Patch::Apply(&body);
        let request = self.records.patch(&self.identity.resource, &params, &patch);
        self.written(self.ask("patch", &qualified(), request).await?)
    }

    /// Sets the data and the owner outright: where an apply cannot take out what another manager put there. The version is
    /// set and not tested, since a test that fails is answered as any malformed patch is.
    pub(crate) async fn repair(&self, draft: &Draft, known: &Version) -> Result<Written<Resource>> {
        let steps = json!([
            { "op": "replace", "path": "/metadata/resourceVersion", "value": known.version },
            { "op": "add", "path": "/metadata/ownerReferences", "value": [self.owner()] },
            { "op": "add", "path": "/spec", "value": { "data": draft.to_value() } },
        ]);
        let patch: kube::core::params::Patch<()> = match serde_json::from_value(steps) {
            Ok(steps) => Patch::Json(steps),
            Err(error) => {
                return Err(
                    Error::new(ErrorKind::Internal, "the repair is no patch: please report it").with_source(error)
                );
            }
        };
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let request = self.records.patch(&self.identity.resource, &params, &patch);
        self.written(self.ask("patch", &qualified(), request).await?)
    }

    /// Removes the resource, if it is still this one, of this uid and this version. Answers what finalizers hold of it.
    pub(crate) async fn delete(&self, known: &Version) -> Result<Written<Option<Box<Resource>>>> {
        let preconditions =
            Preconditions { uid: Some(known.uid.clone()), resource_version: Some(known.version.clone()) };
        let params = DeleteParams::default().preconditions(preconditions);
        let request = self.records.delete(&self.identity.resource, &params);
        match self.ask("delete", &qualified(), request).await? {
            Ok(answer) => {
                let held = answer.left().filter(|resource| !resource.finalizers().is_empty());
                Ok(Written::Done(held.map(Box::new)))
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(Written::Done(None)),
            Err(_) => Ok(Written::Outdated),
        }
    }

    /// Removes what an earlier pod left. Answers whether it was still what stood there.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] where finalizers hold it, and others of the requests'.
    pub(crate) async fn clear(&self, left: &Version) -> Result<Written<()>> {
        let held = match self.delete(left).await? {
            Written::Done(None) => return Ok(Written::Done(())),
            Written::Outdated => return Ok(Written::Outdated),
            Written::Done(Some(held)) => held,
        };
        let Identity { resource, namespace, .. } = &self.identity;
        Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "an earlier pod's resource {resource:?} is being removed, and its finalizers hold it: {}. Whoever set them \
                 takes them off, or else `kubectl -n {namespace} patch {PLURAL} {resource} --type=merge \
                 -p '{{\"metadata\":{{\"finalizers\":null}}}}'`",
                held.finalizers().join(", ")
            ),
        ))
    }

    /// Whether a stored resource is as the draft wants it, its owner included.
    pub(crate) fn is_right(&self, resource: &Resource, draft: &Draft) -> bool {
        self.is_ours_alone(resource) && draft.differences(resource.data().as_ref()).is_empty()
    }

    /// Whether the resource belongs to this pod.
    pub(crate) fn is_ours(&self, resource: &Resource) -> bool {
        pod_owner(&resource.metadata).is_some_and(|owner| owner.uid == self.identity.uid)
    }

    /// Whether it belongs to nobody else besides: it would stay for as long as that one does.
    pub(crate) fn is_ours_alone(&self, resource: &Resource) -> bool {
        let others = resource.metadata.owner_references.iter().flatten();
        self.is_ours(resource) && others.into_iter().all(|owner| owner.uid == self.identity.uid)
    }

    /// The resources of the namespace, ready or not.
    pub(crate) async fn neighbours(&self) -> Result<Vec<Resource>> {
        let mut params = ListParams::default().limit(PAGE);
        let mut neighbours = Vec::new();
        while let Ok(page) = self.ask("list", &qualified(), self.records.list(&params)).await? {
            neighbours.extend(page.items);
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params = ListParams::default().limit(PAGE).continue_token(&token),
                None => break,
            }
        }
        Ok(neighbours)
    }

    fn written(&self, answer: kube::Result<Resource>) -> Result<Written<Resource>> {
        match answer {
            Ok(resource) => Ok(Written::Done(resource)),
            Err(_) => Ok(Written::Outdated),
        }
    }

    fn owner(&self) -> OwnerReference {
        OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: self.identity.pod.clone(),
            uid: self.identity.uid.clone(),
            // One controller for each object: the pod's own resource has it, its containers' have none.
            controller: Some(self.identity.resource == self.identity.pod),
            block_owner_deletion: Some(false),
        }
    }

    fn body(&self, draft: &Draft, known: Option<&Version>) -> Value {
        let mut body = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"),
            "kind": KIND,
            "metadata": {
                "name": self.identity.resource,
                "namespace": self.identity.namespace,
                "labels": { MANAGED_BY.0: MANAGED_BY.1 },
                "ownerReferences": [self.owner()],
                "resourceVersion": known.map_or(NEVER, |known| &known.version),
            },
            "spec": { "data": draft.to_value() },
        });
        if let Some(known) = known {
            body["metadata"]["uid"] = json!(known.uid);
        }
        body
    }
}

/// Answers that say what stands there: none of that name, or another version than was named.
fn is_decided(status: &kube::core::Status) -> bool {
    status.code == 409 || (status.code == 404 && !is_missing_resource(status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Mode;
    use crate::document::Document;

    const GOLDEN: &str = include_str!("../../discovery-dynamo/tests/golden/k8s-dynamoworkermetadata.json");

    /// A client that is never used.
    fn client() -> Client {
        crate::client::client(&kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap()
    }

    #[tokio::test]
    async fn what_is_applied_is_what_the_reference_writes() {
        let golden: Value = serde_json::from_str(GOLDEN).unwrap();
        let uid = golden["metadata"]["ownerReferences"][0]["uid"].as_str().unwrap();
        let identity = Identity::new(Mode::Pod, "dynamo-backend-0", uid, "default", None).unwrap();
        let stored: Resource = serde_json::from_value(golden.clone()).unwrap();
        let document = Document::of(&stored.data().unwrap());
        let draft = Draft::of(&document.entries).unwrap();
        let own = Own::new(&client(), identity);
        let mut body = own.body(&draft, None);
        assert_eq!(body["metadata"]["resourceVersion"], NEVER);
        let metadata = body["metadata"].as_object_mut().unwrap();
        metadata.remove("resourceVersion");
        let labels = metadata.remove("labels");
        assert_eq!(labels, Some(json!({ MANAGED_BY.0: MANAGED_BY.1 })), "which the README says to look for");
        assert_eq!(body, golden);
    }

    #[tokio::test]
    async fn a_container_s_resource_is_not_controlled_by_its_pod() {
        let identity = Identity::new(Mode::Container, "p", "u", "ns", Some("engine-1")).unwrap();
        let own = Own::new(&client(), identity);
        let known = Version { uid: "x".to_owned(), version: "7".to_owned() };
        let body = own.body(&Draft::default(), Some(&known));
        assert_eq!(body["metadata"]["name"], "p-engine-1");
        assert_eq!(body["metadata"]["ownerReferences"][0]["controller"], false);
        assert_eq!((&body["metadata"]["uid"], &body["metadata"]["resourceVersion"]), (&json!("x"), &json!("7")));
    }
}
