//! What streams read: the visible records, and the latest changes in order.

use std::collections::{BTreeMap, VecDeque};

use discovery_core::backend::{Change, Entry, Lineage, Position, WatchEvent};
use discovery_core::{Error, Key, Result, Scope};

use super::files::Findings;

/// How many changes are kept for streams that lag; one that lags further starts over from a snapshot.
const KEPT: usize = 4096;

/// How many bytes their values may have together. Most of them are not shown any more.
const KEPT_BYTES: usize = 16 << 20;

/// The visible records and how they came to be.
#[derive(Debug, Default)]
pub(crate) struct Log {
    generation: u64,
    entries: BTreeMap<Key, Entry>,
    changes: VecDeque<(u64, Change)>,
    /// The bytes of their values.
    bytes: usize,
    /// The changes up to this generation are not kept.
    forgotten: u64,
    /// When data were last proven to be lost.
    reset: u64,
    fault: Option<Error>,
}

/// Where one stream stands.
#[derive(Debug)]
pub(crate) struct Cursor {
    scope: Scope,
    at: Option<u64>,
    interrupted: bool,
}

impl Cursor {
    pub(crate) fn new(scope: Scope) -> Self {
        Self { scope, at: None, interrupted: false }
    }
}

impl Log {
    /// Applies changes of one moment.
    fn append(&mut self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        self.generation += 1;
        for change in changes {
            match &change {
                Change::Put(entry) => self.entries.insert(entry.key.clone(), entry.clone()),
                Change::Delete(key) => self.entries.remove(key),
            };
            self.bytes += size(&change);
            self.changes.push_back((self.generation, change));
        }
        while self.changes.len() > KEPT || self.bytes > KEPT_BYTES {
            let Some((generation, change)) = self.changes.pop_front() else { break };
            self.bytes -= size(&change);
            self.forgotten = generation;
        }
    }

    /// Applies changes that follow from the loss of a directory: every stream starts over.
    fn reset(&mut self, changes: Vec<Change>) {
        self.append(changes);
        self.generation += 1;
        self.changes.clear();
        self.bytes = 0;
        self.forgotten = self.generation;
        self.reset = self.generation;
    }

    /// Takes in what a pass found. Answers what kept it from reading the directory, and whether there is news.
    pub(crate) fn take_in(&mut self, found: Result<Findings>) -> (Option<Error>, bool) {
        let before = (self.generation, self.fault.is_some());
        self.fault = match found {
            Ok(Findings { changes, reset }) => {
                if reset {
                    self.reset(changes)
                } else {
                    self.append(changes)
                }
                None
            }
            Err(error) => Some(error),
        };
        (self.fault.clone(), before != (self.generation, self.fault.is_some()))
    }

    /// A generation that every stream comes to, though nothing may have changed.
    pub(crate) fn mark(&mut self) -> u64 {
        self.generation += 1;
        self.generation
    }

    /// The records of a scope, and how far they are.
    pub(crate) fn snapshot(&self, scope: &Scope) -> (Vec<Entry>, Position) {
        let entries = self.entries.values().filter(|entry| scope.contains(&entry.key)).cloned().collect();
        (entries, Position::from_u64(self.generation))
    }

    /// What a stream has not seen yet.
    pub(crate) fn read(&self, cursor: &mut Cursor) -> Vec<WatchEvent> {
        let mut events = Vec::new();
        match &self.fault {
            Some(fault) if !cursor.interrupted => events.push(WatchEvent::Interrupted(fault.clone())),
            _ => {}
        }
        let recovered = cursor.interrupted && self.fault.is_none();
        cursor.interrupted = self.fault.is_some();
        let position = Position::from_u64(self.generation);
        match cursor.at.replace(self.generation) {
            Some(at) if at == self.generation => {}
            Some(at) if at >= self.forgotten => {
                // Generations ascend, so those that were seen are a prefix.
                let seen = self.changes.partition_point(|(generation, _)| *generation <= at);
                let changes: Vec<_> = self
                    .changes
                    .range(seen..)
                    .filter(|(_, change)| cursor.scope.contains(change.key()))
                    .map(|(_, change)| change.clone())
                    .collect();
                events.push(match changes.is_empty() {
                    true => WatchEvent::Progress(position),
                    false => WatchEvent::Batch { changes, position },
                });
            }
            before => {
                let lineage = match before {
                    None => Lineage::Unknown,
                    Some(at) if at < self.reset => Lineage::Reset,
                    Some(_) => Lineage::Same,
                };
                let (entries, position) = self.snapshot(&cursor.scope);
                events.extend(WatchEvent::snapshot(lineage, entries, position));
            }
        }
        if recovered {
            events.push(WatchEvent::Recovered);
        }
        events
    }
}

fn size(change: &Change) -> usize {
    match change {
        Change::Put(entry) => entry.value.len(),
        Change::Delete(_) => 0,
    }
}

#[cfg(test)]
mod tests;
