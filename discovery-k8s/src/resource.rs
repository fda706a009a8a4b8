//! The custom resource that holds a process's records, and the label that makes a pod discoverable.

use std::borrow::Cow;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::document::Data;

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

/// A resource, as the API serves it. What anybody may write into it is not read with it: one value that cannot be read, for
/// instance because `serde_json` takes no more than 127 levels, would make the whole list or event that it stands in
/// unreadable, and hide every other resource. What is passed over has no such limit.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Resource {
    #[serde(deserialize_with = "metadata")]
    pub(crate) metadata: ObjectMeta,
    spec: Option<Box<RawValue>>,
}

impl Resource {
    /// Its records; `None` where there is no map of them.
    pub(crate) fn data(&self) -> Option<Data<'_>> {
        Data::of(self.spec.as_deref()?)
    }
}

/// Whose object it is, and what holds it. Not `managedFields`, which nest as the values do.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
    owner_references: Option<Vec<OwnerReference>>,
    finalizers: Option<Vec<String>>,
}

pub(crate) fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    let Metadata { name, namespace, uid, resource_version, creation_timestamp, owner_references, finalizers } =
        Metadata::deserialize(deserializer)?;
    let none = ObjectMeta::default();
    Ok(ObjectMeta { name, namespace, uid, resource_version, creation_timestamp, owner_references, finalizers, ..none })
}

impl kube::Resource for Resource {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

pub(crate) fn selector() -> String {
    format!("{DISCOVERY_LABEL}=true")
}

/// The pod that the resource belongs to: its first owner of kind Pod, as the reference reads it.
pub(crate) fn pod_owner(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    metadata.owner_references.iter().flatten().find(|owner| owner.kind == "Pod")
}

#[cfg(test)]
mod tests {
    use kube::api::{ObjectList, WatchEvent};

    use super::*;
    use crate::source::Named;

    /// A resource with a value of so many levels, as it is stored where each leaf is managed.
    fn stored(levels: usize) -> String {
        let nested = |name: &str, inner: &str| format!("{{\"{name}\":").repeat(levels) + inner + &"}".repeat(levels);
        let (value, managed) = (nested("a", "1"), nested("f:a", "{}"));
        format!(
            r#"{{"apiVersion":"nvidia.com/v1alpha1","kind":"DynamoWorkerMetadata","metadata":{{"name":"p","namespace":"ns",
            "uid":"u","resourceVersion":"7","creationTimestamp":"2026-11-25T10:22:34Z","ownerReferences":[{{"apiVersion":
            "v1","kind":"Pod","name":"p","uid":"v"}}],"managedFields":[{{"manager":"m","fieldsV1":{{"f:spec":{{"f:data":
            {{"f:cache":{{"f:a/1":{managed}}}}}}}}}}}]}},"spec":{{"data":{{"cache":{{"a/1":{value}}}}}}}}}"#
        )
    }

    #[test]
    fn it_is_read_however_deep_it_is() {
        for levels in [1, 100, 10_000] {
            let one = stored(levels);
            let list = format!(r#"{{"kind":"List","apiVersion":"v1","metadata":{{}},"items":[{one}]}}"#);
            serde_json::from_str::<ObjectList<Named>>(&list).unwrap();
            let list: ObjectList<Resource> = serde_json::from_str(&list).unwrap();
            let event = format!(r#"{{"type":"ADDED","object":{one}}}"#);
            let Ok(WatchEvent::Added(event)) = serde_json::from_str::<WatchEvent<Resource>>(&event) else {
                panic!("{levels} levels in an event");
            };
            for read in [&list.items[0], &event] {
                assert_eq!(read.metadata.resource_version.as_deref(), Some("7"));
                assert_eq!(read.metadata.managed_fields, None);
                assert_eq!(pod_owner(&read.metadata).map(|owner| owner.uid.as_str()), Some("v"));
                assert!(read.data().is_some(), "{levels} levels");
            }
        }
    }

    #[test]
    fn what_is_no_map_is_no_data() {
        for spec in ["null", "1", r#"{"data":[]}"#, r#"{"data":null}"#, "{}"] {
            let one = format!(r#"{{"metadata":{{"name":"p"}},"spec":{spec}}}"#);
            assert!(serde_json::from_str::<Resource>(&one).unwrap().data().is_none(), "{spec}");
        }
        assert!(serde_json::from_str::<Resource>(r#"{"metadata":{}}"#).unwrap().data().is_none());
    }
}
