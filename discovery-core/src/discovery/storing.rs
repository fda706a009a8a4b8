//! From a record that is to be registered to one that is stored: its key, its checks, its claim in the ledger.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Inner;
use crate::backend::Stamp;
use crate::error::{Effect, Error, ErrorKind, Result};
use crate::key::{InstanceId, Key, Path};
use crate::reconcile::{TakenBack, Waiter, Wish, closed};
use crate::record::Record;
use crate::registration::{Registration, Stored};
use crate::store::same_value;

/// What is to be stored, before the instance id is known.
pub(super) struct Proposal<T> {
    pub(super) path: Path,
    pub(super) suffix: Option<String>,
    pub(super) instance: Option<InstanceId>,
    pub(super) value: Arc<T>,
    pub(super) encode: fn(&T, &Key) -> Result<Bytes>,
}

/// A proposal under its key, encoded.
struct Placed<T> {
    key: Key,
    bytes: Bytes,
    value: Arc<T>,
    /// What the owner wanted under the key when the record's rules were asked. `None`: there are no rules.
    checked: Option<Option<Bytes>>,
}

pub(super) fn propose<T: Record>(record: T) -> Result<Proposal<T>> {
    Ok(Proposal {
        path: record.path()?,
        suffix: record.suffix().map(str::to_owned),
        instance: record.instance(),
        value: Arc::new(record),
        encode: T::encode,
    })
}

/// A record must go with those before it in its batch as with those that are stored.
fn check_in_batch<T: Record>(one: &Placed<T>, before: &[Placed<T>]) -> Result<()> {
    if before.iter().any(|other| other.key == one.key) {
        return Err(Error::new(ErrorKind::InvalidKey, "the batch holds this key twice").with_key(&one.key));
    }
    let Some(query) = one.value.neighbours() else { return Ok(()) };
    let scope = query.scope(Some(T::KIND))?;
    let mut beside = before.iter().filter(|other| scope.contains(&other.key));
    beside.try_for_each(|other| one.value.check_beside(&other.value).map_err(|error| error.with_key(&one.key)))
}

/// Whether a record that is wanted already may become `next`.
fn check_update<T: Record>(key: &Key, held: Option<&Bytes>, next: &T, bytes: &Bytes) -> Result<()> {
    match held {
        Some(held) if !same_value(held, bytes) => {
            T::decode(key, held)?.check_update(next).map_err(|error| error.with_key(key))
        }
        _ => Ok(()),
    }
}

/// Waits for what the ledger was asked to take back. Answers whether it is certain.
async fn confirmed(key: &Key, taken_back: TakenBack, answer: oneshot::Receiver<Result<Stamp>>) -> bool {
    match taken_back {
        TakenBack::Already => true,
        TakenBack::Unknown => false,
        TakenBack::Asked => match answer.await.unwrap_or_else(|_| Err(closed())) {
            Ok(_) => true,
            Err(error) => {
                tracing::warn!(key = %key, error = %error, "not taken back");
                false
            }
        },
    }
}

fn withdrawn(key: &Key) -> Error {
    Error::new(ErrorKind::Closed, "the registration was withdrawn or has failed: register again").with_key(key)
}

/// Releases the claims of a call that was cancelled or failed.
struct Compensation {
    inner: Arc<Inner>,
    claims: Vec<(Key, u64)>,
}

impl Drop for Compensation {
    fn drop(&mut self) {
        for (key, claim) in &self.claims {
            self.inner.release(key, *claim);
        }
    }
}

