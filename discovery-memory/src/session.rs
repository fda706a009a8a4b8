//! Sessions, as the core holds them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use discovery_core::backend::{Desired, Drift, Registrar, Session, SessionRequest, Stamp, WriteBatch};
use discovery_core::{Effect, Error, ErrorKind, InstanceId, Key, Result};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::backend::MemoryBackend;
use crate::bounds::MIN_TTL;
use crate::cluster::{Operation, later, sleep_until};
use crate::handle::{Shared, random_instance};
use crate::state::{Ended, Fence};

#[derive(Debug)]
struct MemorySession {
    handle: Shared,
    session: u64,
    instance: InstanceId,
    ttl: Duration,
    /// Numbers the publishes, so that a late one does not undo a newer one.
    sequence: AtomicU64,
    ended: watch::Receiver<Option<Ended>>,
}

#[async_trait]
impl Registrar for MemoryBackend {
    async fn open(&self, request: &SessionRequest) -> Result<Box<dyn Session>> {
        let handle = self.handle();
        handle.enter(Operation::Open).await?;
        let ttl = request.ttl.unwrap_or(handle.default_ttl).max(MIN_TTL);
        let instance = request.instance.unwrap_or_else(random_instance);
        let opened = handle.cluster.state().open_session(handle.owner, instance, ttl, Instant::now());
        Ok(Box::new(MemorySession {
            handle: Arc::clone(handle),
            session: opened.session,
            instance,
            ttl,
            sequence: AtomicU64::new(1),
            ended: opened.ended,
        }))
    }
}

impl MemorySession {
    fn ended(&self) -> Error {
        let why = *self.ended.borrow();
        why.map_or_else(|| Error::new(ErrorKind::SessionLost, "the session is gone"), Ended::error)
    }

    fn unanswered(&self, operation: Operation) -> Error {
        let error = Error::new(ErrorKind::Unavailable, "the answer was lost: it may have taken effect");
        self.handle.name(error.with_effect(Effect::Unknown), operation)
    }

    /// Hands a batch to a network that delivers it later, and waits for the answer.
    async fn write_late(&self, by: Duration, fence: Fence, batch: &WriteBatch) -> Vec<Result<Stamp>> {
        let at = later(Instant::now(), by);
        let mut answer = self.handle.cluster.state().schedule_write(at, fence, batch.clone());
        let result = tokio::select! {
            biased;
            result = &mut answer => result,
            () = sleep_until(Some(at)) => {
                // Whatever is due happens now, this write at the latest.
                drop(self.handle.cluster.state());
                answer.await
            }
        };
        result.unwrap_or_else(|_| batch.writes.iter().map(|_| Err(self.unanswered(Operation::Publish))).collect())
    }
}

#[async_trait]
impl Session for MemorySession {
    fn id(&self) -> InstanceId {
        self.instance
    }

    fn effective_ttl(&self) -> Option<Duration> {
        Some(self.ttl)
    }

    async fn renew(&self) -> Result<Duration> {
        self.handle.enter(Operation::Renew).await?;
        let renewed = self.handle.cluster.state().renew_session(self.handle.owner, self.session, Instant::now());
        if renewed { Ok(self.ttl) } else { Err(self.handle.name(self.ended(), Operation::Renew)) }
    }

    async fn publish(&self, batch: &WriteBatch, _desired: &Desired) -> Vec<Result<Stamp>> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        let fence = Fence { owner: self.handle.owner, session: self.session, sequence };
        if let Err(error) = self.handle.enter(Operation::Publish).await {
            return batch.writes.iter().map(|write| Err(error.clone().with_key(write.key()))).collect();
        }
        let condition = self.handle.link.condition();
        let results = if condition.delay_writes.is_zero() {
            self.handle.cluster.state().publish(&fence, batch)
        } else {
            self.write_late(condition.delay_writes, fence, batch).await
        };
        if condition.drop_acks {
            let lost = |key| Err(self.unanswered(Operation::Publish).with_key(key));
            return batch.writes.iter().map(|write| lost(write.key())).collect();
        }
        results.into_iter().map(|result| result.map_err(|error| self.handle.name(error, Operation::Publish))).collect()
    }

    async fn verify(&self, desired: &Desired) -> Result<Vec<(Key, Drift)>> {
        self.handle.enter(Operation::Verify).await?;
        let drift = self.handle.cluster.state().verify(self.handle.owner, self.session, desired);
        drift.map_err(|error| self.handle.name(error, Operation::Verify))
    }

    async fn lost(&self) -> Error {
        let mut ended = self.ended.clone();
        let mut link = self.handle.link.subscribe();
        let mut weather = self.handle.cluster.subscribe_weather();
        loop {
            self.handle.in_touch().await;
            link.mark_unchanged();
            weather.mark_unchanged();
            let deadline = self.handle.cluster.state().deadline(self.session);
            if ended.borrow_and_update().is_some() || deadline.is_none() {
                return self.handle.name(self.ended(), Operation::Renew);
            }
            tokio::select! {
                biased;
                _ = ended.changed() => {}
                () = sleep_until(deadline) => {}
                _ = link.changed() => {}
                _ = weather.changed() => {}
            }
        }
    }

    async fn close(&self) -> Result<()> {
        self.handle.enter(Operation::Close).await?;
        self.handle.cluster.state().end_with_records(self.session, Ended::Closed);
        if self.handle.link.condition().drop_acks {
            return Err(self.unanswered(Operation::Close));
        }
        Ok(())
    }
}
