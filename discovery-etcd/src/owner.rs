//! What the sessions of one handle share, one after another.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many earlier leases are remembered. An older one has long expired, and its records with it.
const REMEMBERED: usize = 64;

/// One handle as an owner of records.
#[derive(Debug)]
pub(crate) struct Owner {
    /// Tells the handle from every other one, also from a later process under the same instance id.
    pub(crate) handle: u64,
    sessions: AtomicU64,
    leases: Mutex<Vec<i64>>,
}

impl Owner {
    pub(crate) fn new() -> Self {
        Self { handle: fastrand::u64(..), sessions: AtomicU64::new(0), leases: Mutex::default() }
    }

    fn leases(&self) -> MutexGuard<'_, Vec<i64>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of a session that is being opened, from one on.
    pub(crate) fn next_session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// The newest number that was given out.
    pub(crate) fn newest_session(&self) -> u64 {
        self.sessions.load(Ordering::Acquire)
    }

    /// Takes note of a session's lease, before anything is written under it.
    pub(crate) fn granted(&self, lease: i64) {
        let mut leases = self.leases();
        leases.push(lease);
        let spare = leases.len().saturating_sub(REMEMBERED);
        leases.drain(..spare);
    }

    /// The lease that was granted last.
    pub(crate) fn newest_lease(&self) -> Option<i64> {
        self.leases().last().copied()
    }

    /// Whether records under this lease are the handle's to take over: its own, or nobody's.
    pub(crate) fn may_take(&self, lease: i64) -> bool {
        lease == 0 || self.leases().contains(&lease)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_leases_and_none_are_the_handles() {
        let owner = Owner::new();
        owner.granted(5);
        assert!(owner.may_take(5) && owner.may_take(0) && !owner.may_take(6));
        for lease in 100..200 {
            owner.granted(lease);
        }
        assert!(owner.may_take(199) && !owner.may_take(5));
        assert_eq!((owner.next_session(), owner.next_session(), owner.newest_session()), (1, 2, 2));
    }
}
