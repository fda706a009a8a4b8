//! Backends that register, renew or withdraw wrongly.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use discovery_core::backend::{Backend, Desired, Drift, Session, SessionRequest, Stamp, Write, WriteBatch};
use discovery_core::{Bounds, Error, ErrorKind, Key, Path, Result, Scope};
use tokio::time::{sleep, timeout};

use super::wrap::Twist;

macro_rules! twist {
    ($name:ident { $($body:tt)* }) => {
        #[derive(Default)]
        pub(crate) struct $name;
        #[async_trait]
        impl Twist for $name { $($body)* }
    };
}

type Inner = Arc<dyn Session>;

fn one(write: Write) -> WriteBatch {
    WriteBatch { writes: vec![write], atomic: false }
}

async fn each(inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
    let mut results = Vec::new();
    for write in &batch.writes {
        results.extend(inner.publish(&one(write.clone()), desired).await);
    }
    results
}

twist!(AnswersBeforeItIsStored {
    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        let (inner, batch, desired) = (Arc::clone(inner), batch.clone(), desired.clone());
        let count = batch.writes.len();
        tokio::spawn(async move {
            sleep(Duration::from_millis(5)).await;
            inner.publish(&batch, &desired).await
        });
        vec![Ok(Stamp::unordered()); count]
    }
});

twist!(AnswersBeforeItIsRemoved {
    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        if !batch.writes.iter().any(|write| matches!(write, Write::Delete { .. })) {
            return inner.publish(batch, desired).await;
        }
        let (inner, batch, desired) = (Arc::clone(inner), batch.clone(), desired.clone());
        let count = batch.writes.len();
        tokio::spawn(async move {
            sleep(Duration::from_millis(5)).await;
            inner.publish(&batch, &desired).await
        });
        vec![Ok(Stamp::unordered()); count]
    }
});

twist!(TakesSilenceForRemoval {
    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        if !batch.writes.iter().any(|write| matches!(write, Write::Delete { .. })) {
            return inner.publish(batch, desired).await;
        }
        let (inner, batch, desired) = (Arc::clone(inner), batch.clone(), desired.clone());
        let done = vec![Ok(Stamp::unordered()); batch.writes.len()];
        let removing = tokio::spawn(async move { inner.publish(&batch, &desired).await });
        match timeout(Duration::from_millis(20), removing).await {
            Ok(Ok(results)) => results,
            _ => done,
        }
    }
});

twist!(ClosesWithoutRemoving {
    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        let kept = batch.writes.iter().filter(|write| matches!(write, Write::Put { .. })).cloned().collect();
        inner.publish(&WriteBatch { writes: kept, atomic: false }, desired).await;
        vec![Ok(Stamp::unordered()); batch.writes.len()]
    }

    async fn close(&self, _: &Inner) -> Result<()> {
        Ok(())
    }
});

twist!(DeniesALostAcknowledgement {
    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        let sure = |error: Error| Error::new(ErrorKind::Refused, error.message());
        inner.publish(batch, desired).await.into_iter().map(|result| result.map_err(sure)).collect()
    }
});

twist!(RepeatsAreNew {
    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        for write in &batch.writes {
            if let Write::Put { key, .. } = write {
                inner.publish(&one(Write::Delete { key: key.clone() }), desired).await;
            }
        }
        inner.publish(batch, desired).await
    }
});

#[derive(Default)]
pub(crate) struct UpdatesByRemoving {
    values: Mutex<BTreeMap<Key, Bytes>>,
}

#[async_trait]
impl Twist for UpdatesByRemoving {
    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        for write in &batch.writes {
            if let Write::Put { key, value } = write {
                let before = self.values.lock().expect("not poisoned").insert(key.clone(), value.clone());
                if before.is_some_and(|before| before != *value) {
                    inner.publish(&one(Write::Delete { key: key.clone() }), desired).await;
                    sleep(Duration::from_millis(1)).await;
                }
            }
        }
        inner.publish(batch, desired).await
    }
}

twist!(TwoOwnersHoldOneKey {
    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        let fine = |error: Error| if error.kind() == ErrorKind::Conflict { Ok(Stamp::unordered()) } else { Err(error) };
        inner.publish(batch, desired).await.into_iter().map(|result| result.or_else(fine)).collect()
    }
});

#[derive(Default)]
pub(crate) struct LoserWaitsForItsTurn {
    lost: Mutex<BTreeMap<Key, Bytes>>,
}

