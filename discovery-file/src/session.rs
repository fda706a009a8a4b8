//! Sessions: an owner file, and the records that it claims.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use discovery_core::backend::{Desired, Drift, Session, Stamp, Write, WriteBatch};
use discovery_core::{Effect, Error, ErrorKind, InstanceId, Key, Result, TaskScope};
use tokio::sync::watch;

use crate::owner::OwnerFile;
use crate::place::Place;
use crate::record::{Ledger, Records};

/// How often record files are renewed, whatever the time to live: the reference removes what is ten seconds old.
const PULSE: Duration = Duration::from_secs(3);

/// What the sessions of one handle share, one after another.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    ledger: Arc<Ledger>,
    latest: Mutex<Weak<Inner>>,
}

/// A session of the file backend.
#[derive(Debug)]
pub(crate) struct FileSession {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    id: InstanceId,
    ttl: Duration,
    place: Place,
    owner: OwnerFile,
    ledger: Arc<Ledger>,
    /// Held over each group of writes: one that was given up by its caller ends before the next begins.
    writing: Mutex<()>,
    lost: watch::Sender<Option<Error>>,
}

impl FileSession {
    /// Opens a session; an earlier one of the same handle writes nothing any more. Blocks. The session's record files
    /// are renewed on `tasks` for as long as it is there.
    pub(crate) fn open(
        place: &Place,
        sessions: &Sessions,
        id: InstanceId,
        ttl: Duration,
        tasks: &TaskScope,
    ) -> Result<Self> {
        let owner = OwnerFile::create(place, id, ttl)?;
        let inner = Inner {
            id,
            ttl,
            place: place.clone(),
            owner,
            ledger: Arc::clone(&sessions.ledger),
            writing: Mutex::new(()),
            lost: watch::Sender::new(None),
        };
        let inner = Arc::new(inner);
        let mut latest = sessions.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(earlier) = std::mem::replace(&mut *latest, Arc::downgrade(&inner)).upgrade() {
            earlier.supersede();
        }
        drop(latest);
        tasks.spawn(pulse(Arc::downgrade(&inner)));
        Ok(Self { inner })
    }

    /// Runs `work` on a thread that may block. Dropping the future stops it before its next step.
    async fn blocking<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl FnOnce(&Inner, &AtomicBool) -> T + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(&self.inner);
        let given_up = Arc::new(AtomicBool::new(false));
        let _guard = GiveUp(Arc::clone(&given_up));
        blocking(operation, move || work(&inner, &given_up)).await
    }
}

async fn pulse(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(PULSE).await;
        let Some(inner) = inner.upgrade() else { return };
        match blocking("renew", move || inner.noting("renew", inner.records().renew())).await.flatten() {
            Err(error) if error.kind() == ErrorKind::SessionLost => return,
            Err(error) => tracing::warn!(%error, "record files cannot be renewed: a reference process may remove them"),
            Ok(()) => {}
        }
    }
}

struct GiveUp(Arc<AtomicBool>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Runs `work` on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Error::new(ErrorKind::Internal, "the work on the files did not end: please report it")
            .with_backend("file")
            .with_operation(operation)
            .with_effect(Effect::Unknown)
            .with_source(error)
    })
}

impl Inner {
    fn records(&self) -> Records<'_> {
        Records { place: &self.place, owner: &self.owner, ledger: &self.ledger }
    }

    /// Remembers that the session is lost, where that is what an operation found.
    fn noting<T>(&self, operation: &'static str, result: Result<T>) -> Result<T> {
        result.map_err(|error| {
            let error = error.with_operation(operation);
            if error.kind() == ErrorKind::SessionLost {
                self.lost.send_replace(Some(error.clone()));
            }
            error
        })
    }

    /// Ends this session's writes, the one under way included.
    fn supersede(&self) {
        let error =
            Error::new(ErrorKind::SessionLost, "a later session of this handle has taken over").with_backend("file");
        self.lost.send_replace(Some(error));
        drop(self.writing.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn check(&self) -> Result<()> {
        self.lost.borrow().clone().map_or(Ok(()), Err)
    }

    fn write(&self, write: &Write) -> Result<Stamp> {
        let records = self.records();
        self.check()
            .and_then(|()| match write {
                Write::Put { key, value } => records.put(key, value),
                Write::Delete { key } => records.delete(key),
            })
            .map(|()| Stamp::unordered())
            .map_err(|error| error.with_key(write.key()))
    }
}

fn superseded() -> Error {
    Error::new(ErrorKind::Unavailable, "the caller gave this write up before it began").with_backend("file")
}

#[async_trait]
impl Session for FileSession {
    fn id(&self) -> InstanceId {
        self.inner.id
    }

    fn effective_ttl(&self) -> Option<Duration> {
        Some(self.inner.ttl)
    }

    async fn renew(&self) -> Result<Duration> {
        let ttl = self.inner.ttl;
        let renew = |inner: &Inner| inner.check().and_then(|()| inner.owner.touch());
        self.blocking("renew", move |inner, _| inner.noting("renew", renew(inner)).map(|()| ttl)).await?
    }

    async fn publish(&self, batch: &WriteBatch, _desired: &Desired) -> Vec<Result<Stamp>> {
        // Half of them would be there after a failure, and all of them one by one before it.
        if batch.atomic {
            let error = Error::new(ErrorKind::Unsupported, "files are written one by one: publish them so")
                .with_backend("file")
                .with_operation("publish");
            return vec![Err(error); batch.writes.len()];
        }
        let writes = batch.writes.clone();
        let published = self
            .blocking("publish", move |inner, given_up| {
                let _turn = inner.writing.lock().unwrap_or_else(PoisonError::into_inner);
                let mut results = Vec::with_capacity(writes.len());
                for write in &writes {
                    let result = if given_up.load(Ordering::Acquire) { Err(superseded()) } else { inner.write(write) };
                    results.push(inner.noting("publish", result));
                }
                results
            })
            .await;
        published.unwrap_or_else(|error| vec![Err(error); batch.writes.len()])
    }

    async fn verify(&self, desired: &Desired) -> Result<Vec<(Key, Drift)>> {
        let desired = desired.clone();
        let verify = move |inner: &Inner| inner.check().and_then(|()| inner.records().verify(&desired));
        self.blocking("verify", move |inner, _| inner.noting("verify", verify(inner))).await?
    }

    async fn lost(&self) -> Error {
        let mut lost = self.inner.lost.subscribe();
        match lost.wait_for(Option::is_some).await.map(|error| error.clone()) {
            Ok(Some(error)) => error,
            _ => self.inner.owner.lost(),
        }
    }

    async fn close(&self) -> Result<()> {
        self.blocking("close", |inner, _| {
            let _turn = inner.writing.lock().unwrap_or_else(PoisonError::into_inner);
            // Records of a session that is lost are the next one's by now.
            let closed = if inner.check().is_ok() { inner.records().close() } else { inner.owner.remove() };
            closed.map_err(|error| error.with_operation("close"))
        })
        .await?
    }
}
