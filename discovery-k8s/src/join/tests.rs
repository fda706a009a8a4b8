//! The join against a model that works everything out anew after each step.

use std::collections::BTreeMap;

use discovery_core::Path;
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

const NAMES: [&str; 3] = ["a", "b", "c"];
const SPACES: [&str; 2] = ["one", "two"];

/// The objects of both sides, as a cluster would hold them.
#[derive(Clone, Debug, Default)]
struct Cluster {
    records: BTreeMap<Ref, Stored>,
    /// Per resource, what it held when it was last a document.
    last_good: BTreeMap<Ref, (Arc<str>, Arc<Document>)>,
    slices: BTreeMap<Ref, Vec<Claim>>,
}

impl Cluster {
    fn ready(&self, resource: &Ref) -> Option<Arc<str>> {
        let here = self.slices.iter().filter(|(slice, _)| slice.namespace == resource.namespace);
        let claims: Vec<_> =
            here.flat_map(|(_, claims)| claims).filter(|claim| claim.resource == resource.name).collect();
        let going: BTreeSet<_> = claims.iter().filter(|claim| claim.terminating).map(|claim| &claim.uid).collect();
        let ready: BTreeSet<_> = claims.iter().filter(|claim| claim.ready).map(|claim| &claim.uid).collect();
        let ready: Vec<_> = ready.difference(&going).collect();
        match ready.as_slice() {
            [uid] => Some(Arc::clone(uid)),
            _ => None,
        }
    }

    fn visible(&self) -> BTreeMap<Key, (Bytes, Incarnation)> {
        let mut ready = BTreeMap::new();
        for (resource, stored) in &self.records {
            let good = stored.document.clone().or_else(|| {
                self.last_good.get(resource).filter(|(uid, _)| *uid == stored.uid).map(|(_, good)| Arc::clone(good))
            });
            if let (Some(owner), Some(good)) = (&stored.owner, good)
                && self.ready(resource).as_ref() == Some(owner)
            {
                ready.insert(resource, (good, Incarnation::of((&*stored.uid, &**owner))));
            }
        }
        let mut visible: BTreeMap<Key, (Ref, Bytes, Incarnation)> = BTreeMap::new();
        for (resource, (document, incarnation)) in &ready {
            if ready.keys().filter(|other| other.name == resource.name).count() > 1 {
                continue;
            }
            for (key, value) in &document.entries {
                let better =
                    visible.get(key).is_none_or(|(held, ..)| precedence(key, resource) < precedence(key, held));
                if better {
                    visible.insert(key.clone(), ((*resource).clone(), value.clone(), *incarnation));
                }
            }
        }
        visible.into_iter().map(|(key, (_, value, incarnation))| (key, (value, incarnation))).collect()
    }

    fn set(&mut self, side: Side, object: &Ref, state: Option<Object>) {
        match (side, state) {
            (Side::Records, Some(Object::Records(stored))) => {
                if let Some(document) = &stored.document {
                    self.last_good.insert(object.clone(), (Arc::clone(&stored.uid), Arc::clone(document)));
                } else if self.records.get(object).is_none_or(|held| held.uid != stored.uid) {
                    self.last_good.remove(object);
                }
                self.records.insert(object.clone(), stored);
            }
            (Side::Readiness, Some(Object::Ready(claims))) => {
                self.slices.insert(object.clone(), claims);
            }
            (Side::Records, _) => {
                self.records.remove(object);
                self.last_good.remove(object);
            }
            (Side::Readiness, _) => {
                self.slices.remove(object);
            }
        }
    }
}

fn object() -> impl Strategy<Value = Ref> {
    (prop::sample::select(&SPACES[..]), prop::sample::select(&NAMES[..]))
        .prop_map(|(space, name)| Ref::new(space, name))
}

fn uid() -> impl Strategy<Value = Arc<str>> {
    prop::sample::select(vec!["1", "2"]).prop_map(Arc::from)
}

fn key() -> impl Strategy<Value = Key> {
    let id =
        prop_oneof![prop::sample::select(&NAMES[..]).prop_map(layout::kubernetes_instance_id), Just(InstanceId(7)),];
    (prop::sample::select(vec!["x", "y"]), id)
        .prop_map(|(segment, id)| Key::new(Path::new("item", [segment]).unwrap(), id))
}

fn records() -> impl Strategy<Value = Object> {
    let entries = prop::collection::btree_map(key(), (0..3_u8).prop_map(|n| Bytes::from(n.to_string())), 0..4);
    let document =
        prop::option::weighted(0.8, entries.prop_map(|entries| Arc::new(Document { entries, unread: Vec::new() })));
    (uid(), prop::option::weighted(0.9, uid()), document)
        .prop_map(|(uid, owner, document)| Object::Records(Stored { uid, owner, document }))
}

fn claims() -> impl Strategy<Value = Object> {
    let claim = (prop::sample::select(&NAMES[..]), uid(), prop::bool::weighted(0.8), prop::bool::weighted(0.1))
        .prop_map(|(name, uid, ready, terminating)| Claim { resource: name.into(), uid, ready, terminating });
    vec(claim, 0..4).prop_map(Object::Ready)
}

