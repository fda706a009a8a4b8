//! Writing: registrations.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::{Discovery, Inner};
use crate::backend::Stamp;
use crate::error::{Effect, Error, ErrorKind, Result};
use crate::key::{InstanceId, Key, Path};
use crate::reconcile::{Wish, closed};
use crate::record::Record;
use crate::registration::Registration;

/// A record of a kind that has no Rust type: for command lines and bridges. Registered by [`Discovery::register_draft`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    /// The kind.
    pub kind: String,
    /// The path's segments.
    pub segments: Vec<String>,
    /// What tells several records of one instance at one path apart.
    pub suffix: Option<String>,
    /// The value.
    pub value: serde_json::Value,
}

/// What is to be stored, before the instance id is known.
struct Proposal<T> {
    path: Path,
    suffix: Option<String>,
    instance: Option<InstanceId>,
    value: Arc<T>,
    encode: fn(&T, &Key) -> Result<Bytes>,
}

/// A proposal under its key, encoded.
struct Placed<T> {
    key: Key,
    bytes: Bytes,
    value: Arc<T>,
}

impl Discovery {
    /// Registers a record: stored when it returns, and kept stored until it is withdrawn.
    ///
    /// Temporary failures are tried again until the operation time-out. Registering an equal record again is silent.
    /// Cancel-safe: a registration whose future is dropped is withdrawn in the background.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where another owner holds the key or a neighbour excludes the record,
    /// [`ErrorKind::InvalidKey`] and [`ErrorKind::TooLarge`] before any I/O, [`ErrorKind::Refused`] where the record is
    /// registered already and its kind forbids the change, [`ErrorKind::Timeout`] with the backend's last error. After
    /// an error of unknown effect the core itself withdraws what may have been stored.
    pub async fn register<T: Record>(&self, record: T) -> Result<Registration<T>> {
        let proposals = vec![propose(record)?];
        let inner = Arc::clone(&self.inner);
        self.inner
            .run_limited("register", async move {
                inner.register_proposals(proposals, false).await?.pop().ok_or_else(closed)
            })
            .await
    }

    /// Registers several records in one transaction of the store (`[batch]`): all of them or none.
    ///
    /// Cancel-safe, as [`Discovery::register`] is.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where the backend does not claim batches, [`ErrorKind::TooLarge`] where there are
    /// more than it declares, and those of [`Discovery::register`]; after an error without effect nothing is stored.
    pub async fn register_all<T: Record>(&self, records: Vec<T>) -> Result<Vec<Registration<T>>> {
        let backend = &self.inner.backend;
        let refuse = |kind, text: String| {
            Err(Error::new(kind, text).with_backend(backend.name()).with_operation("register_all"))
        };
        if !backend.capabilities().batch {
            return refuse(ErrorKind::Unsupported, "this backend writes no batches: register one by one".to_owned());
        }
        let max = backend.bounds().max_batch;
        if records.len() > max {
            return refuse(ErrorKind::TooLarge, format!("{} records, and a batch holds at most {max}", records.len()));
        }
        let proposals = records.into_iter().map(propose).collect::<Result<Vec<_>>>()?;
        let inner = Arc::clone(&self.inner);
        self.inner.run_limited("register_all", async move { inner.register_proposals(proposals, true).await }).await
    }

    /// Registers a record of a kind that has no Rust type. The same promises and errors as [`Discovery::register`],
    /// without the rules that a record type would bring.
    ///
    /// # Errors
    /// Those of [`Discovery::register`].
    pub async fn register_draft(&self, draft: Draft) -> Result<Registration<serde_json::Value>> {
        let encode = |value: &serde_json::Value, key: &Key| {
            serde_json::to_vec(value).map(Bytes::from).map_err(|error| {
                Error::new(ErrorKind::InvalidValue, "the value cannot be written as JSON")
                    .with_key(key)
                    .with_source(error)
            })
        };
        let proposal = Proposal {
            path: Path::new(&draft.kind, &draft.segments)?,
            suffix: draft.suffix,
            instance: None,
            value: Arc::new(draft.value),
            encode,
        };
        let inner = Arc::clone(&self.inner);
        self.inner
            .run_limited("register", async move {
                let placed = inner.place(proposal).await?;
                inner.store_all(vec![placed], false).await?.pop().ok_or_else(closed)
            })
            .await
    }
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

fn propose<T: Record>(record: T) -> Result<Proposal<T>> {
    Ok(Proposal {
        path: record.path()?,
        suffix: record.suffix().map(str::to_owned),
        instance: record.instance(),
        value: Arc::new(record),
        encode: T::encode,
    })
}

/// Withdraws what a cancelled or failed call had asked for.
struct Compensation {
    inner: Arc<Inner>,
    claims: Vec<(Key, u64)>,
}

impl Drop for Compensation {
    fn drop(&mut self) {
        for (key, claim) in &self.claims {
            self.inner.reconciler.ledger().abandon(key, *claim);
        }
        self.inner.reconciler.notify();
    }
}

impl Inner {
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
        // Any id shows whether the path and the value can be stored at all.
        let trial = key_of(instance.unwrap_or(InstanceId(u64::MAX >> 1)))?;
        let refused = |error: Error| error.with_key(&trial);
        self.backend.admit(&trial, encode(&value, &trial)?.len()).map_err(refused)?;
        let instance = match instance {
            Some(instance) => instance,
            None => self.reconciler.instance().await?,
        };
        let key = key_of(instance)?;
        let bytes = encode(&value, &key)?;
        self.backend.admit(&key, bytes.len()).map_err(refused)?;
        Ok(Placed { key, bytes, value })
    }

