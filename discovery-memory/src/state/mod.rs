//! Everything that a cluster stores, and the only code that changes it.
//!
//! Nothing here waits. Time passes when [`State::advance`] is called, which every access does first.

mod damage;
mod history;
mod publish;
mod records;
mod sessions;
mod watchers;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use discovery_core::backend::{Change, Stamp, WriteBatch};
use discovery_core::{InstanceId, Key, Result};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::place::Place;
pub(crate) use history::Found;
use history::{History, Transaction};
pub(crate) use publish::Fence;
pub(crate) use records::{Records, Stored};
pub(crate) use sessions::Ended;
use sessions::{Owner, SessionState};
pub(crate) use watchers::{Purpose, Slot, Watchers};

/// Tells the handles of a cluster apart. Records belong to the handle whose session wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(pub(crate) u64);

impl fmt::Display for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "handle {}", self.0)
    }
}

/// Under whose session a record lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lease {
    pub(crate) owner: OwnerId,
    pub(crate) session: u64,
    pub(crate) instance: InstanceId,
    pub(crate) ttl: Duration,
}

/// What a key is to hold: a value and whose it is, or nothing.
type Wanted = Option<(Bytes, Option<Lease>)>;

/// Something that happens at an instant.
#[derive(Debug)]
enum Due {
    Expiry,
    /// A write that the network delivers late.
    Write {
        fence: Fence,
        batch: WriteBatch,
        answer: oneshot::Sender<Vec<Result<Stamp>>>,
    },
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) epoch: u64,
    pub(crate) revision: u64,
    pub(crate) records: Records,
    pub(crate) history: History,
    pub(crate) watchers: Watchers,
    pub(crate) reorder: bool,
    pub(crate) duplicate: bool,
    readiness: bool,
    owners: BTreeMap<OwnerId, Owner>,
    sessions: BTreeMap<u64, SessionState>,
    /// By instant, then by the id of the session or the write.
    timers: BTreeMap<(Instant, u64), Due>,
    next_id: u64,
    activity: watch::Sender<()>,
}

impl State {
    pub(crate) fn new(history: usize, readiness: bool) -> Self {
        Self {
            // Two clusters of one process seldom share an epoch, so a position of the wrong one is noticed.
            epoch: u64::from(fastrand::u32(1..)) << 32,
            revision: 0,
            records: Records::default(),
            history: History::new(history),
            watchers: Watchers::default(),
            reorder: false,
            duplicate: false,
            readiness,
            owners: BTreeMap::new(),
            sessions: BTreeMap::new(),
            timers: BTreeMap::new(),
            next_id: 0,
            activity: watch::Sender::new(()),
        }
    }

    pub(crate) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(crate) fn here(&self) -> Place {
        self.at(self.revision)
    }

    pub(crate) fn at(&self, revision: u64) -> Place {
        Place { epoch: self.epoch, revision }
    }

    /// Told whenever something changed that a person or a test may wait for.
    pub(crate) fn activity(&self) -> watch::Receiver<()> {
        self.activity.subscribe()
    }