impl Inner {
    /// Runs a write. Where it was cut short by a deadline or a shutdown, what it did is unknown.
    pub(super) async fn run_write<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let name = |error: Error| error.with_backend(self.backend.name()).with_operation(operation);
        match self.run_limited(operation, async move { Ok(work.await) }).await {
            Ok(outcome) => outcome.map_err(name),
            Err(error) => {
                let cause = self.reconciler.session().borrow().write.clone();
                let untold = error.kind() == ErrorKind::Timeout && std::error::Error::source(&error).is_none();
                let error = match cause.filter(|_| untold) {
                    Some(cause) => error.with_source(cause),
                    None => error,
                };
                Err(error.with_effect(Effect::Unknown))
            }
        }
    }

    /// Finds the key and the stored bytes, refusing what the backend cannot hold before any I/O that is not needed to
    /// know the instance id.
    async fn place<T>(&self, proposal: Proposal<T>) -> Result<Placed<T>> {
        let Proposal { path, suffix, instance, value, encode } = proposal;
        let key_of = |instance| {
            let key = Key::new(path.clone(), instance);
            match &suffix {
                Some(suffix) => key.with_suffix(suffix),
                None => Ok(key),
            }
        };
        // Any id shows whether the path and the value can be stored at all, if the store can hold it: some have 53 bits.
        let trial = key_of(instance.unwrap_or(InstanceId((1 << 53) - 1)))?;
        let tried = encode(&value, &trial).and_then(|bytes| self.backend.admit(&trial, bytes.len()));
        tried.map_err(|error| if instance.is_some() { error.with_key(&trial) } else { error.of_path(&path) })?;
        let instance = match instance {
            Some(instance) => instance,
            None => self.reconciler.instance().await?,
        };
        let key = key_of(instance)?;
        let bytes = encode(&value, &key)?;
        self.backend.admit(&key, bytes.len()).map_err(|error| error.with_key(&key))?;
        Ok(Placed { key, bytes, value, checked: None })
    }

    /// Places, checks and stores records of one type.
    pub(super) async fn register_proposals<T: Record>(
        self: &Arc<Self>,
        proposals: Vec<Proposal<T>>,
        atomic: bool,
    ) -> Result<Vec<Registration<T>>> {
        let mut placed: Vec<Placed<T>> = Vec::with_capacity(proposals.len());
        for proposal in proposals {
            let one = self.place(proposal).await?;
            check_in_batch(&one, &placed)?;
            self.check_neighbours(&one.key, &*one.value).await?;
            placed.push(one);
        }
        let registrations = loop {
            for one in &mut placed {
                let held = self.reconciler.ledger().wanted(&one.key).cloned();
                check_update(&one.key, held.as_ref(), &*one.value, &one.bytes)?;
                one.checked = Some(held);
            }
            // `None`: somebody else of this process has changed what the rules were asked about.
            if let Some(registrations) = self.store_all(&placed, atomic).await? {
                break registrations;
            }
        };
        // Two neighbours that were written at the same time see each other now, and both step back.
        for one in &placed {
            if let Err(error) = self.check_neighbours(&one.key, &*one.value).await {
                let confirmed = self.step_back(&placed, registrations).await;
                return Err(if confirmed { error } else { error.with_effect(Effect::Unknown) });
            }
        }
        Ok(registrations)
    }

    /// Stores one record for which there are no rules.
    pub(super) async fn register_unchecked<T>(self: &Arc<Self>, proposal: Proposal<T>) -> Result<Registration<T>> {
        let placed = self.place(proposal).await?;
        self.store_all(&[placed], false).await?.and_then(|mut stored| stored.pop()).ok_or_else(closed)
    }

    /// Takes back what this call has stored, and waits until it is gone: the loser of a conflict leaves nothing. A record
    /// that others hold too is theirs, with the value that it had before. Answers whether that is certain.
    async fn step_back<T>(&self, placed: &[Placed<T>], registrations: Vec<Registration<T>>) -> bool {
        let mut asked = Vec::with_capacity(registrations.len());
        for (one, registration) in placed.iter().zip(&registrations) {
            let before = one.checked.clone().flatten().filter(|before| !same_value(before, &one.bytes));
            let (waiter, answer) = oneshot::channel();
            let (claim, change) = (registration.claim(), registration.change());
            let taken_back = self.reconciler.ledger().step_back(&one.key, claim, change, before, waiter);
            asked.push((&one.key, taken_back, answer));
        }
        self.reconciler.notify();
        let mut certain = true;
        for (key, taken_back, answer) in asked {
            certain &= confirmed(key, taken_back, answer).await;
        }
        certain
    }

    /// Reads the neighbours and asks the record about each. Temporary failures are tried again: the caller has the
    /// deadline.
    async fn check_neighbours<T: Record>(&self, key: &Key, value: &T) -> Result<()> {
        let Some(query) = value.neighbours() else { return Ok(()) };
        let mut backoff = self.backoff();
        let others = loop {
            let scope = query.scope(Some(T::KIND))?;
            match self.list::<T>(scope, &query, |key, value| T::decode(key, value)).await {
                Ok(others) => break others,
                Err(error) if error.is_temporary() => tokio::time::sleep(backoff.next()).await,
                Err(error) => return Err(error),
            }
        };
        let mut others = others.iter().filter(|other| other.key() != key);
        others.try_for_each(|other| value.check_beside(other).map_err(|error| error.with_key(key)))
    }

    /// Wants records stored and waits until they are. `None`: what a record's rules were asked about is no longer so,
    /// and nothing was done.
    async fn store_all<T>(
        self: &Arc<Self>,
        placed: &[Placed<T>],
        atomic: bool,
    ) -> Result<Option<Vec<Registration<T>>>> {
        let mut compensation = Compensation { inner: Arc::clone(self), claims: Vec::with_capacity(placed.len()) };
        let mut pending = Vec::with_capacity(placed.len());
        {
            let mut ledger = self.reconciler.ledger();
            // Checked under the lock: a shutdown withdraws all that is in the ledger, and nothing comes after it.
            self.reconciler.check_open()?;
            let stale =
                |one: &Placed<T>| one.checked.as_ref().is_some_and(|held| held.as_ref() != ledger.wanted(&one.key));
            if placed.iter().any(stale) {
                return Ok(None);
            }
            for one in placed {
                let (waiter, answer) = oneshot::channel();
                let wish = ledger.want(&one.key, one.bytes.clone(), waiter);
                compensation.claims.push((one.key.clone(), wish.claim));
                pending.push((one, wish, answer));
            }
            if atomic {
                ledger.group(placed.iter().map(|one| one.key.clone()).collect());
            }
        }
        self.reconciler.notify();
        let mut stored = Vec::with_capacity(pending.len());
        let mut failure = None;
        for (one, wish, answer) in pending {
            match answer.await.unwrap_or_else(|_| Err(closed().with_effect(Effect::Unknown))) {
                Ok(stamp) => stored.push((one, wish, stamp)),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        {
            let ledger = self.reconciler.ledger();
            if let Some((one, ..)) = stored.iter().find(|(one, wish, _)| !ledger.holds(&one.key, wish.claim)) {
                return Err(withdrawn(&one.key).with_effect(Effect::Unknown));
            }
        }
        // Each claim is held by its guard from here on.
        compensation.claims.clear();
        let guard = |(one, wish, stamp): (&Placed<T>, Wish, Stamp)| {
            let stored = Stored { key: one.key.clone(), value: Arc::clone(&one.value), stamp };
            Registration::new(Arc::clone(self), wish, stored)
        };
        Ok(Some(stored.into_iter().map(guard).collect()))
    }

    /// Stores another value of a record that is held. Answers the number of the wish, by which updates are ordered.
    pub(crate) async fn update<T: Record>(
        self: &Arc<Self>,
        key: Key,
        claim: u64,
        next: Arc<T>,
    ) -> Result<(u64, Stamp)> {
        let bytes = next.encode(&key)?;
        self.backend.admit(&key, bytes.len()).map_err(|error| error.with_key(&key).with_operation("update"))?;
        let inner = Arc::clone(self);
        self.run_write("update", async move {
            inner.check_neighbours(&key, &*next).await?;
            let before = inner.reconciler.ledger().wanted(&key).cloned();
            check_update(&key, before.as_ref(), &*next, &bytes)?;
            let (replaced, change, stamp) = inner.replace(&key, claim, before, bytes.clone(), &*next).await?;
            if let Err(error) = inner.check_neighbours(&key, &*next).await {
                let Some(before) = replaced.filter(|before| !same_value(before, &bytes)) else { return Err(error) };
                let (waiter, answer) = oneshot::channel();
                let taken_back = inner.reconciler.ledger().restore(&key, claim, change, before, waiter);
                inner.reconciler.notify();
                let certain = confirmed(&key, taken_back, answer).await;
                return Err(if certain { error } else { error.with_effect(Effect::Unknown) });
            }
            Ok((change, stamp))
        })
        .await
    }

    /// Wants `bytes` in the place of what the rules were asked about, asking again where that has changed. Answers what it
    /// has replaced, too.
    async fn replace<T: Record>(
        &self,
        key: &Key,
        claim: u64,
        mut before: Option<Bytes>,
        bytes: Bytes,
        next: &T,
    ) -> Result<(Option<Bytes>, u64, Stamp)> {
        loop {
            let (waiter, answer) = oneshot::channel();
            match self.want_instead(key, claim, before.as_ref(), bytes.clone(), waiter)? {
                Ok(change) => {
                    self.reconciler.notify();
                    let answer = answer.await.unwrap_or_else(|_| Err(closed().with_effect(Effect::Unknown)));
                    return answer.map(|stamp| (before, change, stamp));
                }
                Err(wanted) => {
                    check_update(key, wanted.as_ref(), next, &bytes)?;
                    before = wanted;
                }
            }
        }
    }

    /// Changes the wish where it is still `before`, and answers its number; else answers what is wanted now.
    fn want_instead(
        &self,
        key: &Key,
        claim: u64,
        before: Option<&Bytes>,
        bytes: Bytes,
        waiter: Waiter,
    ) -> Result<Result<u64, Option<Bytes>>> {
        let mut ledger = self.reconciler.ledger();
        if ledger.wanted(key) != before {
            return Ok(Err(ledger.wanted(key).cloned()));
        }
        ledger.change(key, claim, bytes, waiter).map(Ok).ok_or_else(|| withdrawn(key))
    }

    /// The wish to keep the record ends before the first await.
    pub(crate) async fn withdraw(self: &Arc<Self>, key: Key, claim: u64) -> Result<()> {
        let (waiter, answer) = oneshot::channel();
        self.reconciler.ledger().withdraw(&key, claim, Some(waiter));
        self.reconciler.notify();
        self.run_write("deregister", async move { answer.await.unwrap_or_else(|_| Err(closed())).map(drop) }).await
    }

    /// A guard was dropped.
    pub(crate) fn release(&self, key: &Key, claim: u64) {
        self.reconciler.ledger().release(key, claim);
        self.reconciler.notify();
    }
}
