//! What of the cluster's set-up a process needs, for `discovery doctor`.

use discovery_core::{Error, ErrorKind, Result};
use futures_util::future;
use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec, SubjectAccessReviewStatus,
};
use kube::Api;
use kube::api::{GetParams, PostParams};
use serde_json::Value;

use crate::config::{Mode, Namespaces};
use crate::fault::Request;
use crate::identity::Identity;
use crate::own::{Own, PodState};
use crate::resource::{GROUP, KIND, PLURAL, VERSION};
use crate::survey::{Cluster, answer};

/// The name of the policy under which a pod writes its own resource alone, and of its binding: `deploy/admission.yaml`.
const POLICY: &str = "discovery-own-metadata";

/// What was found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Diagnosis {
    /// The API server's version, or why it does not answer.
    pub version: Result<String>,
    /// How the resource type is defined.
    pub definition: Result<Definition>,
    /// Whether the admission policy is there with its binding. An error where this identity may not look.
    pub policy: Result<bool>,
    /// What a process needs to be allowed.
    pub permissions: Vec<Permission>,
    /// Who registers here, or what is missing to know it.
    pub identity: Result<Identity>,
    /// Whether its pod lives: [`ErrorKind::InvalidConfig`] where there is none of that name and uid, else why that cannot be
    /// told.
    pub pod: Result<()>,
    /// What an instance is.
    pub mode: Mode,
    /// The namespaces that are watched.
    pub namespaces: Namespaces,
}

/// How the cluster defines the resource type `DynamoWorkerMetadata`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Definition {
    /// Not at all.
    Absent,
    /// As `discovery crd` prints it: free-form, and one value to the API server.
    Atomic,
    /// Free-form, and managed leaf by leaf, as the reference's.
    Granular,
    /// With fields of its own: what it does not name is lost when it is written.
    Closed,
}

/// What a permission is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To register.
    Register,
    /// To list and watch what others register.
    Discover,
}

/// One permission.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Permission {
    /// What it is for.
    pub purpose: Purpose,
    /// The verb, as a Role's rule names it.
    pub verb: &'static str,
    /// The resource with its group, as kubectl names it.
    pub resource: &'static str,
    /// The namespace; `None` for the whole cluster.
    pub namespace: Option<String>,
    /// Whether it is granted, or why that could not be asked.
    pub allowed: Result<bool>,
}

