//! First writes that may still arrive although nobody waits for them any more.
//!
//! A write that creates the resource is refused only while there is one. So a handle of which such a write got no answer
//! does not remove its resource before that write cannot arrive any more: what was withdrawn would be back. It leaves an
//! empty one instead, which goes with its pod at the latest.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// For how long a request may be on its way: the API server gives it a minute (`--request-timeout`), and the network
/// some seconds, since the kernel gives up with the connection.
const ARRIVES: Duration = Duration::from_secs(70);

/// Of one handle, whichever of its sessions wrote.
#[derive(Debug, Default)]
pub(crate) struct FirstWrites(Mutex<Option<Instant>>);

impl FirstWrites {
    /// One is sent. Unless [`FirstWrites::answered`] is told what was before, it may arrive late.
    pub(crate) fn sent(&self) -> Option<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(Instant::now() + ARRIVES)
    }

    pub(crate) fn answered(&self, before: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = before;
    }

    /// Whether one may still arrive.
    pub(crate) fn may_arrive(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() < until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_without_an_answer_may_arrive_for_a_while() {
        let writes = FirstWrites::default();
        assert!(!writes.may_arrive());
        let before = writes.sent();
        assert!(writes.may_arrive());
        writes.answered(before);
        assert!(!writes.may_arrive());
        writes.sent();
        let before = writes.sent();
        writes.answered(before);
        assert!(writes.may_arrive(), "the first of two got no answer");
        tokio::time::advance(ARRIVES).await;
        assert!(!writes.may_arrive());
    }
}