#[async_trait]
impl Twist for LoserWaitsForItsTurn {
    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        let results = inner.publish(batch, desired).await;
        for (write, result) in batch.writes.iter().zip(&results) {
            if let (Write::Put { key, value }, Err(_)) = (write, result) {
                self.lost.lock().expect("not poisoned").insert(key.clone(), value.clone());
            }
        }
        results
    }

    async fn renew(&self, inner: &Inner) -> Result<Duration> {
        let lost = self.lost.lock().expect("not poisoned").clone();
        let writes = lost.into_iter().map(|(key, value)| Write::Put { key, value }).collect();
        inner.publish(&WriteBatch { writes, atomic: false }, &Desired::new()).await;
        inner.renew().await
    }
}

twist!(BatchIsNoTransaction {
    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        each(inner, batch, desired).await
    }
});

twist!(TakesAnyBatch {
    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        if batch.writes.len() <= 128 { inner.publish(batch, desired).await } else { each(inner, batch, desired).await }
    }
});

#[derive(Default)]
pub(crate) struct RemovesByPrefix {
    keys: Mutex<Vec<Key>>,
}

#[async_trait]
impl Twist for RemovesByPrefix {
    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        let results = inner.publish(batch, desired).await;
        for write in &batch.writes {
            let prefix = write.key().to_string();
            let mut keys = self.keys.lock().expect("not poisoned").clone();
            match write {
                Write::Put { key, .. } => keys.push(key.clone()),
                Write::Delete { .. } => {
                    for key in keys.iter().filter(|key| key.to_string().starts_with(&prefix)) {
                        inner.publish(&one(Write::Delete { key: key.clone() }), desired).await;
                    }
                }
            }
            *self.keys.lock().expect("not poisoned") = keys;
        }
        results
    }
}

#[derive(Default)]
pub(crate) struct RemovingTheAbsentFails {
    backend: Mutex<Option<Arc<dyn Backend>>>,
}

#[async_trait]
impl Twist for RemovingTheAbsentFails {
    async fn open(&self, inner: &Arc<dyn Backend>, request: &SessionRequest) -> Result<Box<dyn Session>> {
        *self.backend.lock().expect("not poisoned") = Some(Arc::clone(inner));
        inner.open(request).await
    }

    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        let backend = self.backend.lock().expect("not poisoned").clone().expect("a session was opened");
        let entries = backend.list(&Scope::all()).await.map(|(entries, _)| entries).unwrap_or_default();
        let absent =
            |write: &&Write| matches!(write, Write::Delete { key } if !entries.iter().any(|entry| entry.key == *key));
        match batch.writes.iter().find(absent) {
            Some(_) => vec![Err(Error::new(ErrorKind::Internal, "no such key")); batch.writes.len()],
            None => inner.publish(batch, desired).await,
        }
    }
}

#[derive(Default)]
pub(crate) struct Resurrects {
    removed: Mutex<BTreeMap<Key, Bytes>>,
    values: Mutex<BTreeMap<Key, Bytes>>,
}

#[async_trait]
impl Twist for Resurrects {
    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        {
            let mut values = self.values.lock().expect("not poisoned");
            let mut removed = self.removed.lock().expect("not poisoned");
            for write in &batch.writes {
                match write {
                    Write::Put { key, value } => {
                        values.insert(key.clone(), value.clone());
                    }
                    Write::Delete { key } => removed.extend(values.remove_entry(key)),
                }
            }
        }
        inner.publish(batch, desired).await
    }

    async fn renew(&self, inner: &Inner) -> Result<Duration> {
        let removed = self.removed.lock().expect("not poisoned").clone();
        let writes = removed.into_iter().map(|(key, value)| Write::Put { key, value }).collect();
        inner.publish(&WriteBatch { writes, atomic: false }, &Desired::new()).await;
        inner.renew().await
    }
}

/// It finds nothing to remove where others have removed it, and goes on taking it for its own.
#[derive(Default)]
pub(crate) struct RepairsWhatItCouldNotRemove {
    backend: Mutex<Option<Arc<dyn Backend>>>,
    own: Mutex<BTreeMap<Key, Bytes>>,
}

impl RepairsWhatItCouldNotRemove {
    async fn stored(&self) -> Result<Vec<Key>> {
        let backend = self.backend.lock().expect("not poisoned").clone().expect("a session was opened");
        Ok(backend.list(&Scope::all()).await?.0.into_iter().map(|entry| entry.key).collect())
    }
}

