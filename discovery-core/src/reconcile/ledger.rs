//! What an owner wants stored, and how much of it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::claim::{Claim, Waiter};
use crate::backend::{Desired, Stamp, Write, WriteBatch};
use crate::backoff::Backoff;
use crate::error::{Effect, Error, ErrorKind};
use crate::key::Key;
use crate::registration::RegistrationState;
use crate::store::same_value;

/// How many independent writes go into one publish.
const GROUP: usize = 512;

/// Answers a new wish.
pub(crate) struct Wish {
    pub(crate) claim: u64,
    pub(crate) change: u64,
    pub(crate) state: watch::Receiver<RegistrationState>,
}

/// Whether something that was stored is gone again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TakenBack {
    Already,
    /// Once the waiter hears of it.
    Asked,
    Unknown,
}

/// What to publish next.
pub(crate) struct Work {
    pub(crate) batch: WriteBatch,
    /// For each write, the number of its wish, and whether something may have been stored before.
    pub(super) changes: Vec<(u64, bool)>,
}

/// Keys that are to be written as one transaction.
pub(super) struct Group {
    pub(super) keys: Vec<Key>,
    pub(super) not_before: Option<Instant>,
}

pub(crate) struct Ledger {
    /// Of the delays after writes that failed.
    seed: u64,
    pub(super) claims: BTreeMap<Key, Claim>,
    /// Keys to be written now.
    pub(super) dirty: BTreeSet<Key>,
    /// The one that was taken last: those after it have their turn next.
    turn: Option<Key>,
    /// Keys to be tried again at a time.
    pub(super) delayed: BTreeSet<(Instant, Key)>,
    /// Transactions, oldest first. Their callers wait, so they are few.
    pub(super) groups: VecDeque<Group>,
    /// What is being written.
    pub(super) flying: Vec<Key>,
    /// Whether that is a transaction, or the newest writes were: single ones have their turn next.
    transaction: bool,
    next: u64,
    /// All that the owner wants stored, as of the newest collected work. Shared with the publish in flight only, so
    /// that it is not copied for each write.
    pub(super) desired: Arc<Desired>,
    /// Whether anything was ever handed out to be stored.
    used: bool,
    /// The longest delay between two tries of one key.
    patience: Duration,
}

