//! The task of the reconciler.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::Instrument;

use super::keepalive::keep_alive;
use super::schedule::Schedule;
use super::settle::Outcome;
use super::{Reconciler, patience};
use crate::backend::{Drift, Session, SessionRequest};
use crate::backoff::Backoff;
use crate::error::{Effect, Error, ErrorKind};

/// Why a session is left.
enum End {
    Lost(Error),
    /// Everything is withdrawn and the handle is closing.
    Closing,
}

pub(super) async fn run(reconciler: Arc<Reconciler>) {
    let span = tracing::info_span!("discovery_owner", backend = reconciler.backend.name());
    reconciler.live().instrument(span).await;
}

impl Reconciler {
    async fn live(&self) {
        let mut opening = Backoff::seeded(patience(&*self.backend), self.seed);
        let mut ended = Ok(());
        loop {
            while !self.is_needed() && !self.is_closing() {
                self.work.notified().await;
            }
            let sent = Instant::now();
            let opened = tokio::select! {
                biased;
                // A store that is silent keeps nobody who wants nothing of it any more.
                () = self.done() => break,
                opened = caught(self.open()) => opened.unwrap_or_else(Err),
            };
            let session = match opened {
                Ok(session) => session,
                Err(error) => {
                    let error = error.with_backend(self.backend.name()).with_operation("open session");
                    tracing::warn!(error = %error, "no session: trying again");
                    self.session.send_modify(|status| {
                        status.failures += 1;
                        status.error = Some(error);
                    });
                    self.pause(opening.next()).await;
                    continue;
                }
            };
            let id = session.id();
            tracing::info!(instance = %id, ttl = ?session.effective_ttl(), "session open");
            self.meter.session_up.set(1.0);
            self.session.send_modify(|status| {
                status.id = Some(id);
                status.ttl = session.effective_ttl();
                status.up = true;
                status.error = None;
            });
            let recovery = self.backend.bounds().recovery;
            let life = async {
                tokio::select! {
                    biased;
                    cause = keep_alive(&*session, sent, recovery) => End::Lost(cause),
                    end = self.write(&*session) => end,
                }
            };
            let end = caught(life).await.unwrap_or_else(End::Lost);
            self.meter.session_up.set(0.0);
            match end {
                End::Closing => {
                    ended = caught(session.close()).await.unwrap_or_else(Err);
                    if let Err(error) = &ended {
                        tracing::warn!(error = %error, "the session did not close in order: it expires by itself");
                    }
                    break;
                }
                End::Lost(cause) => {
                    let cause = cause.with_backend(self.backend.name()).with_operation("session");
                    tracing::warn!(error = %cause, "session lost: its records are put back under a new one");
                    self.meter.sessions_lost.increment(1);
                    self.session.send_modify(|status| {
                        status.up = false;
                        status.error = Some(cause.clone());
                    });
                    self.ledger().session_lost(&cause);
                    // A store that takes sessions away at once is asked less and less often.
                    if sent.elapsed() > recovery {
                        opening.reset();
                    }
                    self.pause(opening.next()).await;
                }
            }
        }
        self.session.send_modify(|status| status.up = false);
        self.finished.send_replace(Some(ended));
    }

    /// Whether the handle is closing and everything is withdrawn.
    fn is_done(&self) -> bool {
        self.is_closing() && self.ledger().is_empty()
    }

    async fn done(&self) {
        while !self.is_done() {
            self.work.notified().await;
        }
    }

    /// Sleeps, unless the handle is closing: what is left is then tried at once.
    async fn pause(&self, delay: Duration) {
        tokio::select! {
            biased;
            () = sleep(delay) => {}
            () = self.hurry.notified() => {}
        }
    }

