//! The custom resource that holds a process's records, and the label that makes a pod discoverable.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};

/// The API group.
pub const GROUP: &str = "nvidia.com";
/// Its version.
pub const VERSION: &str = "v1alpha1";
/// The resource's kind.
pub const KIND: &str = "DynamoWorkerMetadata";
/// The resource's name in URLs and in rules of a Role.
pub const PLURAL: &str = "dynamoworkermetadatas";
/// The label of the EndpointSlices (through their Service), or in container mode of the pods, that are read. Its value
/// is `true`.
pub const DISCOVERY_LABEL: &str = "nvidia.com/dynamo-discovery-enabled";
/// The field manager that every writer of the resource uses, the reference included.
pub const FIELD_MANAGER: &str = "dynamo-worker";
/// The label on our resources, for people: `kubectl get dwm -l app.kubernetes.io/managed-by=discovery`.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "discovery");

/// A resource, as the API serves it.
pub(crate) type Resource = DynamicObject;

pub(crate) fn api_resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, KIND), PLURAL)
}

pub(crate) fn selector() -> String {
    format!("{DISCOVERY_LABEL}=true")
}

/// The pod that the resource belongs to: its first owner of kind Pod, as the reference reads it.
pub(crate) fn pod_owner(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.kind == "Pod")
}
