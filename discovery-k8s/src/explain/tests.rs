//! One broken world for each failure.

mod agreement;

use std::collections::BTreeSet;

use discovery_core::{Error, ErrorKind, Key, Result};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Explanation, Failure, Link, State};
use crate::config::Mode;
use crate::resource::DISCOVERY_LABEL;
use crate::survey::{Part, Survey};

const NS: &str = "ns";

/// What is read of a cluster, as JSON.
#[derive(Clone, Debug, Default)]
struct World {
    mode: Mode,
    unknown_is_ready: bool,
    pods: Vec<Value>,
    services: Vec<Value>,
    slices: Vec<Value>,
    resources: Vec<Value>,
}

fn part<K: DeserializeOwned>(objects: &[Value]) -> Part<K> {
    let objects = objects.iter().map(|object| serde_json::from_value(object.clone()).expect("an object"));
    Part { objects: objects.collect(), unread: Vec::new() }
}

/// Values that say so cannot be read.
fn decode(key: &Key, value: &[u8]) -> Result<()> {
    match value.windows(3).any(|part| part == b"bad") {
        true => Err(Error::new(ErrorKind::InvalidValue, "no such thing").with_key(key)),
        false => Ok(()),
    }
}

impl World {
    fn survey(&self) -> Survey {
        Survey {
            namespaces: vec![NS.to_owned()],
            mode: self.mode,
            unknown_is_ready: self.unknown_is_ready,
            services: part(&self.services),
            slices: part(&self.slices),
            pods: part(&self.pods),
            resources: part(&self.resources),
        }
    }

    fn explain(&self) -> Explanation {
        let explained = self.survey().explain("p", decode);
        assert_eq!(explained.len(), 1, "{explained:?}");
        explained.into_iter().next().unwrap()
    }
}

fn metadata(name: &str, uid: &str, labels: Value) -> Value {
    json!({ "name": name, "namespace": NS, "uid": uid, "labels": labels })
}

fn discoverable() -> Value {
    json!({ DISCOVERY_LABEL: "true" })
}

fn pod() -> Value {
    let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
    json!({
        "metadata": metadata("p", "1", json!({ "app": "a", DISCOVERY_LABEL: "true" })),
        "spec": { "nodeName": "n", "containers": [{ "name": "main", "env": [
            { "name": "POD_NAME", "valueFrom": field("metadata.name") },
            { "name": "POD_UID", "valueFrom": field("metadata.uid") },
            { "name": "POD_NAMESPACE", "valueFrom": field("metadata.namespace") },
        ] }] },
        "status": { "phase": "Running", "podIP": "10.0.0.1", "containerStatuses": [
            { "name": "main", "ready": true, "image": "", "imageID": "", "restartCount": 0, "state": { "running": {} } },
        ] },
    })
}

fn service(name: &str) -> Value {
    json!({ "metadata": metadata(name, "s", discoverable()), "spec": { "selector": { "app": "a" } } })
}

fn slice(name: &str, uid: &str, conditions: Value) -> Value {
    json!({
        "metadata": metadata(name, "e", discoverable()),
        "addressType": "IPv4",
        "endpoints": [{
            "addresses": ["10.0.0.1"],
            "conditions": conditions,
            "targetRef": { "kind": "Pod", "name": "p", "namespace": NS, "uid": uid },
        }],
    })
}

fn resource(name: &str, owner: &str, uid: &str) -> Value {
    let mut metadata = metadata(name, "r", json!({}));
    metadata["ownerReferences"] = json!([{ "apiVersion": "v1", "kind": "Pod", "name": owner, "uid": uid }]);
    let data = json!({ "endpoints": { "a/b/c/2a": { "n": 1 } }, "cache": { "x/2b": { "n": 2 } } });
    json!({ "apiVersion": "nvidia.com/v1alpha1", "kind": "DynamoWorkerMetadata", "metadata": metadata, "spec": { "data": data } })
}

/// A pod that is discovered.
fn world(mode: Mode) -> World {
    World {
        mode,
        unknown_is_ready: false,
        pods: vec![pod()],
        services: vec![service("s")],
        slices: vec![slice("s-1", "1", json!({ "ready": true }))],
        resources: vec![resource("p", "p", "1")],
    }
}

fn set(object: &mut Value, pointer: &str, value: Value) {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}"));
    match value {
        Value::Null => drop(parent.as_object_mut().unwrap().remove(name)),
        value => parent[name] = value,
    }
}

fn unlabelled(object: &mut Value) {
    object["metadata"]["labels"].as_object_mut().unwrap().remove(DISCOVERY_LABEL);
}

