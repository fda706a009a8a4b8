//! Sessions of owners whose records are keys with a time to live.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;

use super::keys::KeyStore;
use super::owner::{Fate, Intent, Owner};
use crate::backend::{Desired, Drift, Registrar, Session, SessionRequest, Stamp, Write, WriteBatch};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{InstanceId, Key};

/// The sessions of one handle on a [`KeyStore`]: each record is a key of its own, which its owner renews.
///
/// Claims `[ttl]`, `[exclusive]` and `[incarnation]`. A record carries the token of the handle that wrote it and an
/// incarnation that is drawn anew whenever the key was absent. Every write says which document it replaces, so a late
/// one finds another and changes nothing; what is withdrawn leaves a trace for one time to live, so that a late write
/// does not find the key free.
///
/// Cancel-safe: after a call that was dropped the next one finds out what was done.
#[derive(Debug)]
pub struct KeySessions<S> {
    shared: Arc<Shared<S>>,
}

#[derive(Debug)]
struct Shared<S> {
    store: Arc<S>,
    owner: Owner,
    /// The number of the newest session.
    newest: AtomicU64,
}

struct KeySession<S> {
    shared: Arc<Shared<S>>,
    number: u64,
    id: InstanceId,
    ttl: Duration,
}

impl<S: KeyStore> KeySessions<S> {
    /// The sessions of a new handle, which nothing is stored of yet.
    pub fn new(store: Arc<S>) -> Self {
        Self { shared: Arc::new(Shared { store, owner: Owner::new(), newest: AtomicU64::new(0) }) }
    }
}

#[async_trait]
impl<S: KeyStore> Registrar for KeySessions<S> {
    async fn open(&self, request: &SessionRequest) -> Result<Box<dyn Session>> {
        let Shared { store, owner, newest } = &*self.shared;
        store.ping().await?;
        let terms = store.terms();
        let number = newest.fetch_add(1, Ordering::SeqCst) + 1;
        let id = request.instance.unwrap_or_else(|| InstanceId(owner.fresh()));
        let ttl = request.ttl.unwrap_or(terms.default_ttl).max(terms.min_ttl);
        Ok(Box::new(KeySession { shared: Arc::clone(&self.shared), number, id, ttl }))
    }
}

impl<S: KeyStore> KeySession<S> {
    fn check_newest(&self) -> Result<()> {
        if self.shared.newest.load(Ordering::SeqCst) == self.number {
            return Ok(());
        }
        Err(Error::new(ErrorKind::SessionLost, "a newer session of this handle has taken its records over"))
    }

    async fn carry_out(&self, wanted: Vec<(Key, Intent)>) -> Vec<Result<Fate>> {
        self.shared.owner.carry_out(&*self.shared.store, self.ttl, wanted).await
    }

    /// What became of each of these, of which none is changed.
    async fn keep(&self, keys: Vec<Key>) -> Result<Vec<(Key, Fate)>> {
        self.check_newest()?;
        let fates = self.carry_out(keys.iter().map(|key| (key.clone(), Intent::Keep)).collect()).await;
        keys.into_iter().zip(fates).map(|(key, fate)| Ok((key, fate?))).collect()
    }

    /// A session is its records: it is lost where some that were stored are gone and none is left.
    fn check_alive<'a>(&self, kept: impl Iterator<Item = &'a (Key, Fate)> + Clone) -> Result<()> {
        let gone = |(key, fate): &(Key, Fate)| *fate == Fate::Absent && self.shared.owner.may_hold(key);
        let held = kept.clone().any(|(_, fate)| *fate == Fate::Held);
        if held || !kept.clone().any(gone) {
            return Ok(());
        }
        let text = format!("the store holds none of the {} records that it held", kept.count());
        Err(Error::new(ErrorKind::SessionLost, text))
    }
}

fn conflict(key: &Key) -> Error {
    Error::new(ErrorKind::Conflict, "another owner holds this key: choose another, or wait until it is free")
        .with_key(key)
}

#[async_trait]
impl<S: KeyStore> Session for KeySession<S> {
    fn id(&self) -> InstanceId {
        self.id
    }

    fn effective_ttl(&self) -> Option<Duration> {
        Some(self.ttl)
    }

    async fn renew(&self) -> Result<Duration> {
        let owner = &self.shared.owner;
        let kept = self.keep(owner.stored()).await?;
        if kept.is_empty() {
            self.shared.store.ping().await?;
        }
        self.check_alive(kept.iter())?;
        Ok(self.ttl)
    }

    async fn publish(&self, batch: &WriteBatch, _: &Desired) -> Vec<Result<Stamp>> {
        if let Err(error) = self.check_newest() {
            return vec![Err(error); batch.writes.len()];
        }
        if batch.atomic {
            let error = Error::new(ErrorKind::Unsupported, "this store writes each record by itself");
            return vec![Err(error); batch.writes.len()];
        }
        let wanted = batch.writes.iter().map(|write| match write {
            Write::Put { key, value } => (key.clone(), Intent::Put(value.clone())),
            Write::Delete { key } => (key.clone(), Intent::Delete),
        });
        let fates = self.carry_out(wanted.collect()).await;
        let answer = |(write, fate): (&Write, Result<Fate>)| match (write, fate?) {
            (Write::Put { key, .. }, Fate::Taken) => Err(conflict(key)),
            _ => Ok(Stamp::unordered()),
        };
        batch.writes.iter().zip(fates).map(answer).collect()
    }

    async fn verify(&self, desired: &Desired) -> Result<Vec<(Key, Drift)>> {
        let owner = &self.shared.owner;
        let stored = owner.stored();
        owner.suspect(desired.keys());
        let others = stored.iter().filter(|key| !desired.contains_key(*key));
        let fates = self.keep(desired.keys().chain(others).cloned().collect()).await?;
        // Sorted, as the owner's keys are.
        self.check_alive(fates.iter().filter(|(key, _)| stored.binary_search(key).is_ok()))?;
        let drift = |(key, fate): (Key, Fate)| match (desired.get(&key)?, fate) {
            (value, Fate::Held) if owner.holds(&key, value) => None,
            (_, Fate::Taken) => Some((key.clone(), Drift::Taken(conflict(&key)))),
            (_, Fate::Held | Fate::Absent | Fate::Withdrawn) => Some((key, Drift::Changed)),
        };
        let mut drifts: Vec<_> = fates.into_iter().filter_map(drift).collect();
        let unwanted = owner.stored().into_iter().filter(|key| !desired.contains_key(key));
        drifts.extend(unwanted.map(|key| (key, Drift::Unwanted)));
        Ok(drifts)
    }

    async fn lost(&self) -> Error {
        std::future::pending().await
    }

    async fn close(&self) -> Result<()> {
        self.check_newest()?;
        let rest = self.shared.owner.all().into_iter().map(|key| (key, Intent::Delete));
        let fates = self.carry_out(rest.collect()).await;
        fates.into_iter().try_for_each(|fate| fate.map(drop))
    }
}