impl Ledger {
    pub(crate) fn new(patience: Duration, seed: u64) -> Self {
        Self {
            seed,
            claims: BTreeMap::new(),
            dirty: BTreeSet::new(),
            turn: None,
            delayed: BTreeSet::new(),
            groups: VecDeque::new(),
            flying: Vec::new(),
            transaction: false,
            next: 0,
            desired: Arc::default(),
            used: false,
            patience,
        }
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    /// Whether the store may hold anything of this owner.
    pub(crate) fn is_used(&self) -> bool {
        self.used
    }

    pub(crate) fn desired(&self) -> Arc<Desired> {
        Arc::clone(&self.desired)
    }

    /// The value that is wanted under `key`.
    pub(crate) fn wanted(&self, key: &Key) -> Option<&Bytes> {
        self.claims.get(key)?.wanted.as_ref()
    }

    /// Wants `value` stored under `key`, and counts the caller as a holder. An equal wish that is stored already is
    /// answered at once.
    pub(crate) fn want(&mut self, key: &Key, value: Bytes, waiter: Waiter) -> Wish {
        let wish = self.wish(key, value, waiter);
        if let Some(claim) = self.claims.get_mut(key) {
            claim.holders += 1;
        }
        wish
    }

    fn wish(&mut self, key: &Key, value: Bytes, waiter: Waiter) -> Wish {
        let number = self.number();
        let claim = self.claims.entry(key.clone()).or_insert_with(|| Claim::new(number, RegistrationState::Pending));
        match &claim.wanted {
            Some(wanted) if same_value(wanted, &value) => match &claim.last {
                Some((_, stamp)) if claim.stored == claim.change => drop(waiter.send(Ok(stamp.clone()))),
                _ => claim.for_put.push((claim.change, waiter)),
            },
            wanted => {
                if wanted.is_none() && claim.id != number {
                    // A withdrawal that is still under way: what comes now is a claim of its own.
                    claim.id = number;
                    claim.holders = 0;
                    claim.last = None;
                    claim.state = watch::Sender::new(RegistrationState::Pending);
                }
                claim.wanted = Some(value);
                claim.change = number;
                claim.unsure = false;
                claim.backoff = None;
                claim.for_put.push((number, waiter));
                self.dirty.insert(key.clone());
            }
        }
        Wish { claim: claim.id, change: claim.change, state: claim.state.subscribe() }
    }

    /// Makes the wishes for these keys one transaction, but for those that are stored already.
    pub(crate) fn group(&mut self, mut keys: Vec<Key>) {
        keys.retain(|key| self.dirty.remove(key));
        self.groups.push_back(Group { keys, not_before: None });
    }

    /// Changes the value of a claim that is held. `None`: it was withdrawn or has failed.
    pub(crate) fn change(&mut self, key: &Key, id: u64, value: Bytes, waiter: Waiter) -> Option<u64> {
        self.holds(key, id).then(|| self.wish(key, value, waiter).change)
    }

    /// Whether a claim is still wanted.
    pub(crate) fn holds(&self, key: &Key, id: u64) -> bool {
        self.claims.get(key).is_some_and(|claim| claim.id == id && claim.wanted.is_some())
    }

    /// Takes back what a call that holds a claim did by its wish `change`: withdraws the record where nobody else holds
    /// it, and else wants again what was there `before` it, which is `None` where the others miss nothing.
    pub(crate) fn step_back(
        &mut self,
        key: &Key,
        id: u64,
        change: u64,
        before: Option<Bytes>,
        waiter: Waiter,
    ) -> TakenBack {
        if self.claims.get(key).is_some_and(|claim| claim.id == id && claim.holders == 1) {
            self.withdraw(key, id, Some(waiter));
            return TakenBack::Asked;
        }
        before.map_or(TakenBack::Already, |before| self.restore(key, id, change, before, waiter))
    }

    /// Wants `before` again, where `change` is still the newest wish: what came after it is not taken back with it.
    pub(crate) fn restore(&mut self, key: &Key, id: u64, change: u64, before: Bytes, waiter: Waiter) -> TakenBack {
        match self.claims.get(key) {
            None => TakenBack::Already,
            Some(claim) if claim.id == id && claim.change == change && claim.wanted.is_some() => {
                self.wish(key, before, waiter);
                TakenBack::Asked
            }
            // It may be stored until what came after it is.
            Some(_) => TakenBack::Unknown,
        }
    }

    /// A guard was dropped, or a caller gave up: the last one withdraws the record.
    pub(crate) fn release(&mut self, key: &Key, id: u64) {
        if let Some(claim) = self.claims.get_mut(key).filter(|claim| claim.id == id) {
            claim.holders = claim.holders.saturating_sub(1);
            if claim.holders == 0 {
                self.withdraw(key, id, None);
            }
        }
    }

    /// Wants the key gone. The wish to keep it ends here, before anything is awaited.
    pub(crate) fn withdraw(&mut self, key: &Key, id: u64, waiter: Option<Waiter>) {
        let number = self.number();
        let Some(claim) = self.claims.get_mut(key).filter(|claim| claim.id == id) else {
            if let Some(waiter) = waiter {
                let _ = waiter.send(Ok(Stamp::unordered()));
            }
            return;
        };
        let wanted = claim.wanted.take().is_some();
        if wanted {
            claim.change = number;
        }
        claim.for_delete.extend(waiter.map(|waiter| (claim.change, waiter)));
        if !wanted {
            return;
        }
        claim.backoff = None;
        claim.state.send_replace(RegistrationState::Withdrawn);
        let effect = if claim.maybe_stored { Effect::Unknown } else { Effect::None };
        let closed = Error::new(ErrorKind::Closed, "the registration was withdrawn meanwhile").with_key(key);
        claim.answer_puts(number - 1, &Err(closed.with_effect(effect)));
        let maybe_stored = claim.maybe_stored;
        for group in &mut self.groups {
            group.keys.retain(|grouped| grouped != key);
        }
        if !maybe_stored {
            return self.forget(key);
        }
        self.dirty.insert(key.clone());
        // A store that writes all that is wanted at once must not bring it back before it is deleted.
        if self.desired.contains_key(key) {
            Arc::make_mut(&mut self.desired).remove(key);
        }
    }

    pub(crate) fn withdraw_all(&mut self) {
        let claims: Vec<_> = self.claims.iter().map(|(key, claim)| (key.clone(), claim.id)).collect();
        for (key, id) in claims {
            self.withdraw(&key, id, None);
        }
        self.hurry();
    }

    /// Tries everything again at once.
    fn hurry(&mut self) {
        for (_, key) in std::mem::take(&mut self.delayed) {
            self.dirty.insert(key);
        }
        for group in &mut self.groups {
            group.not_before = None;
        }
    }

    /// The keys that may still be stored.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.claims.keys().cloned().collect()
    }

