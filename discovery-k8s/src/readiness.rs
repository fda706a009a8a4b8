//! Which pods, or containers, are ready: counted over objects that each tell a part of it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
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

    /// Whether it is in a namespace, or in any.
    pub(crate) fn is_within(&self, namespace: Option<&str>) -> bool {
        namespace.is_none_or(|namespace| *self.namespace == *namespace)
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

/// Whether a pod is marked not ready though its containers are and none of its gates is closed. So the node controller marks
/// those of a node that it does not hear of, whose containers' states stay what they were.
pub(crate) fn is_cut_off(pod: &Pod) -> bool {
    let is = |name: &str, wanted: &str| {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        conditions.into_iter().any(|condition| condition.type_ == name && condition.status == wanted)
    };
    let gates = || pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    is("ContainersReady", "True") && is("Ready", "False") && gates().all(|gate| is(&gate.condition_type, "True"))
}

/// The claims of a pod's containers.
pub(crate) fn of_pod(pod: &Pod) -> Vec<Claim> {
    let (Some(name), Some(uid)) = (&pod.metadata.name, &pod.metadata.uid) else { return Vec::new() };
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let cut_off = is_cut_off(pod);
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
        let ready = container.ready && !cut_off;
        Some(Claim { resource: resource.into(), uid: uid.as_str().into(), ready, terminating })
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
    /// Names under which two uids are ready.
    disputed: HashSet<Ref>,
    /// Whether an owner whose last claim is gone is waited for.
    is_patient: bool,
    /// Those that are: the uid, which counts as ready meanwhile, and the step in which its claim went.
    missing: HashMap<Ref, (Arc<str>, u64)>,
    /// The last step in which one went.
    step: u64,
}

impl Readiness {
    /// Whose owners go from object to object, as endpoints do that are dealt out over slices anew. The slices are written
    /// one after the other: an owner may be taken out of one before it is put into another (KEY 7).
    pub(crate) fn patient() -> Self {
        Self { is_patient: true, ..Self::default() }
    }

    /// Takes in what `object` claims now; nothing once it is gone. Answers the resources that it spoke or speaks of.
    pub(crate) fn set(&mut self, object: &Ref, claims: Vec<Claim>) -> BTreeSet<Ref> {
        let namespace = &object.namespace;
        let owners = self.owners(object);
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
                } else {
                    self.missing.remove(resource);
                }
            }
            if self.is_newly_disputed(resource) {
                tracing::warn!(name = %resource.name, namespace = %resource.namespace, "two pods claim one name: both are hidden");
            }
        }
        self.miss(owners);
        touched
    }

    /// Who is ready of those that an object speaks of, where these are waited for. Nobody where two are: both are hidden.
    fn owners(&self, object: &Ref) -> Vec<(Ref, Arc<str>)> {
        let claims = self.claims.get(object).filter(|_| self.is_patient).into_iter().flatten();
        let owners = claims.filter_map(|claim| {
            let resource = Ref { namespace: Arc::clone(&object.namespace), name: Arc::clone(&claim.resource) };
            let uid = Arc::clone(self.ready(&resource)?);
            Some((resource, uid))
        });
        owners.collect()
    }

    /// Remembers those who were ready, and under whose name nothing at all is said any more.
    fn miss(&mut self, owners: Vec<(Ref, Arc<str>)>) {
        self.step += 1;
        for (resource, uid) in owners {
            if !self.counts.contains_key(&resource) {
                self.missing.insert(resource, (uid, self.step));
            }
        }
    }

    /// The last step after which an owner is waited for, of a namespace or of all.
    pub(crate) fn missing(&self, namespace: Option<&str>) -> Option<u64> {
        let missing = self.missing.iter().filter(|(resource, _)| resource.is_within(namespace));
        missing.map(|(_, (_, step))| *step).max()
    }

    /// Waits no longer for those of a namespace, or of all, who went missing up to this step. Answers their resources.
    pub(crate) fn give_up(&mut self, namespace: Option<&str>, step: u64) -> BTreeSet<Ref> {
        let given_up =
            self.missing.extract_if(|resource, (_, missing)| *missing <= step && resource.is_within(namespace));
        given_up.map(|(resource, _)| resource).collect()
    }

    /// Whether a dispute has begun. One that lasts is told once.
    fn is_newly_disputed(&mut self, resource: &Ref) -> bool {
        if self.all_ready(resource).nth(1).is_some() {
            return self.disputed.insert(resource.clone());
        }
        self.disputed.remove(resource);
        false
    }

    /// The uids that are ready under this name.
    fn all_ready(&self, resource: &Ref) -> impl Iterator<Item = &Arc<str>> {
        let uids = self.counts.get(resource).into_iter().flatten();
        uids.filter(|(_, count)| count.ready > 0 && count.terminating == 0).map(|(uid, _)| uid)
    }

    /// The objects of a namespace, or of all, that claim something.
    pub(crate) fn objects(&self, namespace: Option<&str>) -> Vec<Ref> {
        self.claims.keys().filter(|object| object.is_within(namespace)).cloned().collect()
    }

    /// The uid that is ready under this name. None where two are: one of the objects that say so is outdated, and
    /// which one cannot be known.
    pub(crate) fn ready(&self, resource: &Ref) -> Option<&Arc<str>> {
        if let Some((uid, _)) = self.missing.get(resource) {
            return Some(uid);
        }
        let mut ready = self.all_ready(resource);
        ready.next().filter(|_| ready.next().is_none())
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
    fn an_endpoint_that_is_in_no_slice_for_a_moment_is_waited_for() {
        let mut readiness = Readiness::patient();
        let (one, two) = (Ref::new("ns", "one"), Ref::new("ns", "two"));
        let claims = |uid, conditions| of_slice(&slice(json!([endpoint("a", uid, conditions)])), false);
        let is_ready = json!({ "ready": true });
        readiness.set(&one, claims("1", is_ready.clone()));
        assert_eq!(readiness.missing(None), None);
        readiness.set(&one, Vec::new());
        assert_eq!(ready(&readiness, "a").as_deref(), Some("1"));
        let first = readiness.missing(None).unwrap();
        readiness.set(&two, claims("1", is_ready.clone()));
        assert_eq!((readiness.missing(None), ready(&readiness, "a").as_deref()), (None, Some("1")), "it has come");

        readiness.set(&two, Vec::new());
        assert!(readiness.give_up(None, first).is_empty(), "that one was waited for long ago");
        let step = readiness.missing(None).unwrap();
        assert!(readiness.give_up(Some("other"), step).is_empty() && readiness.missing(Some("other")).is_none());
        assert_eq!(readiness.give_up(Some("ns"), step), BTreeSet::from([Ref::new("ns", "a")]));
        assert_eq!((readiness.missing(None), ready(&readiness, "a")), (None, None));

        // Whatever else is said of the name decides, and who was not ready is nobody to wait for.
        for said in [claims("1", json!({ "ready": false })), claims("2", is_ready.clone())] {
            readiness.set(&one, claims("1", is_ready.clone()));
            readiness.set(&one, said.clone());
            assert_eq!(ready(&readiness, "a"), said[0].ready.then(|| "2".to_owned()));
            readiness.set(&one, claims("1", is_ready.clone()));
            readiness.set(&one, Vec::new());
            readiness.set(&two, said.clone());
            assert_eq!(ready(&readiness, "a"), said[0].ready.then(|| "2".to_owned()));
            readiness.set(&two, Vec::new());
            readiness.give_up(None, u64::MAX);
        }
        // Nor is one of two, of which it cannot be known who it was.
        let two_of_one_name = [endpoint("a", "1", is_ready.clone()), endpoint("a", "2", is_ready.clone())];
        readiness.set(&one, of_slice(&slice(json!(two_of_one_name)), false));
        readiness.set(&one, Vec::new());
        assert_eq!((readiness.missing(None), ready(&readiness, "a")), (None, None));
        for conditions in [json!({ "ready": false }), json!({ "ready": true, "terminating": true })] {
            readiness.set(&one, claims("1", conditions));
            readiness.set(&one, Vec::new());
            assert_eq!((readiness.missing(None), ready(&readiness, "a")), (None, None));
        }
        assert!(readiness.counts.is_empty() && readiness.claims.is_empty());
    }

    #[test]
    fn two_pods_of_one_name_are_hidden_until_one_is_left() {
        let mut readiness = Readiness::default();
        let claims = |uid, conditions| of_slice(&slice(json!([endpoint("a", uid, conditions)])), false);
        readiness.set(&Ref::new("ns", "one"), claims("1", json!({ "ready": true })));
        readiness.set(&Ref::new("ns", "two"), claims("2", json!({ "ready": true })));
        assert_eq!(ready(&readiness, "a"), None);
        let name = Ref::new("ns", "a");
        assert!(readiness.disputed.contains(&name) && !readiness.is_newly_disputed(&name), "told once");
        readiness.set(&Ref::new("ns", "one"), claims("1", json!({ "ready": false, "terminating": true })));
        assert_eq!(ready(&readiness, "a").as_deref(), Some("2"));
        assert!(readiness.disputed.is_empty());
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

    #[test]
    fn a_container_whose_node_is_not_heard_of_is_not_ready() {
        let pod = |containers: &str, all: Option<&str>, gate: Option<&str>| -> Pod {
            let condition = |name: &str, status: &str| json!({ "type": name, "status": status });
            let conditions = [("ContainersReady", Some(containers)), ("Ready", all), ("gate", gate)];
            let conditions = conditions.into_iter().filter_map(|(name, status)| Some(condition(name, status?)));
            let gates = gate.map(|_| json!([{ "conditionType": "gate" }]));
            serde_json::from_value(json!({
                "metadata": { "name": "p", "uid": "1" },
                "spec": { "containers": [], "readinessGates": gates },
                "status": {
                    "conditions": conditions.collect::<Vec<_>>(),
                    "containerStatuses": [{ "name": "main", "ready": true, "image": "", "imageID": "", "restartCount": 0 }],
                },
            }))
            .unwrap()
        };
        for (pod, expected) in [
            (pod("True", Some("False"), None), false),
            (pod("True", Some("False"), Some("True")), false),
            // The kubelet's word: the pod waits for its gate, or for another container.
            (pod("True", Some("False"), Some("False")), true),
            (pod("False", Some("False"), None), true),
            (pod("True", Some("True"), None), true),
        ] {
            let mut readiness = Readiness::default();
            readiness.set(&Ref::new("ns", "p"), of_pod(&pod));
            assert_eq!(ready(&readiness, "p").is_some(), expected, "{pod:?}");
        }
    }
}
