//! Which records are visible: those of a resource whose owner is ready. Pure and incremental: objects go in, changes
//! come out, and a change costs what it touches.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use discovery_core::backend::{Change, Entry, Incarnation};
use discovery_core::{InstanceId, Key};
use discovery_dynamo::layout;

use crate::births::Births;
use crate::document::Document;
use crate::readiness::{Claim, Readiness, Ref};

/// A resource with records, as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    /// Its own uid.
    pub(crate) uid: Arc<str>,
    /// The uid of the pod that owns it.
    pub(crate) owner: Option<Arc<str>>,
    /// What it holds; `None` where that is no document.
    pub(crate) document: Option<Arc<Document>>,
}

/// One object of either side, or its absence.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Object {
    /// A resource with records.
    Records(Stored),
    /// An EndpointSlice, or a pod, and whose readiness it tells.
    Ready(Vec<Claim>),
}

/// Which side of the join an object is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    Records,
    Readiness,
}

/// What a resource contributes to the visible set.
#[derive(Clone, Debug)]
struct Shown {
    document: Arc<Document>,
    incarnation: Incarnation,
}

impl Shown {
    fn is(&self, other: &Self) -> bool {
        self.incarnation == other.incarnation && Arc::ptr_eq(&self.document, &other.document)
    }
}

/// The join.
#[derive(Debug, Default)]
pub(crate) struct Join {
    stored: HashMap<Ref, Stored>,
    readiness: Readiness,
    /// Ready resources by the id that their name stands for. More than one: a collision, and none is shown.
    instances: HashMap<InstanceId, BTreeSet<Ref>>,
    shown: HashMap<Ref, Shown>,
    /// Whose records stand under each key. More than one where a publisher's id is used twice.
    holders: HashMap<Key, Vec<Ref>>,
    births: Births,
    /// Whether what appears was absent before, and not merely unknown.
    complete: bool,
}

impl Join {
    /// `is_patient`: owners that no object speaks of any more are waited for, see [`Readiness::patient`].
    pub(crate) fn new(births: Births, is_patient: bool) -> Self {
        let readiness = if is_patient { Readiness::patient() } else { Readiness::default() };
        Self { births, readiness, ..Self::default() }
    }

    /// All that there was at the beginning has been taken in.
    pub(crate) fn complete(&mut self) {
        self.complete = true;
        self.births.keep(|key| self.holders.contains_key(key));
    }

    /// Takes in one object as it is now; `None` once it is gone. Answers what changed, in order.
    pub(crate) fn set(&mut self, side: Side, object: &Ref, state: Option<Object>) -> Vec<Change> {
        let touched = self.take(side, object, state);
        self.settle(touched)
    }

    /// The last step after which an owner is waited for, of a namespace or of all.
    pub(crate) fn missing(&self, namespace: Option<&str>) -> Option<u64> {
        self.readiness.missing(namespace)
    }

    /// Waits no longer for owners of a namespace, or of all, that went missing up to this step. Answers what changed.
    pub(crate) fn give_up(&mut self, namespace: Option<&str>, step: u64) -> Vec<Change> {
        let touched = self.readiness.give_up(namespace, step);
        self.settle(touched)
    }

    /// Takes in all objects of one side and one namespace, or of all. Answers what changed.
    pub(crate) fn replace(
        &mut self,
        side: Side,
        namespace: Option<&str>,
        objects: impl IntoIterator<Item = (Ref, Object)>,
    ) -> Vec<Change> {
        let mut gone: BTreeSet<Ref> = match side {
            Side::Records => self.stored.keys().filter(|object| object.is_within(namespace)).cloned().collect(),
            Side::Readiness => self.readiness.objects(namespace).into_iter().collect(),
        };
        let mut touched = BTreeSet::new();
        for (object, state) in objects {
            gone.remove(&object);
            touched.extend(self.take(side, &object, Some(state)));
        }
        for object in gone {
            touched.extend(self.take(side, &object, None));
        }
        self.settle(touched)
    }

