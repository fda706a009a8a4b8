//! Which pods, or containers, are ready: counted over objects that each tell a part of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use discovery_dynamo::layout;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// A namespace and the name of an object in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Ref {
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
}

impl Ref {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// What one object says of one resource's owner.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Claim {
    /// The name of the resource.
    pub(crate) resource: Arc<str>,
    /// The uid of the pod.
    pub(crate) uid: Arc<str>,
    pub(crate) ready: bool,
    /// A pod that is terminating never comes back.
    pub(crate) terminating: bool,
}

/// The claims of an EndpointSlice. `unknown_is_ready`: how an endpoint without `ready` counts.
pub(crate) fn of_slice(slice: &EndpointSlice, unknown_is_ready: bool) -> Vec<Claim> {
    let claims = slice.endpoints.iter().filter_map(|endpoint| {
        let target = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"))?;
        let conditions = endpoint.conditions.as_ref();
        Some(Claim {
            resource: target.name.as_deref()?.into(),
            uid: target.uid.as_deref()?.into(),
            ready: conditions.and_then(|conditions| conditions.ready).unwrap_or(unknown_is_ready),
            terminating: conditions.and_then(|conditions| conditions.terminating).unwrap_or(false),
        })
    });
    claims.collect()
}

/// The claims of a pod's containers.
pub(crate) fn of_pod(pod: &Pod) -> Vec<Claim> {
    let (Some(name), Some(uid)) = (&pod.metadata.name, &pod.metadata.uid) else { return Vec::new() };
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let status = pod.status.as_ref();
    let containers = status.iter().flat_map(|status| {
        // A sidecar is an init container that goes on running; the others are ready once they have ended.
        let sidecars = status.init_container_statuses.iter().flatten();
        let sidecars =
            sidecars.filter(|container| container.state.as_ref().is_some_and(|state| state.running.is_some()));
        status.container_statuses.iter().flatten().chain(sidecars)
    });
    let claims = containers.filter_map(|container| {
        let resource = layout::kubernetes_resource_name(name, Some(&container.name)).ok()?;
        Some(Claim { resource: resource.into(), uid: uid.as_str().into(), ready: container.ready, terminating })
    });
    claims.collect()
}

#[derive(Clone, Copy, Debug, Default)]
struct Count {
    claims: usize,
    ready: usize,
    terminating: usize,
}

/// Who is ready under each name.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    /// What each object claims.
    claims: HashMap<Ref, Vec<Claim>>,
    /// For each resource, what is claimed of each uid.
    counts: HashMap<Ref, BTreeMap<Arc<str>, Count>>,
}

impl Readiness {
    /// Takes in what `object` claims now; nothing once it is gone. Answers the resources that it spoke or speaks of.
    pub(crate) fn set(&mut self, object: &Ref, claims: Vec<Claim>) -> BTreeSet<Ref> {
        let namespace = &object.namespace;
        let before = if claims.is_empty() {
            self.claims.remove(object)
        } else {
            self.claims.insert(object.clone(), claims.clone())
        };
        let mut touched = BTreeSet::new();
        for (claim, sign) in
            claims.iter().map(|claim| (claim, true)).chain(before.iter().flatten().map(|claim| (claim, false)))
        {
            let resource = Ref { namespace: Arc::clone(namespace), name: Arc::clone(&claim.resource) };
            let uids = self.counts.entry(resource.clone()).or_default();
            let count = uids.entry(Arc::clone(&claim.uid)).or_default();
            let step = |count: &mut usize, counts: bool| match sign {
                _ if !counts => {}
                true => *count += 1,
                false => *count -= 1,
            };
            step(&mut count.claims, true);
            step(&mut count.ready, claim.ready);
            step(&mut count.terminating, claim.terminating);
            touched.insert(resource);
        }
        for resource in &touched {
            if let Some(uids) = self.counts.get_mut(resource) {
                uids.retain(|_, count| count.claims > 0);
                if uids.is_empty() {
                    self.counts.remove(resource);
                }
            }
        }
        touched
    }

    /// The objects of a namespace, or of all, that claim something.
    pub(crate) fn objects(&self, namespace: Option<&str>) -> Vec<Ref> {
        let within = |object: &&Ref| namespace.is_none_or(|namespace| *object.namespace == *namespace);
        self.claims.keys().filter(within).cloned().collect()
    }

    /// The uid that is ready under this name. None where two are: one of the objects that say so is outdated, and
    /// which one cannot be known.
    pub(crate) fn ready(&self, resource: &Ref) -> Option<&Arc<str>> {
        let uids = self.counts.get(resource)?;
        let mut ready = uids.iter().filter(|(_, count)| count.ready > 0 && count.terminating == 0);
        match (ready.next(), ready.next()) {
            (Some((uid, _)), None) => Some(uid),
            (Some(_), Some(_)) => {
                tracing::warn!(name = %resource.name, namespace = %resource.namespace, "two pods claim one name: both are hidden");
                None
            }
            (None, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(endpoints: serde_json::Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "addressType": "IPv4", "metadata": { "name": "s" }, "endpoints": endpoints,
        }))
        .unwrap()
    }