/// `resource.group` and both parts of it.
type Kind = (&'static str, &'static str, &'static str);

const RECORDS: Kind = ("dynamoworkermetadatas.nvidia.com", PLURAL, GROUP);
const SLICES: Kind = ("endpointslices.discovery.k8s.io", "endpointslices", "discovery.k8s.io");
const PODS: Kind = ("pods", "pods", "");

impl Cluster {
    /// Looks at what a process needs of the cluster. Takes half a minute at most, and writes nothing. Cancel-safe.
    pub async fn diagnose(&self) -> Diagnosis {
        let (version, definition, policy, permissions, pod) =
            future::join5(self.version(), self.definition(), self.policy(), self.permissions(), self.own_pod()).await;
        let (identity, mode) = (self.config.identity.clone(), self.config.mode);
        Diagnosis { version, definition, policy, permissions, identity, pod, mode, namespaces: self.namespaces() }
    }

    async fn own_pod(&self) -> Result<()> {
        let own = Own::new(&self.client, self.config.identity.clone()?);
        match own.own_pod().await? {
            PodState::Lives => Ok(()),
            PodState::Gone => Err(own.no_such_pod()),
            PodState::Unknown => Err(Error::new(ErrorKind::PermissionDenied, "this identity may not read pods")),
        }
    }

    async fn version(&self) -> Result<String> {
        let asked = Request { verb: "get", resource: "/version", namespace: None };
        answer(asked, self.client.apiserver_version()).await.map(|info| info.git_version).map_err(|(_, error)| error)
    }

    /// How the resource type is defined, by the schema that every identity may read.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub async fn definition(&self) -> Result<Definition> {
        let path = format!("/openapi/v3/apis/{GROUP}");
        let asked = Request { verb: "get", resource: &path, namespace: None };
        let request = kube::core::Request::new(path.as_str()).get(VERSION, &GetParams::default());
        let request = request.map_err(|error| asked.fault(kube::Error::BuildRequest(error)))?;
        match answer(asked, self.client.request::<Value>(request)).await {
            Ok(document) if defined(&document) != Definition::Absent => Ok(defined(&document)),
            Ok(_) | Err((true, _)) => self.absence().await,
            Err((false, error)) => Err(error),
        }
    }

    /// Schemas are published some time after the type is served.
    async fn absence(&self) -> Result<Definition> {
        let group = format!("{GROUP}/{VERSION}");
        let asked = Request { verb: "get", resource: &group, namespace: None };
        match answer(asked, self.client.list_api_group_resources(&group)).await {
            Ok(list) if list.resources.iter().any(|resource| resource.name == PLURAL) => Err(Error::new(
                ErrorKind::Unavailable,
                "the schema of DynamoWorkerMetadata is not published yet: look again in a moment",
            )),
            Ok(_) | Err((true, _)) => Ok(Definition::Absent),
            Err((false, error)) => Err(error),
        }
    }

    async fn policy(&self) -> Result<bool> {
        let asked = |resource| Request { verb: "get", resource, namespace: None };
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(self.client.clone());
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(self.client.clone());
        let (policy, binding) = future::join(
            answer(asked("validatingadmissionpolicies"), policies.get_opt(POLICY)),
            answer(asked("validatingadmissionpolicybindings"), bindings.get_opt(POLICY)),
        )
        .await;
        match (policy, binding) {
            (Ok(policy), Ok(binding)) => Ok(policy.is_some() && binding.is_some()),
            // A server that does not know such policies has none.
            (Err((true, _)), _) | (_, Err((true, _))) => Ok(false),
            (Err((_, error)), _) | (_, Err((_, error))) => Err(error),
        }
    }

    async fn permissions(&self) -> Vec<Permission> {
        let own = match &self.config.identity {
            Ok(identity) => identity.namespace.clone(),
            Err(_) => self.client.default_namespace().to_owned(),
        };
        let mut wanted: Vec<(Purpose, Kind, &'static str, Option<String>)> = Vec::new();
        for verb in ["get", "list", "create", "patch", "delete"] {
            wanted.push((Purpose::Register, RECORDS, verb, Some(own.clone())));
        }
        wanted.push((Purpose::Register, PODS, "get", Some(own)));
        let readiness = match self.config.mode {
            Mode::Pod => SLICES,
            Mode::Container => PODS,
        };
        let watched = match self.namespaces() {
            Namespaces::All => vec![None],
            Namespaces::Named(names) => names.into_iter().map(Some).collect(),
        };
        for namespace in watched {
            for (kind, verb) in [RECORDS, readiness].into_iter().flat_map(|kind| [(kind, "list"), (kind, "watch")]) {
                wanted.push((Purpose::Discover, kind, verb, namespace.clone()));
            }
        }
        let asked = wanted.into_iter().map(|(purpose, kind, verb, namespace)| async move {
            let allowed = self.may(verb, kind, namespace.as_deref()).await;
            Permission { purpose, verb, resource: kind.0, namespace, allowed }
        });
        future::join_all(asked).await
    }

    async fn may(&self, verb: &str, (_, resource, group): Kind, namespace: Option<&str>) -> Result<bool> {
        let attributes = ResourceAttributes {
            verb: Some(verb.to_owned()),
            resource: Some(resource.to_owned()),
            group: Some(group.to_owned()),
            namespace: namespace.map(str::to_owned),
            ..ResourceAttributes::default()
        };
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
            ..SelfSubjectAccessReview::default()
        };
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let asked =
            Request { verb: "create", resource: "selfsubjectaccessreviews.authorization.k8s.io", namespace: None };
        let params = PostParams::default();
        let reviewed = answer(asked, reviews.create(&params, &review)).await.map_err(|(_, error)| error)?;
        let status: Option<SubjectAccessReviewStatus> = reviewed.status;
        status.map(|status| status.allowed).ok_or_else(|| {
            Error::new(ErrorKind::Internal, "the API server reviewed an access without an answer: please report it")
        })
    }
}

/// What a schema of the group says of the resource type.
fn defined(document: &Value) -> Definition {
    let mut schemas = document["components"]["schemas"].as_object().into_iter().flat_map(|schemas| schemas.values());
    let is_kind = |schema: &&Value| {
        let kinds = schema["x-kubernetes-group-version-kind"].as_array();
        kinds.into_iter().flatten().any(|kind| kind["kind"] == KIND && kind["group"] == GROUP)
    };
    let Some(schema) = schemas.find(is_kind) else { return Definition::Absent };
    let keeps = |schema: &Value| schema["x-kubernetes-preserve-unknown-fields"] == true;
    let spec = &schema["properties"]["spec"];
    let data = &spec["properties"]["data"];
    if !(keeps(data) || data.is_null() && (keeps(spec) || keeps(schema))) {
        return Definition::Closed;
    }
    match data["x-kubernetes-map-type"].as_str() {
        Some("atomic") => Definition::Atomic,
        _ => Definition::Granular,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(data: Value) -> Definition {
        let schema = json!({
            "properties": { "spec": { "properties": { "data": data } } },
            "x-kubernetes-group-version-kind": [{ "group": GROUP, "kind": KIND, "version": VERSION }],
        });
        defined(&json!({ "components": { "schemas": { "other": {}, "ours": schema } } }))
    }

    #[test]
    fn the_shape_is_read_off_the_schema() {
        let free = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        assert_eq!(of(free.clone()), Definition::Granular);
        let mut atomic = free;
        atomic["x-kubernetes-map-type"] = json!("atomic");
        assert_eq!(of(atomic), Definition::Atomic);
        assert_eq!(of(json!({ "type": "object", "properties": { "endpoints": {} } })), Definition::Closed);
        assert_eq!(defined(&json!({ "components": { "schemas": {} } })), Definition::Absent);
        assert_eq!(defined(&json!(null)), Definition::Absent);
    }
}
