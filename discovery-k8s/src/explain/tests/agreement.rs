//! Worlds of which only a part can be read, of several pods, and random ones, in which explanations say what the join shows.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::readiness::Ref;
use crate::survey::Unread;

fn refused(is_absent: bool) -> Unread {
    let error = Error::new(ErrorKind::PermissionDenied, "not allowed");
    Unread { namespace: Some(NS.to_owned()), is_absent, error }
}

#[test]
fn a_cluster_without_the_type_is_told_from_one_that_may_not_be_read() {
    let mut survey = world(Mode::Pod).survey();
    survey.resources = Part { objects: Vec::new(), unread: vec![refused(true)] };
    let explained = &survey.explain("p", decode)[0];
    assert_eq!(explained.breaks().map(|step| step.failure).collect::<Vec<_>>(), [Some(Failure::NoDefinition)]);
    assert!(explained.steps.last().unwrap().advice.contains("discovery crd"), "{explained:#?}");
    survey.resources = Part { objects: Vec::new(), unread: vec![refused(false)] };
    let explained = &survey.explain("p", decode)[0];
    assert_eq!(explained.steps.last().unwrap().state, State::Unknown);
}

/// As a worker's own identity, which reads slices and resources and none of the rest.
#[test]
fn what_may_not_be_read_is_unknown_and_the_walk_goes_on() {
    let mut survey = world(Mode::Pod).survey();
    survey.pods = Part { objects: Vec::new(), unread: vec![refused(false)] };
    survey.services = Part { objects: Vec::new(), unread: vec![refused(false)] };
    let states = |survey: &Survey| -> Vec<(Link, State)> {
        survey.explain("p", decode)[0].steps.iter().map(|step| (step.link, step.state)).collect()
    };
    let found = states(&survey);
    assert_eq!(found[..2], [(Link::Pod, State::Unknown), (Link::Service, State::Unknown)]);
    assert!(survey.explain("p", decode)[0].is_discovered(), "{found:?}");
    survey.resources = part(&[resource("p", "p", "2")]);
    assert!(states(&survey).contains(&(Link::Owner, State::Breaks)), "{:?}", states(&survey));
}

#[test]
fn one_name_in_two_namespaces_is_a_collision_and_one_key_in_two_resources_is_told() {
    let mut twice = world(Mode::Pod);
    let elsewhere = |object: &Value| {
        let mut object = object.clone();
        object["metadata"]["namespace"] = json!("other");
        object
    };
    for list in [&mut twice.pods, &mut twice.services, &mut twice.slices, &mut twice.resources] {
        list.push(elsewhere(&list[0]));
    }
    let explained = twice.survey().explain("p", decode);
    assert_eq!(explained.iter().map(|one| one.namespace.as_str()).collect::<Vec<_>>(), [NS, "other"]);
    for one in explained {
        assert_eq!(one.breaks().map(|step| step.failure).collect::<Vec<_>>(), [Some(Failure::IdCollision)]);
    }

    let mut taken = world(Mode::Pod);
    let renamed = |text: &Value| {
        serde_json::from_str::<Value>(&text.to_string().replace("\"p\"", "\"a\"").replace("\"1\"", "\"9\"")).unwrap()
    };
    for list in [&mut taken.pods, &mut taken.slices, &mut taken.resources] {
        list.push(renamed(&list[0]));
    }
    taken.slices[1]["metadata"]["name"] = json!("s-2");
    let explained = taken.explain();
    let told: BTreeSet<_> = explained.steps.iter().filter_map(|step| step.failure).collect();
    assert_eq!(told, BTreeSet::from([Failure::KeyTaken]), "{explained:#?}");
}

#[test]
fn all_that_takes_part_is_explained() {
    let named = |world: &World| -> Vec<String> {
        let all = world.survey().explain_all(decode);
        all.into_iter().map(|one| one.container.map_or(one.pod.clone(), |name| format!("{}/{name}", one.pod))).collect()
    };
    let mut all = world(Mode::Pod);
    let mut idle = pod();
    (idle["metadata"]["name"], idle["metadata"]["labels"]) = (json!("idle"), json!({}));
    let mut selected = idle.clone();
    (selected["metadata"]["name"], selected["metadata"]["labels"]) = (json!("selected"), json!({ "app": "a" }));
    all.pods.extend([idle, selected]);
    all.resources.push(resource("orphan", "orphan", "0"));
    all.resources.push(resource("selected-engine", "selected", "1"));
    assert_eq!(named(&all), ["orphan", "p", "selected"]);

    let mut all = world(Mode::Container);
    all.pods[0]["spec"]["containers"] = json!([{ "name": "main" }, { "name": "engine" }, { "name": "proxy" }]);
    all.resources.push(resource("p-engine", "p", "1"));
    all.resources.push(resource("p-gone", "p", "0"));
    assert_eq!(named(&all), ["p/main", "p/engine", "p/gone"]);
    all.resources.clear();
    assert_eq!(named(&all), ["p/main", "p/engine", "p/proxy"], "none has stored anything");
}