    fn endpoint(name: &str, uid: &str, conditions: serde_json::Value) -> serde_json::Value {
        json!({ "addresses": ["10.0.0.1"], "conditions": conditions,
            "targetRef": { "kind": "Pod", "name": name, "uid": uid } })
    }

    fn ready(readiness: &Readiness, name: &str) -> Option<String> {
        readiness.ready(&Ref::new("ns", name)).map(ToString::to_string)
    }

    #[test]
    fn an_endpoint_is_ready_when_it_says_so() {
        let states = json!([
            endpoint("yes", "1", json!({ "ready": true })),
            endpoint("no", "1", json!({ "ready": false })),
            endpoint("unknown", "1", json!({})),
            endpoint("going", "1", json!({ "ready": true, "terminating": true })),
            { "addresses": ["10.0.0.2"], "conditions": { "ready": true } },
            { "addresses": ["10.0.0.2"], "conditions": { "ready": true }, "targetRef": { "kind": "Node", "name": "n", "uid": "1" } },
        ]);
        for unknown_is_ready in [false, true] {
            let mut readiness = Readiness::default();
            readiness.set(&Ref::new("ns", "s"), of_slice(&slice(states.clone()), unknown_is_ready));
            let found = ["yes", "no", "unknown", "going", "n"].map(|name| ready(&readiness, name).is_some());
            assert_eq!(found, [true, false, unknown_is_ready, false, false]);
        }
    }

    #[test]
    fn an_endpoint_in_two_slices_moves_without_a_gap_and_terminates_everywhere() {
        let mut readiness = Readiness::default();
        let (one, two) = (Ref::new("ns", "one"), Ref::new("ns", "two"));
        let claims = |conditions| of_slice(&slice(json!([endpoint("a", "1", conditions)])), false);
        readiness.set(&one, claims(json!({ "ready": true })));
        readiness.set(&two, claims(json!({ "ready": true })));
        assert_eq!(ready(&readiness, "a").as_deref(), Some("1"));
        readiness.set(&one, Vec::new());
        assert_eq!(ready(&readiness, "a").as_deref(), Some("1"));
        readiness.set(&one, claims(json!({ "ready": false })));
        assert_eq!(ready(&readiness, "a").as_deref(), Some("1"), "one slice that says ready is enough");
        readiness.set(&one, claims(json!({ "ready": true, "terminating": true })));
        assert_eq!(ready(&readiness, "a"), None, "terminating counts as not ready at once");
        readiness.set(&one, Vec::new());
        readiness.set(&two, Vec::new());
        assert!(readiness.counts.is_empty() && readiness.claims.is_empty());
    }

    #[test]
    fn two_pods_of_one_name_are_hidden_until_one_is_left() {
        let mut readiness = Readiness::default();
        let claims = |uid, conditions| of_slice(&slice(json!([endpoint("a", uid, conditions)])), false);
        readiness.set(&Ref::new("ns", "one"), claims("1", json!({ "ready": true })));
        readiness.set(&Ref::new("ns", "two"), claims("2", json!({ "ready": true })));
        assert_eq!(ready(&readiness, "a"), None);
        readiness.set(&Ref::new("ns", "one"), claims("1", json!({ "ready": false, "terminating": true })));
        assert_eq!(ready(&readiness, "a").as_deref(), Some("2"));
        assert_eq!(readiness.ready(&Ref::new("other", "a")), None, "another namespace");
    }

    #[test]
    fn a_container_is_ready_as_its_pod_s_status_says() {
        let pod = |deleted: serde_json::Value| -> Pod {
            serde_json::from_value(json!({
                "metadata": { "name": "p", "uid": "1", "deletionTimestamp": deleted },
                "status": {
                    "containerStatuses": [
                        { "name": "main", "ready": true, "image": "", "imageID": "", "restartCount": 0 },
                        { "name": "engine", "ready": false, "image": "", "imageID": "", "restartCount": 0 },
                    ],
                    "initContainerStatuses": [
                        { "name": "sidecar", "ready": true, "image": "", "imageID": "", "restartCount": 0,
                            "state": { "running": {} } },
                        { "name": "setup", "ready": true, "image": "", "imageID": "", "restartCount": 0,
                            "state": { "terminated": { "exitCode": 0 } } },
                    ],
                },
            }))
            .unwrap()
        };
        let mut readiness = Readiness::default();
        readiness.set(&Ref::new("ns", "p"), of_pod(&pod(json!(null))));
        let found = ["p", "p-engine", "p-sidecar", "p-setup"].map(|name| ready(&readiness, name).is_some());
        assert_eq!(found, [true, false, true, false]);
        readiness.set(&Ref::new("ns", "p"), of_pod(&pod(json!("2026-01-01T00:00:00Z"))));
        assert_eq!(ready(&readiness, "p"), None);
    }
}