    async fn open(&self) -> Result<Box<dyn Session>, Error> {
        let instance = self.session.borrow().id.or(self.wish.instance);
        let request = SessionRequest::new(self.wish.ttl, instance);
        let limit = patience(&*self.backend) * 4;
        let session = timeout(limit, self.backend.open(&request)).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, format!("the store did not answer within {limit:?}: is it reachable?")))
        })?;
        match instance {
            Some(wanted) if wanted != session.id() => {
                let text = format!("the backend opened a session of instance {} and not of {wanted}", session.id());
                // Nothing will renew it; whatever its end says, the error is the same.
                let _ = timeout(limit, session.close()).await;
                Err(Error::new(ErrorKind::Internal, format!("{text}: please report it")))
            }
            _ => Ok(session),
        }
    }

    /// Publishes what is wanted and verifies it now and then, until the session is lost or everything is withdrawn.
    async fn write(&self, session: &dyn Session) -> End {
        let patience = patience(&*self.backend);
        let mut reads = Schedule::new(self.backend.bounds().recovery, patience, self.seed);
        let mut is_blind = false;
        loop {
            if self.is_done() {
                return End::Closing;
            }
            if reads.is_due() {
                let sent = Instant::now();
                match self.verify(session).await {
                    Err(error) if error.kind() == ErrorKind::SessionLost => return End::Lost(error),
                    Err(error) if is_blind => {
                        tracing::debug!(error = %error, "records not verified: trying again");
                        reads.failed(sent);
                    }
                    Err(error) => {
                        tracing::warn!(error = %error, "records cannot be verified: trying again");
                        is_blind = true;
                        reads.failed(sent);
                    }
                    Ok(()) => {
                        if std::mem::take(&mut is_blind) {
                            tracing::info!("records can be verified again");
                        }
                        reads.done(sent);
                        // One that came before what it is to find does not do.
                        reads.wanted_by(session.verify_by());
                    }
                }
            }
            let (work, next_try) = {
                let mut ledger = self.ledger();
                (ledger.collect(Instant::now()), ledger.next_try())
            };
            let Some(work) = work else {
                tokio::select! {
                    biased;
                    () = self.work.notified() => {}
                    () = sleep_until(next_try.map_or(reads.at(), |at| at.min(reads.at()))) => {}
                }
                continue;
            };
            let desired = self.ledger().desired();
            let (limit, sent) = (patience * 2, Instant::now());
            let results = timeout(limit, session.publish(&work.batch, &desired)).await.unwrap_or_else(|_| {
                let error = Error::new(ErrorKind::Timeout, format!("the store did not answer within {limit:?}"));
                vec![Err(error.with_effect(Effect::Unknown)); work.batch.writes.len()]
            });
            reads.wrote(sent.elapsed());
            drop(desired);
            let Outcome { retry, recheck, lost, put_back } = self.ledger().settle(work, results);
            self.meter.reregistrations.increment(put_back);
            if put_back > 0 {
                tracing::info!(records = put_back, "records put back");
            }
            if let Some(cause) = lost {
                return End::Lost(cause);
            }
            if let Some(error) = &retry {
                tracing::warn!(error = %error, "write failed: trying again");
            }
            self.session.send_if_modified(|status| {
                status.write = retry;
                // Nobody waits for it: who is told of it has run out of time.
                false
            });
            if recheck {
                // What may have been written is read before it is written again.
                reads.now();
            }
            reads.wanted_by(session.verify_by());
        }
    }

    /// Compares the store with what is wanted, and marks what differs.
    async fn verify(&self, session: &dyn Session) -> Result<(), Error> {
        let desired = {
            let ledger = self.ledger();
            if !ledger.is_used() {
                return Ok(());
            }
            ledger.desired()
        };
        let limit = patience(&*self.backend) * 2;
        let drifts = timeout(limit, session.verify(&desired)).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, format!("the store did not answer within {limit:?}")))
        })?;
        let mut lost = 0;
        let mut ledger = self.ledger();
        for (key, drift) in drifts {
            match drift {
                Drift::Changed => lost += usize::from(ledger.drifted(&key)),
                Drift::Unwanted => ledger.unwanted(&key),
                Drift::Taken(conflict) => {
                    tracing::warn!(key = %key, error = %conflict, "another owner holds the key");
                    ledger.taken(&key, &conflict);
                }
            }
        }
        drop(ledger);
        if lost > 0 {
            tracing::warn!(records = lost, "records were deleted or overwritten by others: they are put back");
        }
        Ok(())
    }
}

/// Runs a backend's code: a panic of it is an error like any other.
async fn caught<T>(work: impl Future<Output = T>) -> Result<T, Error> {
    AssertUnwindSafe(work).catch_unwind().await.map_err(|_| {
        Error::new(ErrorKind::Internal, "the backend panicked: please report it").with_effect(Effect::Unknown)
    })
}
