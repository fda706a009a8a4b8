//! Who waits for which part of the tree.

use std::collections::BTreeMap;
use std::sync::Arc;

use discovery_core::Scope;
use tokio::sync::Notify;

use super::OwnerId;

/// What a reader is registered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Watch,
    Log,
}

/// One reader. The state sets what it has to look at; the reader clears it.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) reader: OwnerId,
    pub(crate) purpose: Purpose,
    /// The first revision of its scope that it has not read.
    pub(crate) pending: Option<u64>,
    /// A revision that it is to report as reached, although nothing of its scope changed.
    pub(crate) nudge: Option<u64>,
    pub(crate) wake: Arc<Notify>,
}

impl Slot {
    pub(crate) fn nudge(&mut self, revision: u64) {
        self.nudge = Some(revision);
        self.wake.notify_one();
    }
}

/// The readers by scope: a change looks up the scopes above it and wakes nobody else.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    scopes: BTreeMap<String, BTreeMap<u64, Slot>>,
    pub(crate) open_watches: usize,
    pub(crate) open_logs: usize,
    pub(crate) watches_opened: u64,
}

impl Watchers {
    pub(crate) fn add(&mut self, scope: &Scope, id: u64, slot: Slot) {
        match slot.purpose {
            Purpose::Watch => {
                self.open_watches += 1;
                self.watches_opened += 1;
            }
            Purpose::Log => self.open_logs += 1,
        }
        self.scopes.entry(scope.as_str().to_owned()).or_default().insert(id, slot);
    }

    pub(crate) fn remove(&mut self, scope: &Scope, id: u64) {
        let Some(slots) = self.scopes.get_mut(scope.as_str()) else { return };
        match slots.remove(&id).map(|slot| slot.purpose) {
            Some(Purpose::Watch) => self.open_watches -= 1,
            Some(Purpose::Log) => self.open_logs -= 1,
            None => {}
        }
        if slots.is_empty() {
            self.scopes.remove(scope.as_str());
        }
    }

    pub(crate) fn get_mut(&mut self, scope: &Scope, id: u64) -> Option<&mut Slot> {
        self.scopes.get_mut(scope.as_str())?.get_mut(&id)
    }

    /// Every reader whose scope covers `path`, the canonical text of a path or of a scope.
    pub(crate) fn covering(&mut self, path: &str, mut each: impl FnMut(&mut Slot)) {
        if self.scopes.is_empty() {
            return;
        }
        let ends = std::iter::once(0).chain(path.match_indices('/').map(|(at, _)| at + 1));
        for end in ends {
            if let Some(slots) = self.scopes.get_mut(&path[..end]) {
                slots.values_mut().for_each(&mut each);
            }
        }
    }

    pub(crate) fn wake_all(&self) {
        for slot in self.scopes.values().flat_map(BTreeMap::values) {
            slot.wake.notify_one();
        }
    }
}
