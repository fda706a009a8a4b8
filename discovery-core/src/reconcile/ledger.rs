//! What an owner wants stored, and how much of it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::claim::{Claim, Waiter};
use crate::backend::{Desired, Stamp, Write, WriteBatch};
use crate::backoff::Backoff;
use crate::error::{Effect, Error, ErrorKind, Result};
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

/// What to publish next.
pub(crate) struct Work {
    pub(crate) batch: WriteBatch,
    /// For each write, the number of its wish, and whether something may have been stored before.
    changes: Vec<(u64, bool)>,
}

/// What a publish's outcome asks for.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Some writes are tried again later.
    pub(crate) retry: Option<Error>,
    /// Some may have had an effect: read before writing again.
    pub(crate) recheck: bool,
    /// The session is gone.
    pub(crate) lost: Option<Error>,
    /// Records that are stored again after a loss.
    pub(crate) put_back: u64,
}

/// Keys that are to be written as one transaction.
struct Group {
    keys: Vec<Key>,
    not_before: Option<Instant>,
}

pub(crate) struct Ledger {
    claims: BTreeMap<Key, Claim>,
    /// Keys to be written now.
    dirty: BTreeSet<Key>,
    /// Keys to be tried again at a time.
    delayed: BTreeSet<(Instant, Key)>,
    /// Transactions, oldest first. Their callers wait, so they are few.
    groups: VecDeque<Group>,
    /// The transaction that is being written.
    flying: Option<Vec<Key>>,
    next: u64,
    /// All that the owner wants stored, as of the newest collected work. Shared with the publish in flight only, so
    /// that it is not copied for each write.
    desired: Arc<Desired>,
    /// Whether anything was ever handed out to be stored.
    used: bool,
    /// The longest delay between two tries of one key.
    patience: Duration,
}

impl Ledger {
    pub(crate) fn new(patience: Duration) -> Self {
        Self {
            claims: BTreeMap::new(),
            dirty: BTreeSet::new(),
            delayed: BTreeSet::new(),
            groups: VecDeque::new(),
            flying: None,
            next: 0,
            desired: Arc::default(),
            used: false,
            patience,
        }
    }