    /// A record that this handle has registered already changes only as its kind allows.
    fn check_own<T: Record>(&self, placed: &Placed<T>) -> Result<()> {
        let held = self.reconciler.ledger().wanted(&placed.key).cloned();
        match held {
            Some(held) if held != placed.bytes => {
                T::decode(&placed.key, &held)?.check_update(&placed.value).map_err(|error| error.with_key(&placed.key))
            }
            _ => Ok(()),
        }
    }

    /// Places, checks and stores records of one type.
    async fn register_proposals<T: Record>(
        self: &Arc<Self>,
        proposals: Vec<Proposal<T>>,
        atomic: bool,
    ) -> Result<Vec<Registration<T>>> {
        let mut placed: Vec<Placed<T>> = Vec::with_capacity(proposals.len());
        for proposal in proposals {
            let one = self.place(proposal).await?;
            self.check_own::<T>(&one)?;
            check_in_batch(&one, &placed)?;
            self.check_neighbours(&one.key, &*one.value).await?;
            placed.push(one);
        }
        let registrations = self.store_all(placed, atomic).await?;
        // Two neighbours that were written at the same time see each other now, and both step back.
        for registration in &registrations {
            let checked = self.check_neighbours(registration.key(), &*registration.value()).await;
            if let Err(error) = checked {
                for registration in &registrations {
                    self.reconciler.withdraw(registration.key(), registration.claim()).await?;
                }
                return Err(error);
            }
        }
        Ok(registrations)
    }

    async fn check_neighbours<T: Record>(&self, key: &Key, value: &T) -> Result<()> {
        let Some(query) = value.neighbours() else { return Ok(()) };
        let others = self.list::<T>(query.scope(Some(T::KIND))?, &query, |key, value| T::decode(key, value)).await?;
        let mut others = others.iter().filter(|other| other.key() != key);
        others.try_for_each(|other| value.check_beside(other).map_err(|error| error.with_key(key)))
    }

    /// Wants records stored and waits until they are.
    async fn store_all<T>(self: &Arc<Self>, placed: Vec<Placed<T>>, atomic: bool) -> Result<Vec<Registration<T>>> {
        let mut compensation = Compensation { inner: Arc::clone(self), claims: Vec::with_capacity(placed.len()) };
        let mut pending = Vec::with_capacity(placed.len());
        {
            let mut ledger = self.reconciler.ledger();
            // Checked under the lock: a shutdown withdraws all that is in the ledger, and nothing comes after it.
            self.reconciler.check_open()?;
            let mut fresh = Vec::new();
            for Placed { key, bytes, value } in placed {
                let (waiter, answer) = oneshot::channel();
                if ledger.wanted(&key).is_none() {
                    fresh.push(key.clone());
                }
                let wish = ledger.want(&key, bytes, waiter);
                compensation.claims.push((key.clone(), wish.claim));
                pending.push((key, value, wish, answer));
            }
            if atomic {
                ledger.group(fresh);
            }
        }
        self.reconciler.notify();
        let mut registrations = Vec::with_capacity(pending.len());
        let mut failure = None;
        for (key, value, Wish { claim, state }, answer) in pending {
            match answer.await.unwrap_or_else(|_| Err(closed())) {
                Ok(stamp) => registrations.push((key, value, claim, state, stamp)),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        let mut ledger = self.reconciler.ledger();
        let gone = |key: &Key| {
            Error::new(ErrorKind::Closed, "the registration was withdrawn meanwhile")
                .with_effect(Effect::Unknown)
                .with_key(key)
        };
        let mut held = Vec::with_capacity(registrations.len());
        for (key, value, claim, state, stamp) in registrations {
            if !ledger.hold(&key, claim) {
                return Err(gone(&key));
            }
            held.push((key, value, claim, state, stamp));
        }
        compensation.claims.clear();
        drop(ledger);
        let guard =
            |(key, value, claim, state, stamp)| Registration::new(Arc::clone(self), key, claim, value, stamp, state);
        Ok(held.into_iter().map(guard).collect())
    }

    pub(crate) async fn update(self: &Arc<Self>, key: Key, claim: u64, value: Bytes) -> Result<Stamp> {
        self.backend.admit(&key, value.len()).map_err(|error| error.with_key(&key).with_operation("update"))?;
        let inner = Arc::clone(self);
        self.run_limited("update", async move {
            let (waiter, answer) = oneshot::channel();
            let changed = inner.reconciler.ledger().change(&key, claim, value, waiter);
            if !changed {
                return Err(Error::new(
                    ErrorKind::Closed,
                    "the registration was withdrawn or has failed: register again",
                )
                .with_key(&key));
            }
            inner.reconciler.notify();
            answer.await.unwrap_or_else(|_| Err(closed()))
        })
        .await
    }

    /// The wish to keep the record ends before the first await.
    pub(crate) async fn withdraw(self: &Arc<Self>, key: Key, claim: u64) -> Result<()> {
        let (waiter, answer) = oneshot::channel();
        self.reconciler.ledger().withdraw(&key, claim, Some(waiter));
        self.reconciler.notify();
        self.run_limited("deregister", async move { answer.await.unwrap_or_else(|_| Err(closed())).map(drop) }).await
    }

    /// A guard was dropped.
    pub(crate) fn release(&self, key: &Key, claim: u64) {
        self.reconciler.ledger().release(key, claim);
        self.reconciler.notify();
    }
}
