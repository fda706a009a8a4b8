//! What came of the writes: who is answered, what is tried again, what is given up.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::Instant;

use super::claim::Claim;
use super::ledger::{Group, Ledger, Work};
use crate::backend::{Stamp, Write};
use crate::error::{Effect, Error, ErrorKind, Result};
use crate::key::Key;
use crate::registration::RegistrationState;
use crate::store::same_value;

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

/// One write that failed.
struct Failure {
    /// The number of its wish.
    change: u64,
    /// Whether something may have been stored before it.
    stored_before: bool,
    /// Whether it failed with others, for what one of them alone may have met.
    atomic: bool,
    error: Error,
}

impl Ledger {
    /// Takes note of what came of some writes.
    pub(crate) fn settle(&mut self, work: Work, results: Vec<Result<Stamp>>) -> Outcome {
        let mut outcome = Outcome::default();
        let atomic = work.batch.atomic;
        let missing = || {
            let error = Error::new(ErrorKind::Internal, "the backend answered too few results: please report it");
            Err(error.with_effect(Effect::Unknown))
        };
        let results = results.into_iter().chain(std::iter::repeat_with(missing));
        let mut again = atomic;
        for ((write, (change, stored_before)), result) in work.batch.writes.into_iter().zip(work.changes).zip(results) {
            match result {
                Ok(stamp) => outcome.put_back += u64::from(self.stored(write, change, stamp)),
                Err(error) => {
                    let key = write.key().clone();
                    again &= error.is_temporary();
                    // Of a transaction only the store knows which of its keys it was.
                    let error = if atomic { error } else { error.with_key(&key) };
                    self.failed(&key, Failure { change, stored_before, atomic, error }, &mut outcome);
                }
            }
        }
        let flown = std::mem::take(&mut self.flying);
        if again {
            self.regroup(flown);
        }
        outcome
    }

    /// A transaction that was not written stays one, but for what was withdrawn meanwhile.
    pub(super) fn regroup(&mut self, keys: Vec<Key>) {
        let now = Instant::now();
        let mut not_before = None;
        let waiting: BTreeMap<Key, Instant> = self.delayed.iter().map(|(at, key)| (key.clone(), *at)).collect();
        let mut group = Vec::new();
        for key in keys {
            if self.wanted(&key).is_none() {
                continue;
            }
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

    fn failed(&mut self, key: &Key, failure: Failure, outcome: &mut Outcome) {
        let Failure { change, stored_before, atomic, error } = failure;
        let unknown = error.effect() == Effect::Unknown;
        outcome.recheck |= unknown;
        if error.kind() == ErrorKind::SessionLost {
            outcome.lost = Some(error.clone());
        }
        let Some(claim) = self.claims.get_mut(key) else { return };
        claim.unsure |= unknown;
        if unknown {
            claim.sure = false;
        } else {
            claim.maybe_stored = stored_before;
        }
        let error = claim.with_effects(error);
        let newest = claim.change == change;
        if !newest {
            claim.answer_puts(change, &Err(error.clone()));
        }
        if claim.wanted.is_none() && !claim.maybe_stored {
            // Withdrawn while it was under way, and it has left nothing.
            return self.forget(key);
        }
        if error.is_temporary() || !newest {
            // A newer wish that waits as part of a transaction is not written without the rest.
            if !self.groups.iter().any(|group| group.keys.contains(key)) {
                self.delay(key);
            }
            outcome.retry = Some(error);
            return;
        }
        if claim.wanted.is_none() {
            claim.answer_deletes(change, &Err(error.clone()));
            self.delay(key);
            outcome.retry = Some(error);
            return;
        }
        let asked = !claim.for_put.is_empty();
        claim.answer_puts(change, &Err(error.clone()));
        let hopeless = is_hopeless(error.kind());
        // A conflict says that the key is another's; that of a transaction may be about any of its keys.
        let may_stay = atomic || error.kind() != ErrorKind::Conflict;
        if may_stay && (asked || hopeless) && self.go_back(key) {
            outcome.recheck |= error.kind() == ErrorKind::Conflict;
            return;
        }
        let known = self.claims.get_mut(key).filter(|claim| claim.last.is_some());
        match known {
            // A record that was stored once is put back for as long as it takes.
            Some(claim) if atomic || !hopeless => {
                claim.state.send_replace(RegistrationState::Lost(error.clone()));
                self.delay(key);
                outcome.retry = Some(error);
            }
            _ => self.give_up(key, error),
        }
    }

    /// A refused change: the value before it, which was stored once, is wanted again. Answers whether there is one.
    fn go_back(&mut self, key: &Key) -> bool {
        let number = self.number();
        let Some(claim) = self.claims.get_mut(key) else { return false };
        let (Some(wanted), Some((last, _))) = (&claim.wanted, &claim.last) else { return false };
        if same_value(wanted, last) {
            return false;
        }
        Arc::make_mut(&mut self.desired).insert(key.clone(), last.clone());
        claim.wanted = Some(last.clone());
        claim.change = number;
        claim.unsure = false;
        if claim.sure {
            claim.stored = number;
        } else {
            self.delay(key);
        }
        true
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
            self.forget(key);
        }
    }

    /// Ends a claim of which nothing is stored.
    pub(super) fn forget(&mut self, key: &Key) {
        if let Some(mut claim) = self.claims.remove(key) {
            claim.answer_deletes(u64::MAX, &Ok(Stamp::unordered()));
        }
        self.dirty.remove(key);
        // Copied where a publish in flight shares it, so only where there is something to remove.
        if self.desired.contains_key(key) {
            Arc::make_mut(&mut self.desired).remove(key);
        }
    }

    /// Another owner holds the key for good: whatever was to be written in one transaction with it is refused with it.
    pub(crate) fn taken(&mut self, key: &Key, conflict: &Error) {
        let waiting = self.groups.iter().position(|group| group.keys.contains(key));
        let group = waiting.and_then(|at| self.groups.remove(at)).map(|group| group.keys).unwrap_or_default();
        for other in group.iter().filter(|other| *other != key) {
            let Some(claim) = self.claims.get_mut(other) else { continue };
            let error = claim.with_effects(conflict.clone());
            claim.answer_puts(u64::MAX, &Err(error));
            if self.go_back(other) {
                continue;
            }
            match self.claims.get(other) {
                Some(claim) if claim.last.is_some() => drop(self.dirty.insert(other.clone())),
                _ => self.give_up(other, conflict.clone()),
            }
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

impl Claim {
    /// The error with the effect of all the attempts that were made, and not of the last one alone.
    fn with_effects(&self, error: Error) -> Error {
        if self.unsure { error.with_effect(Effect::Unknown) } else { error }
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