    fn number(&mut self) -> u64 {
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

    /// Whether only one guard or caller holds this claim.
    pub(crate) fn is_sole(&self, key: &Key, id: u64) -> bool {
        self.claims.get(key).is_some_and(|claim| claim.id == id && claim.holders == 1)
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
        self.dirty.insert(key.clone());
        for group in &mut self.groups {
            group.keys.retain(|grouped| grouped != key);
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
        self.groups.retain(|group| !group.keys.is_empty());
        let due = self.groups.iter().position(|group| group.not_before.is_none_or(|at| at <= now));
        if let Some(group) = due.and_then(|due| self.groups.remove(due)) {
            self.flying = Some(group.keys.clone());
            return Some(self.work(group.keys, true));
        }
        while !self.dirty.is_empty() {
            let keys: Vec<Key> = self.dirty.iter().take(GROUP).cloned().collect();
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

    /// Takes note of what came of some writes.
    pub(crate) fn settle(&mut self, work: Work, results: Vec<Result<Stamp>>) -> Outcome {
        let mut outcome = Outcome::default();
        let missing = || {
            let error = Error::new(ErrorKind::Internal, "the backend answered too few results: please report it");
            Err(error.with_effect(Effect::Unknown))
        };
        let results = results.into_iter().chain(std::iter::repeat_with(missing));
        for ((write, (change, stored_before)), result) in work.batch.writes.into_iter().zip(work.changes).zip(results) {
            match result {
                Ok(stamp) => outcome.put_back += u64::from(self.stored(write, change, stamp)),
                Err(error) => {
                    let key = write.key().clone();
                    self.failed(&key, change, stored_before, error.with_key(&key), &mut outcome);
                }
            }
        }
        self.regroup();
        outcome
    }

    /// A transaction that was not written stays one.
    fn regroup(&mut self) {
        let Some(keys) = self.flying.take() else { return };
        let now = Instant::now();
        let mut not_before = None;
        let waiting: BTreeMap<Key, Instant> = self.delayed.iter().map(|(at, key)| (key.clone(), *at)).collect();
        let mut group = Vec::new();
        for key in keys {
            if let Some(at) = waiting.get(&key) {
                self.delayed.remove(&(*at, key.clone()));
                not_before = not_before.max(Some(*at));
                group.push(key);
            } else if self.dirty.remove(&key) {
                group.push(key);
            }
        }
        if !group.is_empty() {
            self.groups.push_front(Group { keys: group, not_before: not_before.filter(|at| *at > now) });
        }
    }

    /// Answers whether the record is back after a loss.
    fn stored(&mut self, write: Write, change: u64, stamp: Stamp) -> bool {
        let Some(claim) = self.claims.get_mut(write.key()) else { return false };
        claim.backoff = None;
        claim.answer_deletes(change, &Ok(stamp.clone()));
        match write {
            Write::Put { value, .. } => {
                claim.answer_puts(change, &Ok(stamp.clone()));
                claim.last = Some((value, stamp));
                claim.sure = true;
                if claim.change != change {
                    return false;
                }
                claim.stored = change;
                claim.unsure = false;
                let back = matches!(*claim.state.borrow(), RegistrationState::Lost(_));
                claim.state.send_replace(RegistrationState::Registered);
                back
            }
            Write::Delete { key } => {
                (claim.last, claim.sure, claim.maybe_stored) = (None, false, false);
                if claim.change == change {
                    self.claims.remove(&key);
                }
                false
            }
        }
    }

    fn failed(&mut self, key: &Key, change: u64, stored_before: bool, error: Error, outcome: &mut Outcome) {
        let unknown = error.effect() == Effect::Unknown;
        outcome.recheck |= unknown;
        if error.kind() == ErrorKind::SessionLost {
            outcome.lost = Some(error.clone());
        }
        let number = self.number();
        let Some(claim) = self.claims.get_mut(key) else { return };
        claim.unsure |= unknown;
        if unknown {
            claim.sure = false;
        } else {
            claim.maybe_stored = stored_before;
        }
        let error = claim.with_effects(error);
        let newest = claim.change == change;
        if error.is_temporary() || !newest {
            if !newest {
                claim.answer_puts(change, &Err(error.clone()));
            }
            self.delay(key);
            outcome.retry = Some(error);
            return;
        }
        let Some(wanted) = claim.wanted.clone() else {
            claim.answer_deletes(change, &Err(error.clone()));
            self.delay(key);
            outcome.retry = Some(error);
            return;
        };
        let asked = !claim.for_put.is_empty();
        claim.answer_puts(change, &Err(error.clone()));
        let hopeless = is_hopeless(error.kind());
        let last = claim.last.clone().map(|(value, _)| value);
        match last {
            // A refused update: the value before it stays.
            Some(last) if (asked || hopeless) && !same_value(&wanted, &last) && error.kind() != ErrorKind::Conflict => {
                Arc::make_mut(&mut self.desired).insert(key.clone(), last.clone());
                claim.wanted = Some(last);
                claim.change = number;
                claim.unsure = false;
                if claim.sure {
                    claim.stored = number;
                } else {
                    self.delay(key);
                }
            }
            // A record that was stored once is put back for as long as it takes.
            Some(_) if !hopeless => {
                claim.state.send_replace(RegistrationState::Lost(error.clone()));
                self.delay(key);
                outcome.retry = Some(error);
            }
            _ => self.give_up(key, error),
        }
    }

    /// Ends a claim that cannot be stored. What may be stored of it is withdrawn, while its guards go on saying why.
    fn give_up(&mut self, key: &Key, error: Error) {
        let Some(claim) = self.claims.get_mut(key) else { return };
        claim.state.send_replace(RegistrationState::Failed(error));
        if claim.maybe_stored {
            let id = claim.id;
            claim.state = watch::Sender::new(RegistrationState::Withdrawn);
            self.withdraw(key, id, None);
        } else {
            claim.answer_deletes(u64::MAX, &Ok(Stamp::unordered()));
            self.claims.remove(key);
            Arc::make_mut(&mut self.desired).remove(key);
        }
    }

    /// Tries a key again later, each time after a longer delay.
    fn delay(&mut self, key: &Key) {
        let patience = self.patience;
        if let Some(claim) = self.claims.get_mut(key) {
            let backoff = claim.backoff.get_or_insert_with(|| Box::new(Backoff::new(patience)));
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
        self.regroup();
        for key in self.groups.iter().flat_map(|group| &group.keys) {
            self.dirty.remove(key);
        }
        self.hurry();
    }

    /// A record was found deleted or overwritten.
    pub(crate) fn drifted(&mut self, key: &Key) {
        if let Some(claim) = self.claims.get_mut(key)
            && claim.wanted.is_some()
            && claim.stored == claim.change
        {
            let error = Error::new(ErrorKind::Unavailable, "the stored record was deleted or overwritten by others");
            (claim.stored, claim.sure) = (0, false);
            claim.state.send_replace(RegistrationState::Lost(error.with_key(key)));
            self.dirty.insert(key.clone());
        }
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

    /// Another owner holds the key for good, and with it whatever was to be written in one transaction with it.
    pub(crate) fn taken(&mut self, key: &Key, conflict: &Error) {
        let waiting = self.groups.iter().position(|group| group.keys.contains(key));
        let group = waiting.and_then(|at| self.groups.remove(at)).map(|group| group.keys).unwrap_or_default();
        for other in group.iter().filter(|other| *other != key) {
            if let Some(claim) = self.claims.get_mut(other) {
                let error = claim.with_effects(conflict.clone());
                claim.answer_puts(u64::MAX, &Err(error));
            }
            self.give_up(other, conflict.clone());
        }
        if let Some(mut claim) = self.claims.remove(key) {
            Arc::make_mut(&mut self.desired).remove(key);
            self.dirty.remove(key);
            let error = claim.with_effects(conflict.clone());
            claim.answer_puts(u64::MAX, &Err(error));
            // What is there is not this owner's, so nothing of it is left.
            claim.answer_deletes(u64::MAX, &Ok(Stamp::unordered()));
            if claim.wanted.is_some() {
                claim.state.send_replace(RegistrationState::Failed(conflict.clone()));
            }
        }
    }
}

/// Whether trying the same write again can never help.
fn is_hopeless(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Conflict
            | ErrorKind::TooLarge
            | ErrorKind::Refused
            | ErrorKind::InvalidKey
            | ErrorKind::InvalidValue
            | ErrorKind::Unsupported
    )
}
