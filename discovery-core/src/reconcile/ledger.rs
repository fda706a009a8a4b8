//! What an owner wants stored, and how much of it is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use crate::backend::{Desired, Stamp, Write, WriteBatch};
use crate::error::{Effect, Error, ErrorKind, Result};
use crate::key::Key;
use crate::registration::RegistrationState;
use crate::store::same_value;

/// How many independent writes go into one publish.
const GROUP: usize = 512;

/// Whoever waits for a write.
pub(crate) type Waiter = oneshot::Sender<Result<Stamp>>;

/// One key that the owner wants present, or wants gone and is not yet sure of.
struct Claim {
    /// Tells the claims that followed each other under one key apart.
    id: u64,
    /// `None`: to be removed.
    wanted: Option<Bytes>,
    /// The number of the newest wish.
    change: u64,
    /// The wish that is known to be stored; 0 for none.
    stored: u64,
    /// The value that was stored last, to go back to when an update is refused.
    last: Option<(Bytes, Stamp)>,
    holders: usize,
    waiters: Vec<(u64, Waiter)>,
    state: watch::Sender<RegistrationState>,
}

impl Claim {
    fn answer(&mut self, up_to: u64, result: &Result<Stamp>) {
        for (change, waiter) in std::mem::take(&mut self.waiters) {
            if change <= up_to {
                // A waiter that is gone has withdrawn its wish itself.
                let _ = waiter.send(result.clone());
            } else {
                self.waiters.push((change, waiter));
            }
        }
    }
}

/// Answers a new wish.
pub(crate) struct Wish {
    pub(crate) claim: u64,
    pub(crate) state: watch::Receiver<RegistrationState>,
}

/// What to publish next.
pub(crate) struct Work {
    pub(crate) batch: WriteBatch,
    changes: Vec<u64>,
}

/// What a publish's outcome asks for.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Some writes are to be tried again, after a delay.
    pub(crate) retry: Option<Error>,
    /// Some may have had an effect: read before writing again.
    pub(crate) recheck: bool,
    /// The session is gone.
    pub(crate) lost: Option<Error>,
    /// Records that are stored again after a loss.
    pub(crate) put_back: u64,
}

#[derive(Default)]
pub(crate) struct Ledger {
    claims: BTreeMap<Key, Claim>,
    dirty: BTreeSet<Key>,
    /// Keys that are to be written as one transaction, oldest first. Their callers wait, so they are few.
    groups: VecDeque<Vec<Key>>,
    next: u64,
    /// The transaction that is being written.
    flying: Option<Vec<Key>>,
    /// All that the owner wants stored, as of the newest collected work. Shared with the publish in flight only, so
    /// that it is not copied for each write.
    desired: Arc<Desired>,
}