#[async_trait]
impl Twist for RepairsWhatItCouldNotRemove {
    async fn open(&self, inner: &Arc<dyn Backend>, request: &SessionRequest) -> Result<Box<dyn Session>> {
        *self.backend.lock().expect("not poisoned") = Some(Arc::clone(inner));
        inner.open(request).await
    }

    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        let stored = self.stored().await.unwrap_or_default();
        {
            let mut own = self.own.lock().expect("not poisoned");
            for write in &batch.writes {
                match write {
                    Write::Put { key, value } => drop(own.insert(key.clone(), value.clone())),
                    Write::Delete { key } if stored.contains(key) => drop(own.remove(key)),
                    Write::Delete { .. } => {}
                }
            }
        }
        inner.publish(batch, desired).await
    }

    async fn verify(&self, inner: &Inner, desired: &Desired) -> Result<Vec<(Key, Drift)>> {
        let (drift, stored) = (inner.verify(desired).await?, self.stored().await?);
        let own = self.own.lock().expect("not poisoned").clone();
        let missing = own.into_iter().filter(|(key, _)| !stored.contains(key));
        let writes = missing.map(|(key, value)| Write::Put { key, value }).collect();
        inner.publish(&WriteBatch { writes, atomic: false }, &Desired::new()).await;
        Ok(drift)
    }
}

#[derive(Default)]
pub(crate) struct FencesNothing {
    newest: Mutex<Option<Inner>>,
}

#[async_trait]
impl Twist for FencesNothing {
    async fn renew(&self, inner: &Inner) -> Result<Duration> {
        *self.newest.lock().expect("not poisoned") = Some(Arc::clone(inner));
        inner.renew().await
    }

    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        let results = inner.publish(batch, desired).await;
        let newest = self.newest.lock().expect("not poisoned").clone();
        match newest {
            Some(newest) if results.iter().any(Result::is_err) => newest.publish(batch, desired).await,
            _ => {
                if results.iter().all(Result::is_ok) {
                    *self.newest.lock().expect("not poisoned") = Some(Arc::clone(inner));
                }
                results
            }
        }
    }
}

#[derive(Default)]
pub(crate) struct ExpiryTakesWhatMoved {
    sessions: Arc<Mutex<Vec<Inner>>>,
}

#[async_trait]
impl Twist for ExpiryTakesWhatMoved {
    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        let first = {
            let mut sessions = self.sessions.lock().expect("not poisoned");
            sessions.push(Arc::clone(inner));
            sessions.len() == 1
        };
        if first {
            let (sessions, writes) = (Arc::clone(&self.sessions), batch.writes.clone());
            let ttl = inner.effective_ttl().unwrap_or_default();
            tokio::spawn(async move {
                sleep(ttl).await;
                let newest = sessions.lock().expect("not poisoned").last().cloned();
                for write in writes {
                    if let Some(newest) = &newest {
                        newest.publish(&one(Write::Delete { key: write.key().clone() }), &Desired::new()).await;
                    }
                }
            });
        }
        inner.publish(batch, desired).await
    }
}

twist!(NeverRenews {
    async fn renew(&self, inner: &Inner) -> Result<Duration> {
        Ok(inner.effective_ttl().unwrap_or_default())
    }

    async fn lost(&self, _: &Inner) -> Error {
        std::future::pending().await
    }
});

twist!(ExpiresTooEarly {
    async fn open(&self, inner: &Arc<dyn Backend>, request: &SessionRequest) -> Result<Box<dyn Session>> {
        inner.open(&SessionRequest::new(request.ttl.map(|ttl| ttl * 3 / 4), request.instance)).await
    }

    fn effective_ttl(&self, ttl: Option<Duration>) -> Option<Duration> {
        ttl.map(|ttl| ttl * 4 / 3)
    }
});

twist!(ExpiresTooLate {
    async fn open(&self, inner: &Arc<dyn Backend>, request: &SessionRequest) -> Result<Box<dyn Session>> {
        inner.open(&SessionRequest::new(request.ttl.map(|ttl| ttl * 3), request.instance)).await
    }

    fn effective_ttl(&self, ttl: Option<Duration>) -> Option<Duration> {
        ttl.map(|ttl| ttl / 3)
    }
});

twist!(ReportsTheWishedTtl {
    fn effective_ttl(&self, ttl: Option<Duration>) -> Option<Duration> {
        ttl.map(|ttl| if ttl < Duration::from_secs(1) { Duration::from_millis(1) } else { ttl })
    }
});

twist!(PromisesTooLongALife {
    async fn renew(&self, inner: &Inner) -> Result<Duration> {
        Ok(inner.renew().await? * 3)
    }

    async fn lost(&self, _: &Inner) -> Error {
        std::future::pending().await
    }
});