/// Random worlds around the one that is discovered.
fn any_world() -> impl Strategy<Value = World> {
    let uid = || prop::sample::select(vec!["1", "2"]);
    let maybe = || prop::sample::select(vec![json!(true), json!(false), json!(null)]);
    let slices = prop::collection::vec((uid(), maybe(), maybe(), any::<bool>(), any::<bool>()), 0..3);
    let slices = slices.prop_map(|slices| {
        let one = |(number, (uid, ready, terminating, labelled, named)): (usize, (&str, Value, Value, bool, bool))| {
            let mut one = slice(&format!("s-{number}"), uid, json!({ "ready": ready, "terminating": terminating }));
            if !labelled {
                unlabelled(&mut one);
            }
            if !named {
                set(&mut one, "/endpoints/0/targetRef", json!(null));
            }
            one
        };
        slices.into_iter().enumerate().map(one).collect::<Vec<_>>()
    });
    let resources = prop::collection::vec((prop::sample::select(vec!["p", "p-main", "q"]), uid(), any::<bool>()), 0..3);
    let resources = resources.prop_map(|resources| {
        let one = |(name, uid, valid): (&str, &str, bool)| {
            let mut one = resource(name, "p", uid);
            if !valid {
                one["spec"]["data"] = json!("no document");
            }
            one
        };
        let named: BTreeMap<&str, _> = resources.into_iter().map(|one| (one.0, one)).collect();
        named.into_values().map(one).collect::<Vec<_>>()
    });
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let pods = prop::option::of(flags).prop_map(|pods| {
        let one = |(labelled, ready, ending, placed, selected, cut_off): (bool, bool, bool, bool, bool, bool)| {
            let mut one = pod();
            if cut_off {
                one["status"]["conditions"] = json!([
                    { "type": "ContainersReady", "status": "True" },
                    { "type": "Ready", "status": "False" },
                ]);
            }
            if !labelled {
                unlabelled(&mut one);
            }
            if ending {
                one["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            if !placed {
                set(&mut one, "/spec/nodeName", json!(null));
            }
            if !selected {
                one["metadata"]["labels"]["app"] = json!("b");
            }
            one["status"]["containerStatuses"][0]["ready"] = json!(ready);
            one
        };
        pods.map(one).into_iter().collect::<Vec<_>>()
    });
    let services = prop::collection::vec(any::<bool>(), 0..2).prop_map(|labelled| {
        let one = |labelled: bool| {
            let mut one = service("s");
            if !labelled {
                unlabelled(&mut one);
            }
            one
        };
        labelled.into_iter().map(one).collect::<Vec<_>>()
    });
    let modes = prop::sample::select(vec![Mode::Pod, Mode::Container]);
    (modes, any::<bool>(), pods, services, slices, resources).prop_map(
        |(mode, unknown_is_ready, pods, services, slices, resources)| World {
            mode,
            unknown_is_ready,
            pods,
            services,
            slices,
            resources,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// What is shown is explained as discovered, with no broken link; what is not has one.
    #[test]
    fn an_explanation_says_what_the_join_shows(world in any_world()) {
        let survey = world.survey();
        let join = crate::explain::index::Index::new(&survey).join;
        for one in survey.explain("p", |_, _| Ok(())).iter().chain(&survey.explain_all(|_, _| Ok(()))) {
            let shown = join.shown(&Ref::new(&one.namespace, &one.resource));
            let shown = shown.map_or(0, |document| document.entries.keys().filter(|key| {
                join.holder(key).is_some_and(|holder| *holder.name == *one.resource)
            }).count());
            prop_assert_eq!(one.records.len(), shown, "{:#?}", one);
            let breaks = one.breaks().count();
            prop_assert!(breaks <= 2, "{:#?}", one);
            let taken = one.steps.iter().any(|step| step.failure == Some(Failure::KeyTaken));
            prop_assert_eq!(one.is_discovered(), breaks == 0 && !(taken && shown == 0), "{:#?}", one);
        }
    }
}