    pub(crate) fn noticed(&self) {
        self.activity.send_replace(());
    }

    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.timers.first_key_value().map(|((at, _), _)| *at)
    }

    /// Lets happen what is due, in order.
    pub(crate) fn advance(&mut self, now: Instant) {
        while self.next_due().is_some_and(|at| at <= now) {
            match self.timers.pop_first() {
                Some(((_, session), Due::Expiry)) => self.end_with_records(session, Ended::Expired),
                Some((_, Due::Write { fence, batch, answer })) => {
                    let results = self.publish(&fence, &batch);
                    // The writer may have given up; the write stands all the same.
                    let _ = answer.send(results);
                }
                None => {}
            }
        }
    }

    /// Whoever sleeps until the next timer must hear of an earlier one.
    fn schedule(&mut self, at: Instant, id: u64, due: Due) {
        let earliest = self.next_due().is_none_or(|next| at < next);
        self.timers.insert((at, id), due);
        if earliest {
            self.watchers.wake_all();
            self.noticed();
        }
    }

    pub(crate) fn schedule_write(
        &mut self,
        at: Instant,
        fence: Fence,
        batch: WriteBatch,
    ) -> oneshot::Receiver<Vec<Result<Stamp>>> {
        let (answer, result) = oneshot::channel();
        let id = self.new_id();
        self.schedule(at, id, Due::Write { fence, batch, answer });
        result
    }

    pub(crate) fn is_visible(&self, record: &Stored) -> bool {
        !self.readiness || record.lease.is_none_or(|lease| self.owners.get(&lease.owner).is_some_and(Owner::is_visible))
    }

    /// Commits one transaction: each key once, `None` to remove it. The incarnation and the revision of what is stored
    /// are set here. Answers the new revision.
    fn commit(&mut self, writes: Vec<(Key, Wanted)>) -> u64 {
        self.revision += 1;
        let revision = self.revision;
        let mut transaction = Transaction { changes: Vec::new(), undo: Vec::with_capacity(writes.len()) };
        for (key, write) in writes {
            let before = self.records.get(&key);
            let shown = before.is_some_and(|record| self.is_visible(record));
            let after = write.map(|(value, lease)| {
                let mut record = Stored { value, lease, incarnation: revision, modified: revision };
                let visible = self.is_visible(&record);
                if let Some(before) = before.filter(|_| shown || !visible) {
                    record.incarnation = before.incarnation;
                }
                (record, visible)
            });
            let mut touched = shown;
            match &after {
                Some((record, true)) => {
                    touched = true;
                    transaction.changes.push(Change::Put(record.entry(&key)));
                }
                _ if shown => transaction.changes.push(Change::Delete(key.clone())),
                _ => {}
            }
            let before = self.store(&key, after.map(|(record, _)| record));
            self.tell(&key, revision, touched);
            transaction.undo.push((key, before));
        }
        self.history.push(transaction);
        self.noticed();
        revision
    }

    /// Replaces one record, keeping the owners' lists of keys right.
    fn store(&mut self, key: &Key, record: Option<Stored>) -> Option<Stored> {
        let owner = record.as_ref().and_then(|record| record.lease).map(|lease| lease.owner);
        let before = self.records.replace(key, record);
        let previous = before.as_ref().and_then(|record| record.lease).map(|lease| lease.owner);
        if previous != owner {
            if let Some(owner) = previous.and_then(|id| self.owners.get_mut(&id)) {
                owner.keys.remove(key);
            }
            if let Some(id) = owner {
                self.owners.entry(id).or_default().keys.insert(key.clone());
            }
        }
        before
    }

    /// Wakes who watches `key`: to read the revision, or only to report that it is reached.
    fn tell(&mut self, key: &Key, revision: u64, changed: bool) {
        self.watchers.covering(key.path().as_str(), |slot| {
            if changed {
                slot.pending.get_or_insert(revision);
                slot.wake.notify_one();
            } else {
                slot.nudge(revision);
            }
        });
    }

    pub(crate) fn set_ready(&mut self, owner: OwnerId, ready: bool) {
        self.change_owner(owner, |owner| owner.ready = ready);
    }

    pub(crate) fn terminate(&mut self, owner: OwnerId) {
        self.change_owner(owner, |owner| owner.terminating = true);
    }

    /// Shows or hides all of an owner's records, in one transaction, where a change of it says so.
    fn change_owner(&mut self, id: OwnerId, change: impl FnOnce(&mut Owner)) {
        let owner = self.owners.entry(id).or_default();
        let before = owner.is_visible();
        change(owner);
        let visible = owner.is_visible();
        let keys: BTreeSet<Key> = owner.keys.clone();
        if visible == before || !self.readiness || keys.is_empty() {
            self.noticed();
            return;
        }
        self.revision += 1;
        let revision = self.revision;
        let mut transaction = Transaction { changes: Vec::new(), undo: Vec::new() };
        for key in keys {
            let Some(record) = self.records.get_mut(&key) else { continue };
            transaction.undo.push((key.clone(), Some(record.clone())));
            if visible {
                record.incarnation = revision;
                transaction.changes.push(Change::Put(record.entry(&key)));
            } else {
                transaction.changes.push(Change::Delete(key.clone()));
            }
            self.tell(&key, revision, true);
        }
        self.history.push(transaction);
        self.noticed();
    }
}
