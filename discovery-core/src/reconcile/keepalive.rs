//! Renews a session, and knows to the moment until when it is proven alive.

use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use crate::backend::Session;
use crate::error::{Error, ErrorKind};

/// The shortest pause between two tries, so that the last ones before expiry are few.
const SHORTEST: Duration = Duration::from_millis(20);

/// Renews until the session is lost, and answers why. `opened` is when the request that opened it was sent: validity
/// counts from when a request was sent, not from when its answer came. However long the time to live, a renewal is due
/// and may take no longer than `recovery`, so that a connection that went silent is found in that time (FLT 6).
pub(super) async fn keep_alive(session: &dyn Session, opened: Instant, recovery: Duration) -> Error {
    let lost = session.lost();
    tokio::pin!(lost);
    let Some(ttl) = session.effective_ttl() else { return lost.await };
    let mut valid_until = after(opened, ttl);
    let mut due = opened + (ttl / 3).min(recovery);
    let mut last_error: Option<Error> = None;
    loop {
        tokio::select! {
            biased;
            cause = &mut lost => return cause,
            () = sleep_until(due.min(valid_until)) => {}
        }
        let sent = Instant::now();
        let left = valid_until.saturating_duration_since(sent);
        if left.is_zero() {
            let error = Error::new(
                ErrorKind::SessionLost,
                format!("no renewal was acknowledged within the time to live of {ttl:?}: is the store reachable?"),
            );
            return match last_error {
                Some(cause) => error.with_source(cause),
                None => error,
            };
        }
        // An attempt that hangs leaves time for another one: at no more than half of what is left.
        let attempt = (sent + (left / 2).min(recovery).max(SHORTEST)).min(valid_until);
        let renewed = tokio::select! {
            biased;
            cause = &mut lost => return cause,
            renewed = timeout_at(attempt, session.renew()) => renewed,
        };
        let error = match renewed {
            Ok(Ok(life)) => {
                valid_until = after(sent, life);
                due = sent + (life / 3).min(recovery);
                last_error = None;
                continue;
            }
            Ok(Err(error)) if error.kind() == ErrorKind::SessionLost => return error,
            Ok(Err(error)) => error,
            Err(_) => Error::new(ErrorKind::Timeout, "the renewal got no answer"),
        };
        tracing::warn!(error = %error, "renewal failed: trying again before the session expires");
        last_error = Some(error);
        let now = Instant::now();
        let left = valid_until.saturating_duration_since(now);
        // Early tries come quickly, later ones never wait for more than half of what is left.
        due = now + (left / 2).min(ttl / 10).min(recovery).max(SHORTEST);
    }
}

/// A time to live may be as good as endless.
fn after(start: Instant, life: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365);
    start + life.min(FAR)
}