type Case = (Failure, Link, State, Mode, fn(&mut World), &'static str);

/// For each failure at least one world, where it is told, and a word of what is told.
const CASES: &[Case] = &[
    (Failure::NoSuchPod, Link::Pod, State::Breaks, Mode::Pod, |w| *w = World::default(), "check the name"),
    (
        Failure::NoSuchPod,
        Link::Pod,
        State::Breaks,
        Mode::Pod,
        |w| {
            w.pods.clear();
            w.slices.clear()
        },
        "delete dwm p",
    ),
    (
        Failure::NoSuchPod,
        Link::Pod,
        State::Breaks,
        Mode::Pod,
        |w| {
            w.pods[0]["metadata"]["name"] = json!("p-12");
            w.slices.clear();
            w.resources.clear();
        },
        "name one that is there: p-12",
    ),
    (Failure::NoSuchPod, Link::Pod, State::Warns, Mode::Pod, |w| w.pods.clear(), "no pod p"),
    (
        Failure::Terminating,
        Link::Pod,
        State::Breaks,
        Mode::Pod,
        |w| {
            set(&mut w.pods[0], "/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z"));
            w.slices.clear();
        },
        "being deleted",
    ),
    (
        Failure::Terminating,
        Link::Pod,
        State::Breaks,
        Mode::Container,
        |w| {
            set(&mut w.pods[0], "/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z"));
        },
        "being deleted",
    ),
    (
        Failure::Terminating,
        Link::Ready,
        State::Breaks,
        Mode::Pod,
        |w| {
            w.slices.push(slice("s-2", "1", json!({ "ready": true, "terminating": true })));
        },
        "s-2 says that it is terminating",
    ),
    (
        Failure::PodFinished,
        Link::Pod,
        State::Breaks,
        Mode::Pod,
        |w| {
            set(&mut w.pods[0], "/status/phase", json!("Failed"));
            set(&mut w.pods[0], "/status/reason", json!("Evicted"));
            w.slices.clear();
        },
        "Evicted",
    ),
    (
        Failure::NotScheduled,
        Link::Pod,
        State::Breaks,
        Mode::Pod,
        |w| {
            set(&mut w.pods[0], "/spec/nodeName", json!(null));
            w.slices.clear();
            set(
                &mut w.pods[0],
                "/status/conditions",
                json!([{ "type": "PodScheduled", "status": "False", "message": "0/3 nodes" }]),
            );
        },
        "0/3 nodes",
    ),
    (
        Failure::NoAddress,
        Link::Pod,
        State::Breaks,
        Mode::Pod,
        |w| {
            set(&mut w.pods[0], "/status/podIP", json!(null));
            w.slices.clear();
            w.pods[0]["status"]["containerStatuses"][0]["ready"] = json!(false);
            w.pods[0]["status"]["containerStatuses"][0]["state"] =
                json!({ "waiting": { "reason": "ImagePullBackOff" } });
        },
        "container main waits: ImagePullBackOff",
    ),
    (
        Failure::NoService,
        Link::Service,
        State::Breaks,
        Mode::Pod,
        |w| {
            w.services.clear();
            w.slices.clear()
        },
        "discovery inject",
    ),
    (Failure::NoService, Link::Service, State::Warns, Mode::Pod, |w| w.services.clear(), "no Service"),
    (
        Failure::ServiceWithoutLabel,
        Link::Service,
        State::Breaks,
        Mode::Pod,
        |w| {
            unlabelled(&mut w.services[0]);
            w.slices.clear()
        },
        "no such label",
    ),
    (
        Failure::ServiceWithoutLabel,
        Link::Service,
        State::Breaks,
        Mode::Pod,
        |w| {
            w.services[0]["metadata"]["labels"][DISCOVERY_LABEL] = json!("True");
            w.slices.clear();
        },
        "the value \"True\"",
    ),
    (
        Failure::SelectsOthers,
        Link::Selector,
        State::Breaks,
        Mode::Pod,
        |w| {
            w.services[0]["spec"]["selector"] = json!({ "app": "b" });
            w.slices.clear();
        },
        "s selects app=b, and the pod has app=a",
    ),
    (
        Failure::SelectsOthers,
        Link::Selector,
        State::Breaks,
        Mode::Pod,
        |w| {
            w.services[0]["spec"]["selector"] = json!({});
            w.slices.clear();
        },
        "an empty selector",
    ),
    (
        Failure::PublishesNotReady,
        Link::Service,
        State::Warns,
        Mode::Pod,
        |w| {
            w.services[0]["spec"]["publishNotReadyAddresses"] = json!(true);
        },
        "before they are ready",
    ),
    (Failure::NotInSlice, Link::Slice, State::Breaks, Mode::Pod, |w| w.slices.clear(), "kubectl get nodes"),
    (
        Failure::SliceWithoutLabel,
        Link::Slice,
        State::Breaks,
        Mode::Pod,
        |w| unlabelled(&mut w.slices[0]),
        "s-1 holds the pod",
    ),
    (
        Failure::SliceNamesNoPod,
        Link::Slice,
        State::Breaks,
        Mode::Pod,
        |w| set(&mut w.slices[0], "/endpoints/0/targetRef", json!(null)),
        "targetRef",
    ),
    (
        Failure::NotReady,
        Link::Ready,
        State::Breaks,
        Mode::Pod,
        |w| {
            w.slices[0]["endpoints"][0]["conditions"] = json!({ "ready": false });
            w.pods[0]["status"]["containerStatuses"][0]["ready"] = json!(false);
            w.pods[0]["status"]["containerStatuses"][0]["restartCount"] = json!(3);
        },
        "readiness probe does not pass, restarted 3 times",
    ),
    (
        Failure::NotReady,
        Link::Ready,
        State::Breaks,
        Mode::Pod,
        |w| {
            w.slices[0]["endpoints"][0]["conditions"] = json!({ "ready": false });
            w.pods[0]["spec"]["readinessGates"] = json!([{ "conditionType": "x.io/gate" }]);
        },
        "x.io/gate is not True",
    ),
    (
        Failure::NotReady,
        Link::Ready,
        State::Breaks,
        Mode::Container,
        |w| {
            w.pods[0]["status"]["containerStatuses"][0]["ready"] = json!(false);
            w.pods[0]["status"]["containerStatuses"][0]["started"] = json!(false);
        },
        "startup probe",
    ),
    (
        Failure::ReadinessUnknown,
        Link::Ready,
        State::Breaks,
        Mode::Pod,
        |w| w.slices[0]["endpoints"][0]["conditions"] = json!({}),
        "counts as not ready",
    ),
    (
        Failure::AnotherUid,
        Link::Uid,
        State::Breaks,
        Mode::Pod,
        |w| w.slices[0] = slice("s-1", "0", json!({ "ready": true })),
        "an earlier pod",
    ),
    (
        Failure::TwoUids,
        Link::Uid,
        State::Breaks,
        Mode::Pod,
        |w| w.slices.push(slice("s-2", "2", json!({ "ready": true }))),
        "1 and 2",
    ),
    (Failure::PodWithoutLabel, Link::Label, State::Breaks, Mode::Container, |w| unlabelled(&mut w.pods[0]), "no label"),
    (
        Failure::NoSuchContainer,
        Link::Ready,
        State::Breaks,
        Mode::Container,
        |w| set(&mut w.pods[0], "/status/containerStatuses", json!(null)),
        "no status yet",
    ),
    (Failure::NoResource, Link::Resource, State::Breaks, Mode::Pod, |w| w.resources.clear(), "kubectl -n ns logs p"),
    (
        Failure::NoResource,
        Link::Resource,
        State::Breaks,
        Mode::Pod,
        |w| {
            w.resources.clear();
            w.pods[0]["spec"]["containers"][0]["env"] = json!([{ "name": "POD_NAME" }]);
        },
        "POD_UID, POD_NAMESPACE missing",
    ),
    (
        Failure::NoResource,
        Link::Resource,
        State::Breaks,
        Mode::Container,
        |w| {
            w.resources.clear();
            w.pods[0]["spec"]["containers"][0]["env"] = json!([{ "name": "DYN_DISCOVERY_BACKEND", "value": "etcd" }]);
        },
        "uses the backend etcd",
    ),
    (
        Failure::NoResource,
        Link::Resource,
        State::Breaks,
        Mode::Pod,
        |w| {
            w.resources.clear();
            w.pods[0]["spec"]["automountServiceAccountToken"] = json!(false);
        },
        "no token",
    ),
    (
        Failure::OtherMode,
        Link::Resource,
        State::Breaks,
        Mode::Pod,
        |w| w.resources[0] = resource("p-engine", "p", "1"),
        "container mode",
    ),
    (
        Failure::OtherMode,
        Link::Resource,
        State::Breaks,
        Mode::Container,
        |w| {
            w.pods[0]["spec"]["containers"][0]["name"] = json!("engine");
            w.pods[0]["status"]["containerStatuses"][0]["name"] = json!("engine");
        },
        "pod mode",
    ),
    (
        Failure::NoOwner,
        Link::Owner,
        State::Breaks,
        Mode::Pod,
        |w| w.resources[0]["metadata"]["ownerReferences"] = json!([]),
        "delete dwm p",
    ),
    (
        Failure::AnotherOwner,
        Link::Owner,
        State::Breaks,
        Mode::Pod,
        |w| w.resources[0] = resource("p", "p", "0"),
        "an earlier pod of this name",
    ),
    (
        Failure::AnotherOwner,
        Link::Owner,
        State::Breaks,
        Mode::Pod,
        |w| w.resources[0] = resource("p", "q", "7"),
        "check its POD_NAME",
    ),
    (
        Failure::InvalidData,
        Link::Entries,
        State::Breaks,
        Mode::Pod,
        |w| w.resources[0]["spec"]["data"] = json!([]),
        "no map",
    ),
    (
        Failure::NoEntries,
        Link::Entries,
        State::Breaks,
        Mode::Pod,
        |w| w.resources[0]["spec"]["data"] = json!({ "endpoints": null }),
        "withdrawn",
    ),
    (
        Failure::UnreadableEntries,
        Link::Entries,
        State::Breaks,
        Mode::Pod,
        |w| w.resources[0]["spec"]["data"] = json!({ "endpoints": { "a": {} } }),
        "endpoints/a",
    ),
    (
        Failure::UnreadableEntries,
        Link::Entries,
        State::Warns,
        Mode::Pod,
        |w| w.resources[0]["spec"]["data"]["endpoints"]["a"] = json!({}),
        "endpoints/a",
    ),
    (
        Failure::Undecodable,
        Link::Decoded,
        State::Breaks,
        Mode::Pod,
        |w| w.resources[0]["spec"]["data"] = json!({ "cache": { "x/2b": "bad" } }),
        "1 of 1",
    ),
    (
        Failure::Undecodable,
        Link::Decoded,
        State::Warns,
        Mode::Pod,
        |w| w.resources[0]["spec"]["data"]["cache"]["x/2b"] = json!("bad"),
        "1 of 3",
    ),
];