twist!(VerifiesNothing {
    async fn verify(&self, _: &Inner, _: &Desired) -> Result<Vec<(Key, Drift)>> {
        Ok(vec![])
    }
});

#[derive(Default)]
pub(crate) struct VerifiesPresenceOnly {
    backend: Mutex<Option<Arc<dyn Backend>>>,
}

#[async_trait]
impl Twist for VerifiesPresenceOnly {
    async fn open(&self, inner: &Arc<dyn Backend>, request: &SessionRequest) -> Result<Box<dyn Session>> {
        *self.backend.lock().expect("not poisoned") = Some(Arc::clone(inner));
        inner.open(request).await
    }

    async fn verify(&self, inner: &Inner, desired: &Desired) -> Result<Vec<(Key, Drift)>> {
        let backend = self.backend.lock().expect("not poisoned").clone();
        let (entries, _) = backend.expect("a session was opened").list(&Scope::all()).await?;
        let mut drift = inner.verify(desired).await?;
        drift.retain(|(key, _)| !entries.iter().any(|entry| entry.key == *key));
        Ok(drift)
    }
}

twist!(NeverLearnsOfALostSession {
    async fn renew(&self, inner: &Inner) -> Result<Duration> {
        let _ = inner.renew().await;
        Ok(inner.effective_ttl().unwrap_or_default())
    }

    async fn verify(&self, inner: &Inner, desired: &Desired) -> Result<Vec<(Key, Drift)>> {
        Ok(inner.verify(desired).await.unwrap_or_default())
    }

    async fn lost(&self, _: &Inner) -> Error {
        std::future::pending().await
    }
});

twist!(TakesAnotherIdAfterALoss {
    async fn open(&self, inner: &Arc<dyn Backend>, request: &SessionRequest) -> Result<Box<dyn Session>> {
        inner.open(&SessionRequest::new(request.ttl, None)).await
    }
});

twist!(DeclaresMoreThanItHolds {
    fn bounds(&self, mut bounds: Bounds) -> Bounds {
        bounds.max_value += 1;
        bounds
    }
});

/// Every write goes to another key, or carries another value.
async fn rewritten(
    inner: &Inner,
    batch: &WriteBatch,
    desired: &Desired,
    key: impl Fn(&Key) -> Key,
    value: impl Fn(&Bytes) -> Bytes,
) -> Vec<Result<Stamp>> {
    let write = |write: &Write| match write {
        Write::Put { key: old, value: content } => Write::Put { key: key(old), value: value(content) },
        Write::Delete { key: old } => Write::Delete { key: key(old) },
    };
    let batch = WriteBatch { writes: batch.writes.iter().map(write).collect(), atomic: batch.atomic };
    inner.publish(&batch, desired).await
}

fn renamed(old: &Key, name: impl Fn(&str) -> String) -> Key {
    let path = Path::new(old.kind(), old.path().segments().map(|segment| name(&segment))).expect("a path");
    let key = Key::new(path, old.instance());
    match old.suffix() {
        Some(suffix) => key.with_suffix(&name(suffix)).expect("a suffix"),
        None => key,
    }
}

twist!(ForgetsCase {
    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        rewritten(inner, batch, desired, |key| renamed(key, str::to_lowercase), Bytes::clone).await
    }

    async fn verify(&self, _: &Inner, _: &Desired) -> Result<Vec<(Key, Drift)>> {
        Ok(vec![])
    }
});

twist!(DecodesTwice {
    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        let decoded = |segment: &str| segment.replace("%2F", "/").replace("%25", "%");
        rewritten(inner, batch, desired, |key| renamed(key, decoded), Bytes::clone).await
    }

    async fn verify(&self, _: &Inner, _: &Desired) -> Result<Vec<(Key, Drift)>> {
        Ok(vec![])
    }
});

twist!(CutsLongValues {
    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        let cut = |value: &Bytes| value.slice(..value.len().min(512 << 10));
        rewritten(inner, batch, desired, Key::clone, cut).await
    }

    async fn verify(&self, _: &Inner, _: &Desired) -> Result<Vec<(Key, Drift)>> {
        Ok(vec![])
    }
});

twist!(RetriesForgetfully {
    async fn publish(&self, inner: &Inner, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        // The last write of a group is lost, and nobody is told.
        let mut batch = batch.clone();
        let count = batch.writes.len();
        if count > 1 && !batch.atomic {
            batch.writes.pop();
        }
        inner.publish(&batch, desired).await;
        vec![Ok(Stamp::unordered()); count]
    }

    async fn verify(&self, _: &Inner, _: &Desired) -> Result<Vec<(Key, Drift)>> {
        Ok(vec![])
    }
});
