//! The undecoded records of one scope.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::same::same_value;
use super::staged::Staged;
use super::tree::Tree;
use crate::backend::{Change, Entry, Incarnation, Lineage};
use crate::deadline::later;
use crate::key::Key;

/// A change that made a difference.
#[derive(Clone, Debug)]
pub(crate) enum Effective {
    Put(Arc<Entry>),
    Delete(Key),
}

impl Effective {
    pub(crate) fn key(&self) -> &Key {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete(key) => key,
        }
    }
}

/// The records of one scope as the store last told them, and those that a proven loss of data took, while they may
/// still come back.
#[derive(Clone, Default)]
pub(crate) struct RawStore {
    tree: Tree<Arc<Entry>>,
    /// Keys that a reset store no longer holds, shown until then.
    ghosts: HashMap<Key, Instant>,
    /// No ghost is given up before this.
    next_ghost: Option<Instant>,
    /// Keys that came back equal after a reset: the store's incarnation, and the one that is shown.
    aliases: HashMap<Key, (Incarnation, Incarnation)>,
}

impl RawStore {
    pub(crate) fn tree(&self) -> &Tree<Arc<Entry>> {
        &self.tree
    }

    pub(crate) fn len(&self) -> usize {
        self.tree.len()
    }

    /// Applies one transaction and answers what it changed, in order.
    pub(crate) fn apply(&mut self, changes: Vec<Change>) -> Vec<Effective> {
        let mut effective = Vec::with_capacity(changes.len());
        for change in changes {
            match change {
                Change::Put(entry) => {
                    let lost =
                        if self.is_ghost_no_more(&entry.key) { self.tree.get(&entry.key).cloned() } else { None };
                    let entry = match lost {
                        Some(held) => self.welcome_back(&held, entry),
                        None => self.shown(entry),
                    };
                    let held = self.tree.get(&entry.key);
                    if held.is_some_and(|held| is_same(held, &entry)) {
                        continue;
                    }
                    let entry = Arc::new(match held {
                        Some(held) => Entry { key: held.key.clone(), ..entry },
                        None => entry,
                    });
                    self.tree.insert(Arc::clone(&entry));
                    effective.push(Effective::Put(entry));
                }
                Change::Delete(key) => {
                    self.ghosts.remove(&key);
                    self.aliases.remove(&key);
                    if self.tree.remove(&key).is_some() {
                        effective.push(Effective::Delete(key));
                    }
                }
            }
        }
        effective
    }

    /// Takes a whole snapshot in the place of what is held. Entries that did not change keep their identity. After a
    /// proven loss, what is missing stays for `grace`.
    pub(crate) fn replace(&mut self, staged: Staged, lineage: Lineage, grace: Duration) {
        let entries = staged.in_order();
        if self.tree.is_empty() {
            // Nothing to compare with: no key is read. What is forgiven or known under another name is in the tree, too.
            self.tree = Tree::from_sorted(entries);
            return;
        }
        let forgiving = lineage == Lineage::Reset && !grace.is_zero();
        let mut next: Vec<Arc<Entry>> = Vec::with_capacity(entries.len());
        for mut entry in entries {
            let ghost = self.is_ghost_no_more(&entry.key);
            let held = self.tree.get(&entry.key).cloned();
            match &held {
                Some(held) if forgiving || ghost => {
                    entry = Arc::new(self.welcome_back(held, Arc::unwrap_or_clone(entry)));
                }
                _ if self.aliases.is_empty() => {}
                _ => entry = Arc::new(self.shown(Arc::unwrap_or_clone(entry))),
            }
            next.push(match held {
                Some(held) if is_same(&held, &entry) => held,
                _ => {
                    if let (Some(last), Some(entry)) = (next.last(), Arc::get_mut(&mut entry)) {
                        entry.key.share_path(last.key.path());
                    }
                    entry
                }
            });
        }
        let until = later(Instant::now(), grace);
        let mut kept = Vec::new();
        if forgiving || !self.ghosts.is_empty() {
            for held in self.tree.iter() {
                let missing = next.binary_search_by(|entry| entry.key.cmp(&held.key)).is_err();
                if missing && (forgiving || self.ghosts.contains_key(&held.key)) {
                    self.ghosts.entry(held.key.clone()).or_insert(until);
                    self.next_ghost.get_or_insert(until);
                    kept.push(Arc::clone(held));
                }
            }
        }
        if !kept.is_empty() {
            next.extend(kept);
            next.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        }
        self.tree = Tree::from_sorted(next);
        let tree = &self.tree;
        self.aliases.retain(|key, _| tree.get(key).is_some());
    }

    /// When to ask for [`RawStore::drop_ghosts`].
    pub(crate) fn next_ghost(&self) -> Option<Instant> {
        self.next_ghost
    }

    /// Gives up those whose time has come.
    pub(crate) fn drop_ghosts(&mut self, now: Instant) -> Vec<Effective> {
        let mut due: Vec<Key> =
            self.ghosts.iter().filter(|(_, until)| **until <= now).map(|(key, _)| key.clone()).collect();
        // As they stand in a set, and not as the table has them.
        due.sort_unstable();
        let dropped = self.apply(due.into_iter().map(Change::Delete).collect());
        self.next_ghost = self.ghosts.values().min().copied();
        dropped
    }

    /// Forgets that a key was lost, and answers whether it was.
    fn is_ghost_no_more(&mut self, key: &Key) -> bool {
        // An empty table would hash the key all the same.
        !self.ghosts.is_empty() && self.ghosts.remove(key).is_some()
    }

    /// An entry that the store brought back after a reset: with an equal value it counts as the same incarnation.
    fn welcome_back(&mut self, held: &Entry, entry: Entry) -> Entry {
        if same_value(&held.value, &entry.value) && held.incarnation != entry.incarnation {
            self.aliases.insert(entry.key.clone(), (entry.incarnation, held.incarnation));
        }
        self.shown(entry)
    }

    /// The entry with the incarnation that it is shown under.
    fn shown(&mut self, mut entry: Entry) -> Entry {
        if self.aliases.is_empty() {
            return entry;
        }
        match self.aliases.get(&entry.key) {
            Some((stored, shown)) if *stored == entry.incarnation => entry.incarnation = *shown,
            Some(_) => {
                self.aliases.remove(&entry.key);
            }
            None => {}
        }
        entry
    }
}

fn is_same(held: &Entry, entry: &Entry) -> bool {
    held.incarnation == entry.incarnation && same_value(&held.value, &entry.value)
}