impl Ledger {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.claims.is_empty()
    }

    pub(crate) fn desired(&self) -> Arc<Desired> {
        Arc::clone(&self.desired)
    }

    /// The value that is wanted under `key`.
    pub(crate) fn wanted(&self, key: &Key) -> Option<&Bytes> {
        self.claims.get(key)?.wanted.as_ref()
    }

    /// Wants `value` stored under `key`. An equal wish that is stored already is answered at once.
    pub(crate) fn want(&mut self, key: &Key, value: Bytes, waiter: Waiter) -> Wish {
        let number = self.number();
        let claim = self.claims.entry(key.clone()).or_insert_with(|| Claim {
            id: number,
            wanted: None,
            change: number,
            stored: 0,
            last: None,
            holders: 0,
            waiters: Vec::new(),
            state: watch::Sender::new(RegistrationState::Pending),
        });
        match &claim.wanted {
            Some(wanted) if same_value(wanted, &value) => match &claim.last {
                Some((_, stamp)) if claim.stored == claim.change => drop(waiter.send(Ok(stamp.clone()))),
                _ => claim.waiters.push((claim.change, waiter)),
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
                claim.waiters.push((number, waiter));
                self.dirty.insert(key.clone());
            }
        }
        Wish { claim: claim.id, state: claim.state.subscribe() }
    }

    /// Makes the wishes for these keys, all new, one transaction.
    pub(crate) fn group(&mut self, keys: Vec<Key>) {
        for key in &keys {
            self.dirty.remove(key);
        }
        self.groups.push_back(keys);
    }

    /// Changes the value of a claim that is held. `false`: it was withdrawn or has failed.
    pub(crate) fn change(&mut self, key: &Key, id: u64, value: Bytes, waiter: Waiter) -> bool {
        let held = self.claims.get(key).is_some_and(|claim| claim.id == id && claim.wanted.is_some());
        if held {
            self.want(key, value, waiter);
        }
        held
    }

    /// Counts one more guard of a claim. `false`: it is gone.
    pub(crate) fn hold(&mut self, key: &Key, id: u64) -> bool {
        match self.claims.get_mut(key) {
            Some(claim) if claim.id == id && claim.wanted.is_some() => {
                claim.holders += 1;
                true
            }
            _ => false,
        }
    }

    /// A caller gave up before it held its claim: without any other holder or waiter the claim goes.
    pub(crate) fn abandon(&mut self, key: &Key, id: u64) {
        if let Some(claim) = self.claims.get_mut(key)
            && claim.id == id
        {
            claim.waiters.retain(|(_, waiter)| !waiter.is_closed());
            if claim.holders == 0 && claim.waiters.is_empty() {
                self.withdraw(key, id, None);
            }
        }
    }

    /// A guard was dropped: the last one withdraws the record.
    pub(crate) fn release(&mut self, key: &Key, id: u64) {
        if let Some(claim) = self.claims.get_mut(key)
            && claim.id == id
        {
            claim.holders = claim.holders.saturating_sub(1);
            if claim.holders == 0 {
                self.withdraw(key, id, None);
            }
        }
    }

    /// Wants the key gone. The wish to keep it ends here, before anything is awaited.
    pub(crate) fn withdraw(&mut self, key: &Key, id: u64, waiter: Option<Waiter>) {
        let number = self.number();
        let gone = || Ok(Stamp::unordered());
        let Some(claim) = self.claims.get_mut(key).filter(|claim| claim.id == id) else {
            if let Some(waiter) = waiter {
                let _ = waiter.send(gone());
            }
            return;
        };
        if claim.wanted.take().is_some() {
            claim.change = number;
            claim.state.send_replace(RegistrationState::Withdrawn);
            let closed = Error::new(ErrorKind::Closed, "the registration was withdrawn meanwhile").with_key(key);
            claim.answer(number - 1, &Err(closed));
            self.dirty.insert(key.clone());
            for group in &mut self.groups {
                group.retain(|grouped| grouped != key);
            }
        }
        if let Some(waiter) = waiter {
            claim.waiters.push((claim.change, waiter));
        }
    }

    pub(crate) fn withdraw_all(&mut self) {
        let claims: Vec<_> = self.claims.iter().map(|(key, claim)| (key.clone(), claim.id)).collect();
        for (key, id) in claims {
            self.withdraw(&key, id, None);
        }
    }

    /// The keys that may still be stored.
    pub(crate) fn keys(&self) -> Vec<Key> {
        self.claims.keys().cloned().collect()
    }

    /// The next writes: one transaction, or a group of independent ones.
    pub(crate) fn collect(&mut self) -> Option<Work> {
        let atomic = self.groups.pop_front().filter(|group| !group.is_empty());
        let keys: Vec<Key> = match &atomic {
            Some(group) => group.clone(),
            None => self.dirty.iter().take(GROUP).cloned().collect(),
        };
        self.flying.clone_from(&atomic);
        let mut work = Work { batch: WriteBatch { writes: Vec::new(), atomic: atomic.is_some() }, changes: Vec::new() };
        for key in keys {
            self.dirty.remove(&key);
            let Some(claim) = self.claims.get(&key) else { continue };
            work.changes.push(claim.change);
            work.batch.writes.push(match &claim.wanted {
                Some(value) => {
                    Arc::make_mut(&mut self.desired).insert(key.clone(), value.clone());
                    Write::Put { key, value: value.clone() }
                }
                None => {
                    Arc::make_mut(&mut self.desired).remove(&key);
                    Write::Delete { key }
                }
            });
        }
        (!work.batch.writes.is_empty()).then_some(work)
    }

    /// Takes note of what came of some writes.
    pub(crate) fn settle(&mut self, work: Work, results: Vec<Result<Stamp>>) -> Outcome {
        let mut outcome = Outcome::default();
        let missing = || Err(Error::new(ErrorKind::Internal, "the backend answered too few results: please report it"));
        let results = results.into_iter().chain(std::iter::repeat_with(missing));
        for ((write, change), result) in work.batch.writes.into_iter().zip(work.changes).zip(results) {
            match result {
                Ok(stamp) => outcome.put_back += u64::from(self.stored(write, change, stamp)),
                Err(error) => self.failed(write.key(), change, error.with_key(write.key()), &mut outcome),
            }
        }
        self.regroup();
        outcome
    }

    /// A transaction that was not written stays one.
    fn regroup(&mut self) {
        let Some(mut group) = self.flying.take() else { return };
        group.retain(|key| self.dirty.remove(key));
        if !group.is_empty() {
            self.groups.push_front(group);
        }
    }

    /// Answers whether the record is back after a loss.
    fn stored(&mut self, write: Write, change: u64, stamp: Stamp) -> bool {
        let Some(claim) = self.claims.get_mut(write.key()) else { return false };
        claim.answer(change, &Ok(stamp.clone()));
        match write {
            Write::Put { value, .. } => {
                claim.last = Some((value, stamp));
                if claim.change != change {
                    return false;
                }
                claim.stored = change;
                let back = matches!(*claim.state.borrow(), RegistrationState::Lost(_));
                claim.state.send_replace(RegistrationState::Registered);
                back
            }
            Write::Delete { key } => {
                claim.last = None;
                if claim.change == change {
                    self.claims.remove(&key);
                }
                false
            }
        }
    }

    fn failed(&mut self, key: &Key, change: u64, error: Error, outcome: &mut Outcome) {
        let unknown = error.effect() == Effect::Unknown;
        outcome.recheck |= unknown;
        if error.kind() == ErrorKind::SessionLost {
            outcome.lost = Some(error.clone());
        }
        let number = self.number();
        let Some(claim) = self.claims.get_mut(key) else { return };
        let newest = claim.change == change;
        if error.is_temporary() || !newest {
            if !newest {
                claim.answer(change, &Err(error.clone()));
            }
            self.dirty.insert(key.clone());
            outcome.retry = Some(error);
            return;
        }
        if claim.wanted.is_none() {
            claim.answer(change, &Err(error.clone()));
            self.dirty.insert(key.clone());
            outcome.retry = Some(error);
            return;
        }
        let asked = !claim.waiters.is_empty();
        claim.answer(change, &Err(error.clone()));
        let hopeless = matches!(
            error.kind(),
            ErrorKind::Conflict
                | ErrorKind::TooLarge
                | ErrorKind::Refused
                | ErrorKind::InvalidKey
                | ErrorKind::InvalidValue
                | ErrorKind::Unsupported
        );
        let fall_back = claim.last.as_ref().filter(|_| error.kind() != ErrorKind::Conflict);
        match fall_back {
            // A refused update: the value before it stays.
            Some((last, _)) if asked && claim.wanted.as_ref().is_some_and(|wanted| !same_value(wanted, last)) => {
                let last = last.clone();
                Arc::make_mut(&mut self.desired).insert(key.clone(), last.clone());
                claim.wanted = Some(last);
                claim.change = number;
                claim.stored = number;
                if unknown {
                    claim.stored = 0;
                    self.dirty.insert(key.clone());
                }
            }
            // Nobody asked: a record that is to be put back is tried for ever.
            _ if !asked && !hopeless => {
                claim.state.send_replace(RegistrationState::Lost(error.clone()));
                self.dirty.insert(key.clone());
                outcome.retry = Some(error);
            }
            _ => {
                let id = claim.id;
                claim.state.send_replace(RegistrationState::Failed(error));
                if unknown {
                    self.withdraw_failed(key, id);
                } else {
                    self.claims.remove(key);
                    Arc::make_mut(&mut self.desired).remove(key);
                }
            }
        }
    }

    /// Withdraws a record that failed and may be stored all the same, keeping what its registration says.
    fn withdraw_failed(&mut self, key: &Key, id: u64) {
        if let Some(claim) = self.claims.get_mut(key).filter(|claim| claim.id == id) {
            // A sender of its own, so that the guard goes on saying why it failed.
            claim.state = watch::Sender::new(RegistrationState::Withdrawn);
            self.withdraw(key, id, None);
        }
    }

    /// The session is gone: nothing is known to be stored any more.
    pub(crate) fn session_lost(&mut self, cause: &Error) {
        for (key, claim) in &mut self.claims {
            claim.stored = 0;
            if claim.wanted.is_some() && matches!(*claim.state.borrow(), RegistrationState::Registered) {
                claim.state.send_replace(RegistrationState::Lost(cause.clone()));
            }
            self.dirty.insert(key.clone());
        }
        self.regroup();
        for key in self.groups.iter().flatten() {
            self.dirty.remove(key);
        }
    }

    /// A record was found deleted or overwritten.
    pub(crate) fn drifted(&mut self, key: &Key) {
        if let Some(claim) = self.claims.get_mut(key)
            && claim.wanted.is_some()
            && claim.stored == claim.change
        {
            let error = Error::new(ErrorKind::Unavailable, "the stored record was deleted or overwritten by others");
            claim.stored = 0;
            claim.state.send_replace(RegistrationState::Lost(error.with_key(key)));
            self.dirty.insert(key.clone());
        }
    }

    /// A record is stored that nobody wants: it is withdrawn, unless somebody wants it by now.
    pub(crate) fn unwanted(&mut self, key: &Key) {
        if !self.claims.contains_key(key) {
            let number = self.number();
            let claim = Claim {
                id: number,
                wanted: None,
                change: number,
                stored: 0,
                last: None,
                holders: 0,
                waiters: Vec::new(),
                state: watch::Sender::new(RegistrationState::Withdrawn),
            };
            self.claims.insert(key.clone(), claim);
            self.dirty.insert(key.clone());
        }
    }

    /// Another owner holds the key for good.
    pub(crate) fn taken(&mut self, key: &Key, conflict: &Error) {
        if let Some(mut claim) = self.claims.remove(key) {
            Arc::make_mut(&mut self.desired).remove(key);
            self.dirty.remove(key);
            claim.answer(u64::MAX, &Err(conflict.clone()));
            if claim.wanted.is_some() {
                claim.state.send_replace(RegistrationState::Failed(conflict.clone()));
            }
        }
    }
}