    /// Every visible record.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.holders.keys().filter_map(|key| self.visible(key)).collect()
    }

    /// How many entries of all resources name no record.
    pub(crate) fn unread(&self) -> usize {
        self.stored.values().filter_map(|stored| stored.document.as_ref()).map(|document| document.unread.len()).sum()
    }

    /// What a resource shows.
    pub(crate) fn shown(&self, resource: &Ref) -> Option<&Arc<Document>> {
        self.shown.get(resource).map(|shown| &shown.document)
    }

    /// The uid of the pod that is ready under a resource's name.
    pub(crate) fn ready(&self, resource: &Ref) -> Option<&Arc<str>> {
        self.readiness.ready(resource)
    }

    /// The ready resources whose names stand for the same id as this one's, which is among them if it is ready.
    pub(crate) fn of_one_id(&self, resource: &Ref) -> impl Iterator<Item = &Ref> {
        self.instances.get(&layout::kubernetes_instance_id(&resource.name)).into_iter().flatten()
    }

    /// Whose record is shown under `key`.
    pub(crate) fn holder(&self, key: &Key) -> Option<&Ref> {
        self.holders.get(key)?.iter().min_by_key(|holder| precedence(key, holder))
    }

    fn take(&mut self, side: Side, object: &Ref, state: Option<Object>) -> BTreeSet<Ref> {
        match (side, state) {
            (Side::Records, Some(Object::Records(mut stored))) => {
                if let Some(held) = self.stored.get(object).filter(|held| held.uid == stored.uid) {
                    stored.document = match stored.document {
                        // What it held last is better than nothing, for as long as it is the same object.
                        None => held.document.clone(),
                        same if same == held.document => held.document.clone(),
                        new => new,
                    };
                }
                self.stored.insert(object.clone(), stored);
                BTreeSet::from([object.clone()])
            }
            (Side::Readiness, Some(Object::Ready(claims))) => self.readiness.set(object, claims),
            (Side::Records, _) => {
                self.stored.remove(object);
                BTreeSet::from([object.clone()])
            }
            (Side::Readiness, _) => self.readiness.set(object, Vec::new()),
        }
    }

    /// What a resource would contribute if no other had its id.
    fn candidate(&self, resource: &Ref) -> Option<Shown> {
        let stored = self.stored.get(resource)?;
        let owner = stored.owner.as_ref()?;
        if self.readiness.ready(resource) != Some(owner) {
            return None;
        }
        let document = Arc::clone(stored.document.as_ref()?);
        Some(Shown { document, incarnation: Incarnation::of((&*stored.uid, &**owner)) })
    }

    /// Brings the visible set up to date with what is known of these resources.
    fn settle(&mut self, mut touched: BTreeSet<Ref>) -> Vec<Change> {
        for resource in touched.clone() {
            let ready = self.candidate(&resource).is_some();
            let id = layout::kubernetes_instance_id(&resource.name);
            let same_id = self.instances.entry(id).or_default();
            let alone = same_id.len() <= 1;
            let changed = if ready { same_id.insert(resource.clone()) } else { same_id.remove(&resource) };
            if changed && (!alone || same_id.len() > 1) {
                if same_id.len() > 1 {
                    tracing::warn!(instance = %id, resources = ?same_id, "resources of one instance id: all of them are hidden");
                }
                touched.extend(same_id.iter().cloned());
            }
            if same_id.is_empty() {
                self.instances.remove(&id);
            }
        }
        let mut steps = Vec::new();
        for resource in touched {
            let id = layout::kubernetes_instance_id(&resource.name);
            let alone = self.instances.get(&id).is_some_and(|same_id| same_id.len() == 1);
            let after = if alone { self.candidate(&resource) } else { None };
            let before = self.shown.get(&resource).cloned();
            let is_same = match (&before, &after) {
                (None, None) => true,
                (Some(before), Some(after)) => before.is(after),
                _ => false,
            };
            if !is_same {
                steps.push((resource, before, after));
            }
        }
        self.apply(steps)
    }

    fn apply(&mut self, steps: Vec<(Ref, Option<Shown>, Option<Shown>)>) -> Vec<Change> {
        let mut keys: BTreeSet<Key> = BTreeSet::new();
        for (_, before, after) in &steps {
            let value = |shown: &Option<Shown>, key: &Key| -> Option<(Incarnation, Bytes)> {
                let shown = shown.as_ref()?;
                Some((shown.incarnation, shown.document.entries.get(key)?.clone()))
            };
            let all = before.iter().chain(after).flat_map(|shown| shown.document.entries.keys());
            keys.extend(all.filter(|key| value(before, key) != value(after, key)).cloned());
        }
        let before: Vec<Option<Entry>> = keys.iter().map(|key| self.visible(key)).collect();
        for (resource, old, new) in steps {
            for key in old.iter().flat_map(|shown| shown.document.entries.keys()) {
                if let Some(holders) = self.holders.get_mut(key) {
                    holders.retain(|holder| *holder != resource);
                    if holders.is_empty() {
                        self.holders.remove(key);
                    }
                }
            }
            for key in new.iter().flat_map(|shown| shown.document.entries.keys()) {
                self.holders.entry(key.clone()).or_default().push(resource.clone());
            }
            match new {
                Some(shown) => self.shown.insert(resource, shown),
                None => self.shown.remove(&resource),
            };
        }
        let mut changes = Vec::new();
        for (key, before) in keys.into_iter().zip(before) {
            if self.complete {
                match (&before, self.holders.contains_key(&key)) {
                    (None, true) => self.births.born(&key),
                    (_, true) => {}
                    (_, false) => self.births.gone(&key),
                }
            }
            let after = self.visible(&key);
            match (before, after) {
                (before, Some(after)) if before.as_ref() != Some(&after) => {
                    if before.is_some_and(|before| before.incarnation != after.incarnation) {
                        changes.push(Change::Delete(key));
                    }
                    changes.push(Change::Put(after));
                }
                (Some(_), None) => changes.push(Change::Delete(key)),
                _ => {}
            }
        }
        changes
    }

    /// The record that is shown under `key`.
    fn visible(&self, key: &Key) -> Option<Entry> {
        let shown = self.shown.get(self.holder(key)?)?;
        let value = shown.document.entries.get(key)?.clone();
        let incarnation = self.births.incarnation(key, shown.incarnation);
        Some(Entry { key: key.clone(), value, incarnation })
    }
}

/// Of two resources with one key, which one's record counts: the one that the key's id stands for, else the first by
/// name. The lesser wins.
pub(crate) fn precedence<'a>(key: &Key, resource: &'a Ref) -> (bool, &'a Ref) {
    (layout::kubernetes_instance_id(&resource.name) != key.instance(), resource)
}

#[cfg(test)]
mod tests;
