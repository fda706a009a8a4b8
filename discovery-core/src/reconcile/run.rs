//! The task of the reconciler.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::Instrument;

use super::Reconciler;
use super::keepalive::keep_alive;
use super::ledger::Outcome;
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
        let mut opening = Backoff::new(self.patience());
        loop {
            while !self.is_needed() && !self.is_closing() {
                self.work.notified().await;
            }
            if self.is_closing() && self.ledger().is_empty() {
                break;
            }
            let sent = Instant::now();
            let session = match self.open().await {
                Ok(session) => session,
                Err(error) => {
                    let error = error.with_backend(self.backend.name()).with_operation("open session");
                    tracing::warn!(error = %error, "no session: trying again");
                    self.session.send_modify(|status| {
                        status.failures += 1;
                        status.error = Some(error);
                    });
                    sleep(opening.next()).await;
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
            let end = tokio::select! {
                biased;
                cause = keep_alive(&*session, sent) => End::Lost(cause),
                end = self.write(&*session, &mut opening) => end,
            };
            self.meter.session_up.set(0.0);
            match end {
                End::Closing => {
                    if let Err(error) = session.close().await {
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
                    // A store that takes sessions away at once must not be asked in a tight loop.
                    sleep(opening.next()).await;
                }
            }
        }
        self.session.send_modify(|status| status.up = false);
        self.finished.send_replace(true);
    }

    /// The longest pause between two tries, and how long one may take.
    fn patience(&self) -> Duration {
        (self.backend.bounds().recovery / 2).max(Duration::from_millis(100))
    }

    async fn open(&self) -> Result<Box<dyn Session>, Error> {
        let instance = self.session.borrow().id.or(self.wish.instance);
        let request = SessionRequest::new(self.wish.ttl, instance);
        let limit = self.patience() * 4;
        let session = timeout(limit, self.backend.open(&request)).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, format!("the store did not answer within {limit:?}: is it reachable?")))
        })?;
        match instance {
            Some(wanted) if wanted != session.id() => Err(Error::new(
                ErrorKind::Internal,
                format!(
                    "the backend opened a session of instance {} and not of {wanted}: please report it",
                    session.id()
                ),
            )),
            _ => Ok(session),
        }
    }

    /// Publishes what is wanted and verifies it now and then, until the session is lost or everything is withdrawn.
    async fn write(&self, session: &dyn Session, opening: &mut Backoff) -> End {
        let mut backoff = Backoff::new(self.patience());
        let mut recheck = false;
        let mut verify_at = Instant::now() + self.patience();
        loop {
            if self.is_closing() && self.ledger().is_empty() {
                return End::Closing;
            }
            if recheck || Instant::now() >= verify_at {
                match self.verify(session).await {
                    Ok(()) => recheck = false,
                    Err(error) if error.kind() == ErrorKind::SessionLost => return End::Lost(error),
                    Err(error) => {
                        tracing::debug!(error = %error, "records not verified: trying again");
                        if recheck {
                            sleep(backoff.next()).await;
                            continue;
                        }
                    }
                }
                verify_at = Instant::now() + self.patience();
            }
            let work = self.ledger().collect();
            let Some(work) = work else {
                tokio::select! {
                    () = self.work.notified() => {}
                    () = sleep_until(verify_at) => {}
                }
                continue;
            };
            let desired = self.ledger().desired();
            let limit = self.patience() * 2;
            let results = timeout(limit, session.publish(&work.batch, &desired)).await.unwrap_or_else(|_| {
                let error = Error::new(ErrorKind::Timeout, format!("the store did not answer within {limit:?}"));
                vec![Err(error.with_effect(Effect::Unknown)); work.batch.writes.len()]
            });
            drop(desired);
            let outcome = self.ledger().settle(work, results);
            let Outcome { retry, recheck: unsure, lost, put_back } = outcome;
            self.meter.reregistrations.increment(put_back);
            if put_back > 0 {
                tracing::info!(records = put_back, "records put back");
            }
            recheck |= unsure;
            if let Some(cause) = lost {
                return End::Lost(cause);
            }
            match retry {
                None => {
                    backoff.reset();
                    opening.reset();
                }
                Some(error) => {
                    tracing::warn!(error = %error, "write failed: trying again");
                    sleep(backoff.next()).await;
                }
            }
        }
    }

    /// Compares the store with what is wanted, and marks what differs.
    async fn verify(&self, session: &dyn Session) -> Result<(), Error> {
        let desired = self.ledger().desired();
        let limit = self.patience() * 2;
        let drifts = timeout(limit, session.verify(&desired)).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, format!("the store did not answer within {limit:?}")))
        })?;
        let mut ledger = self.ledger();
        for (key, drift) in drifts {
            match drift {
                Drift::Changed => ledger.drifted(&key),
                Drift::Unwanted => ledger.unwanted(&key),
                Drift::Taken(conflict) => {
                    tracing::warn!(key = %key, error = %conflict, "another owner holds the key");
                    ledger.taken(&key, &conflict);
                }
            }
        }
        Ok(())
    }
}
