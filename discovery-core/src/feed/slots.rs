//! Which slots a change touches.

use std::any::TypeId;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::{Arc, Weak};

use crate::key::Path;
use crate::store::{AnySlot, Effective};

/// A slot for as long as a view uses it, with the type that it decodes to.
type Held = (TypeId, Weak<dyn AnySlot>);

/// The slots of one feed, found by the scopes that hold a changed key: the cost is the key's depth, not the number of
/// slots.
#[derive(Default)]
pub(crate) struct SlotIndex {
    /// Hashed alike in every process, so that one seed always wakes streams in one order. The scopes are this process's own.
    by_scope: HashMap<Arc<str>, Vec<Held>, BuildHasherDefault<DefaultHasher>>,
}

impl SlotIndex {
    pub(crate) fn insert(&mut self, type_id: TypeId, slot: &Arc<dyn AnySlot>) {
        let slots = self.by_scope.entry(slot.scope().as_str().into()).or_default();
        if !slots.iter().any(|(_, known)| std::ptr::addr_eq(known.as_ptr(), Arc::as_ptr(slot))) {
            slots.push((type_id, Arc::downgrade(slot)));
        }
    }

    pub(crate) fn remove(&mut self, slot: &Arc<dyn AnySlot>) {
        if let Some(slots) = self.by_scope.get_mut(slot.scope().as_str()) {
            slots.retain(|(_, known)| !std::ptr::addr_eq(known.as_ptr(), Arc::as_ptr(slot)));
        }
    }

    pub(crate) fn find(&self, type_id: TypeId, scope: &str) -> Option<Arc<dyn AnySlot>> {
        self.by_scope.get(scope)?.iter().filter(|(id, _)| *id == type_id).find_map(|(_, slot)| slot.upgrade())
    }

    /// Every slot that is still used.
    pub(crate) fn all(&self) -> Vec<(TypeId, Arc<dyn AnySlot>)> {
        let slots = self.by_scope.values().flatten();
        slots.filter_map(|(type_id, slot)| Some((*type_id, slot.upgrade()?))).collect()
    }

    /// The slots that some changes touch, each with its changes in order.
    pub(crate) fn touched<'a>(&self, changes: &'a [Effective]) -> Vec<(Arc<dyn AnySlot>, Vec<&'a Effective>)> {
        let mut found: Vec<(Arc<dyn AnySlot>, Vec<&'a Effective>)> = Vec::new();
        // Most changes come alone, and nothing has to be found again for one.
        if let [change] = changes {
            let slots = self.holding(change.key().path()).filter_map(|(_, slot)| slot.upgrade());
            found.extend(slots.map(|slot| (slot, vec![change])));
            return found;
        }
        let mut places: HashMap<*const (), usize> = HashMap::new();
        for change in changes {
            for (_, slot) in self.holding(change.key().path()) {
                if let Some(place) = places.get(&slot.as_ptr().cast()) {
                    found[*place].1.push(change);
                } else if let Some(slot) = slot.upgrade() {
                    places.insert(Arc::as_ptr(&slot).cast(), found.len());
                    found.push((slot, vec![change]));
                }
            }
        }
        found
    }

    /// Those of the scopes that hold this path. A few are looked through, which costs less than to hash all that the path has.
    fn holding<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a Held> {
        const FEW: usize = 4;
        let few = self.by_scope.len() <= FEW;
        let scanned = self.by_scope.iter().filter(move |(scope, _)| few && path.as_str().starts_with(&***scope));
        let looked_up = path.scopes().filter_map(move |scope| if few { None } else { self.by_scope.get(scope) });
        scanned.map(|(_, slots)| slots).chain(looked_up).flatten()
    }

    /// Forgets the slots that nobody uses any more.
    pub(crate) fn prune(&mut self) {
        self.by_scope.retain(|_, slots| {
            slots.retain(|(_, slot)| slot.strong_count() > 0);
            !slots.is_empty()
        });
    }
}
