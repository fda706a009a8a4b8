//! One key that the owner wants present, or wants gone and is not yet sure of.

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

use crate::backend::Stamp;
use crate::backoff::Backoff;
use crate::error::Result;
use crate::registration::RegistrationState;

/// Whoever waits for a write.
pub(crate) type Waiter = oneshot::Sender<Result<Stamp>>;

pub(super) struct Claim {
    /// Tells the claims that followed each other under one key apart.
    pub(super) id: u64,
    /// `None`: to be removed.
    pub(super) wanted: Option<Bytes>,
    /// The number of the newest wish.
    pub(super) change: u64,
    /// The wish that is known to be stored; 0 for none.
    pub(super) stored: u64,
    /// The value that was stored last, to go back to when an update is refused.
    pub(super) last: Option<(Bytes, Stamp)>,
    /// Whether `last` is still stored, as far as is known.
    pub(super) sure: bool,
    /// Whether the store may hold anything of this owner under the key.
    pub(super) maybe_stored: bool,
    /// Whether an attempt to store the newest wish may have had an effect.
    pub(super) unsure: bool,
    /// Guards, and callers that wait to become one.
    pub(super) holders: usize,
    /// Callers that wait for a value to be stored, by the number of their wish.
    pub(super) for_put: Vec<(u64, Waiter)>,
    /// Callers that wait for the key to be gone, or to hold what came after, by the number of the wish to remove it.
    pub(super) for_delete: Vec<(u64, Waiter)>,
    pub(super) state: watch::Sender<RegistrationState>,
    /// The delays between tries, from the first failure on.
    pub(super) backoff: Option<Box<Backoff>>,
}

impl Claim {
    pub(super) fn new(id: u64, state: RegistrationState) -> Self {
        Self {
            id,
            wanted: None,
            change: id,
            stored: 0,
            last: None,
            sure: false,
            maybe_stored: false,
            unsure: false,
            holders: 0,
            for_put: Vec::new(),
            for_delete: Vec::new(),
            state: watch::Sender::new(state),
            backoff: None,
        }
    }

    pub(super) fn answer_puts(&mut self, up_to: u64, result: &Result<Stamp>) {
        for (change, waiter) in std::mem::take(&mut self.for_put) {
            if change <= up_to {
                // A waiter that is gone has released its claim itself.
                let _ = waiter.send(result.clone());
            } else {
                self.for_put.push((change, waiter));
            }
        }
    }

    /// Answers those whose withdrawal is at most as new as `up_to`: a put that was under way before it is no answer.
    pub(super) fn answer_deletes(&mut self, up_to: u64, result: &Result<Stamp>) {
        for (change, waiter) in std::mem::take(&mut self.for_delete) {
            if change <= up_to {
                // A withdrawal goes on when its caller is gone.
                let _ = waiter.send(result.clone());
            } else {
                self.for_delete.push((change, waiter));
            }
        }
    }
}