#[test]
fn each_failure_is_told_where_it_is_with_what_to_do() {
    for (failure, link, state, mode, broken, word) in CASES {
        let mut world = world(*mode);
        // A second record that stays readable.
        world.resources[0]["spec"]["data"]["cache"]["y/2b"] = json!({ "n": 3 });
        broken(&mut world);
        let explained = world.explain();
        let told = explained.steps.iter().find(|step| step.failure == Some(*failure));
        let told = told.unwrap_or_else(|| panic!("{failure:?} is not told: {explained:#?}"));
        assert_eq!((told.link, told.state), (*link, *state), "{failure:?}: {told:?}");
        assert!(told.text.contains(word) || told.advice.contains(word), "{failure:?}, {word:?}: {told:?}");
        assert!(!told.advice.is_empty() && !told.advice.contains('\n') && !told.text.contains('\n'), "{told:?}");
        assert_eq!(explained.is_discovered(), *state == State::Warns, "{failure:?}: {explained:#?}");
        let broken: Vec<_> = explained.breaks().map(|step| step.failure).collect();
        assert!(broken.iter().all(|one| *one == Some(*failure)), "{failure:?}: {broken:?}");
    }
}

#[test]
fn a_pod_that_is_discovered_has_every_link() {
    let all = |mode, links: &[Link]| {
        let explained = world(mode).explain();
        assert_eq!(explained.records.len(), 2, "{explained:#?}");
        assert!(explained.steps.iter().all(|step| step.state == State::Holds), "{explained:#?}");
        assert_eq!(explained.steps.iter().map(|step| step.link).collect::<Vec<_>>(), links);
    };
    let records = [Link::Resource, Link::Owner, Link::Entries, Link::Decoded];
    let by_pod = [Link::Pod, Link::Service, Link::Selector, Link::Slice, Link::Ready, Link::Uid];
    all(Mode::Pod, &[&by_pod[..], &records].concat());
    all(Mode::Container, &[&[Link::Pod, Link::Label, Link::Ready], &records[..]].concat());
}

#[test]
fn every_failure_has_a_world_above_and_a_paragraph_in_the_manual() {
    let mut told: BTreeSet<Failure> = CASES.iter().map(|(failure, ..)| *failure).collect();
    // These have tests of their own.
    told.extend([Failure::NoDefinition, Failure::IdCollision, Failure::KeyTaken]);
    let all: BTreeSet<Failure> = Failure::ALL.iter().copied().collect();
    assert_eq!(told, all);
    let manual = include_str!("../../../docs/kubernetes.md");
    for failure in all {
        let heading = format!("\n### {}\n", failure.as_str());
        assert!(manual.contains(&heading), "docs/kubernetes.md lacks {heading:?}");
    }
}