#[derive(Clone, Debug)]
enum Step {
    Set(Side, Ref, Option<Object>),
    Replace(Side, Option<&'static str>, Vec<(Ref, Object)>),
}

fn step() -> impl Strategy<Value = Step> {
    let set = prop_oneof![
        (object(), prop::option::weighted(0.8, records())).prop_map(|(at, state)| Step::Set(Side::Records, at, state)),
        (object(), prop::option::weighted(0.8, claims())).prop_map(|(at, state)| Step::Set(Side::Readiness, at, state)),
    ];
    let space = prop::option::of(prop::sample::select(&SPACES[..]));
    let replace = prop_oneof![
        (space.clone(), vec((object(), records()), 0..4)).prop_map(|(space, all)| (Side::Records, space, all)),
        (space, vec((object(), claims()), 0..4)).prop_map(|(space, all)| (Side::Readiness, space, all)),
    ];
    let replace = replace.prop_map(|(side, space, all)| {
        let unique: BTreeMap<_, _> = all.into_iter().collect();
        let within = unique.into_iter().filter(|(object, _)| space.is_none_or(|space| *object.namespace == *space));
        Step::Replace(side, space, within.collect())
    });
    prop_oneof![8 => set, 1 => replace]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// Whatever happens in whatever order: the changes lead from each visible set to the next, none is superfluous,
    /// and nothing is kept of what is gone.
    #[test]
    fn the_join_is_what_the_model_says(steps in vec(step(), 1..40)) {
        let (mut join, mut cluster) = (Join::default(), Cluster::default());
        let mut fold: BTreeMap<Key, (Bytes, Incarnation)> = BTreeMap::new();
        for step in steps {
            let changes = match step {
                Step::Set(side, object, state) => {
                    cluster.set(side, &object, state.clone());
                    join.set(side, &object, state)
                }
                Step::Replace(side, space, all) => {
                    let held: Vec<Ref> = match side {
                        Side::Records => cluster.records.keys().cloned().collect(),
                        Side::Readiness => cluster.slices.keys().cloned().collect(),
                    };
                    for object in held.iter().filter(|object| space.is_none_or(|space| *object.namespace == *space)) {
                        if all.iter().all(|(listed, _)| listed != object) {
                            cluster.set(side, object, None);
                        }
                    }
                    for (object, state) in &all {
                        cluster.set(side, object, Some(state.clone()));
                    }
                    join.replace(side, space, all)
                }
            };
            let before = fold.clone();
            for change in &changes {
                match change {
                    Change::Put(entry) => {
                        let put = (entry.value.clone(), entry.incarnation);
                        let held = fold.insert(entry.key.clone(), put.clone());
                        prop_assert_ne!(held.as_ref(), Some(&put), "put again: {}", entry.key);
                        prop_assert!(held.is_none_or(|held| held.1 == put.1), "a new incarnation without a removal");
                    }
                    Change::Delete(key) => prop_assert!(fold.remove(key).is_some(), "{} is not there", key),
                }
            }
            let visible = cluster.visible();
            prop_assert_eq!(&fold, &visible);
            prop_assert!(before != fold || changes.is_empty(), "changes that change nothing: {:?}", changes);
            let listed: BTreeMap<_, _> =
                join.entries().into_iter().map(|entry| (entry.key, (entry.value, entry.incarnation))).collect();
            prop_assert_eq!(listed, visible);
        }
        for side in [Side::Records, Side::Readiness] {
            join.replace(side, None, []);
        }
        prop_assert!(join.holders.is_empty() && join.shown.is_empty() && join.instances.is_empty());
    }
}

#[test]
fn what_was_absent_is_another_one_and_stays_that_to_the_next_watch() {
    let births = Births::default();
    let (resource, slice) = (Ref::new("one", "a"), Ref::new("one", "slice"));
    let key = Key::new(Path::new("item", ["x"]).unwrap(), layout::kubernetes_instance_id("a"));
    let records = |entries: &[&Key]| {
        let entries = entries.iter().map(|key| ((*key).clone(), Bytes::from("1"))).collect();
        let document = Some(Arc::new(Document { entries, unread: Vec::new() }));
        Some(Object::Records(Stored { uid: "u".into(), owner: Some("p".into()), document }))
    };
    let ready =
        |ready| Some(Object::Ready(vec![Claim { resource: "a".into(), uid: "p".into(), ready, terminating: false }]));
    let fill = |join: &mut Join| {
        join.set(Side::Records, &resource, records(&[&key]));
        join.set(Side::Readiness, &slice, ready(true));
        join.complete();
        join.entries()[0].incarnation
    };
    let mut join = Join::new(births.clone(), false);
    let mut last = fill(&mut join);
    let steps = [
        (Side::Records, &resource, records(&[]), records(&[&key])),
        (Side::Records, &resource, None, records(&[&key])),
        (Side::Readiness, &slice, ready(false), ready(true)),
    ];
    for (side, object, away, back) in steps {
        assert_eq!(join.set(side, object, away), [Change::Delete(key.clone())]);
        let [Change::Put(entry)] = &join.set(side, object, back)[..] else { panic!("it is back") };
        assert_ne!(entry.incarnation, last);
        last = entry.incarnation;
        assert_eq!(fill(&mut Join::new(births.clone(), false)), last, "to another watch");
    }
}