    /// When something that failed is to be tried again.
    pub(crate) fn next_try(&self) -> Option<Instant> {
        let delayed = self.delayed.first().map(|(at, _)| *at);
        delayed.into_iter().chain(self.groups.iter().filter_map(|group| group.not_before)).min()
    }

    /// The next writes that are due: one transaction, or a group of independent ones.
    pub(crate) fn collect(&mut self, now: Instant) -> Option<Work> {
        while let Some((at, key)) = self.delayed.pop_first() {
            if at > now {
                self.delayed.insert((at, key));
                break;
            }
            self.dirty.insert(key);
        }
        // In turns: neither may keep the other waiting for ever.
        let work = if self.transaction {
            self.singles().or_else(|| self.transaction(now))
        } else {
            self.transaction(now).or_else(|| self.singles())
        }?;
        self.transaction = work.batch.atomic;
        self.flying = work.batch.writes.iter().map(|write| write.key().clone()).collect();
        Some(work)
    }

    fn transaction(&mut self, now: Instant) -> Option<Work> {
        loop {
            self.groups.retain(|group| !group.keys.is_empty());
            let due = self.groups.iter().position(|group| group.not_before.is_none_or(|at| at <= now))?;
            let group = self.groups.remove(due)?;
            let work = self.work(group.keys, true);
            if !work.batch.writes.is_empty() {
                return Some(work);
            }
        }
    }

    fn singles(&mut self) -> Option<Work> {
        while !self.dirty.is_empty() {
            let after = self.turn.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let from_there = self.dirty.range((after, Bound::Unbounded));
            let keys: Vec<Key> = from_there.chain(&self.dirty).take(GROUP.min(self.dirty.len())).cloned().collect();
            self.turn = keys.last().cloned();
            let work = self.work(keys, false);
            if !work.batch.writes.is_empty() {
                return Some(work);
            }
        }
        None
    }

    fn work(&mut self, keys: Vec<Key>, atomic: bool) -> Work {
        let mut work = Work { batch: WriteBatch { writes: Vec::new(), atomic }, changes: Vec::new() };
        for key in keys {
            self.dirty.remove(&key);
            let Some(claim) = self.claims.get_mut(&key) else { continue };
            // Tried again at its time, and stored by another wish meanwhile.
            if claim.stored == claim.change {
                continue;
            }
            work.changes.push((claim.change, claim.maybe_stored));
            work.batch.writes.push(match &claim.wanted {
                Some(value) => {
                    claim.maybe_stored = true;
                    self.used = true;
                    Arc::make_mut(&mut self.desired).insert(key.clone(), value.clone());
                    Write::Put { key, value: value.clone() }
                }
                None => {
                    Arc::make_mut(&mut self.desired).remove(&key);
                    Write::Delete { key }
                }
            });
        }
        work
    }

    /// Tries a key again later, each time after a longer delay.
    pub(super) fn delay(&mut self, key: &Key) {
        let (patience, seed) = (self.patience, self.seed);
        if let Some(claim) = self.claims.get_mut(key) {
            let backoff = claim.backoff.get_or_insert_with(|| Box::new(Backoff::seeded(patience, seed)));
            let at = Instant::now() + backoff.next();
            self.dirty.remove(key);
            self.delayed.insert((at, key.clone()));
        }
    }

    /// The session is gone: nothing is known to be stored any more.
    pub(crate) fn session_lost(&mut self, cause: &Error) {
        for (key, claim) in &mut self.claims {
            (claim.stored, claim.sure) = (0, false);
            if claim.wanted.is_some() && matches!(*claim.state.borrow(), RegistrationState::Registered) {
                claim.state.send_replace(RegistrationState::Lost(cause.clone()));
            }
            self.dirty.insert(key.clone());
        }
        self.delayed.clear();
        // What was under way was cut short: it may have had an effect, and may still have one.
        let flown = std::mem::take(&mut self.flying);
        for key in &flown {
            if let Some(claim) = self.claims.get_mut(key) {
                claim.unsure = true;
            }
        }
        if self.transaction {
            self.regroup(flown);
        }
        for key in self.groups.iter().flat_map(|group| &group.keys) {
            self.dirty.remove(key);
        }
        self.hurry();
    }

    /// A record was found deleted or overwritten. Answers whether that is news: it was taken for stored.
    pub(crate) fn drifted(&mut self, key: &Key) -> bool {
        let known = self.claims.get_mut(key).filter(|claim| claim.wanted.is_some() && claim.stored == claim.change);
        let Some(claim) = known else { return false };
        let error = Error::new(ErrorKind::Unavailable, "the stored record was deleted or overwritten by others");
        (claim.stored, claim.sure) = (0, false);
        claim.state.send_replace(RegistrationState::Lost(error.with_key(key)));
        self.dirty.insert(key.clone());
        true
    }

    /// A record is stored that nobody wants: it is withdrawn, unless somebody wants it by now.
    pub(crate) fn unwanted(&mut self, key: &Key) {
        if !self.claims.contains_key(key) {
            let number = self.number();
            let mut claim = Claim::new(number, RegistrationState::Withdrawn);
            claim.maybe_stored = true;
            self.claims.insert(key.clone(), claim);
            self.dirty.insert(key.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{InstanceId, Path};

    /// REG 11: whatever else is updated without pause.
    #[test]
    fn every_key_has_its_turn() {
        let key = |number: u64| Key::new(Path::new("worker", ["a"]).unwrap(), InstanceId(number));
        let busy = 2 * GROUP as u64;
        let mut ledger = Ledger::new(Duration::from_secs(1), 0);
        let want = |ledger: &mut Ledger, number: u64, value: usize| {
            let (answer, _) = tokio::sync::oneshot::channel();
            ledger.want(&key(number), Bytes::from(value.to_string()), answer);
        };
        want(&mut ledger, busy, 0);
        for round in 0..6 {
            (0..busy).for_each(|number| want(&mut ledger, number, round));
            let work = ledger.collect(Instant::now()).unwrap();
            assert_eq!(work.batch.writes.len(), GROUP);
            if work.batch.writes.iter().any(|write| *write.key() == key(busy)) {
                return;
            }
            let stored = vec![Ok(Stamp::unordered()); GROUP];
            ledger.settle(work, stored);
        }
        panic!("six publishes, and it was in none of them");
    }
}
