//! Losing data, wholly or back to an older state.

use discovery_core::Scope;
use tokio::time::Instant;

use super::{Due, Ended, State};

impl State {
    /// Everything is gone, sessions included, and another epoch begins.
    pub(crate) fn lose_data(&mut self) {
        self.records.clear();
        let sessions = self.sessions_where(|_, _| true);
        for owner in self.owners.values_mut() {
            owner.keys.clear();
        }
        for session in sessions {
            self.end_session(session, Ended::DataLost);
        }
        self.timers.retain(|_, due| matches!(due, Due::Write { .. }));
        self.begin_epoch();
    }

    /// Takes back the newest `revisions` transactions, as far as history reaches, and begins another epoch. Sessions
    /// that were opened since are lost. Records that come back live for as long as their session does; where it is
    /// gone, for one more time to live.
    pub(crate) fn roll_back(&mut self, revisions: usize, now: Instant) {
        let mut target = self.revision;
        for _ in 0..revisions {
            let Some(transaction) = self.history.pop() else { break };
            target -= 1;
            for (key, before) in transaction.undo.into_iter().rev() {
                self.store(&key, before);
            }
        }
        let newer: Vec<u64> =
            self.sessions.iter().filter(|(_, state)| state.opened > target).map(|(id, _)| *id).collect();
        for session in newer {
            self.end_session(session, Ended::DataLost);
        }
        let leases: Vec<_> = self.records.within(&Scope::all()).filter_map(|(_, record)| record.lease).collect();
        for lease in leases {
            self.revive_session(lease, now);
        }
        self.begin_epoch();
    }

    /// Forgets the history before now.
    pub(crate) fn compact(&mut self) {
        self.history.restart(self.revision);
        self.watchers.wake_all();
    }

    /// Revisions go on, so an incarnation is never given twice.
    fn begin_epoch(&mut self) {
        self.epoch += 1;
        self.revision += 1;
        self.history.restart(self.revision);
        self.watchers.wake_all();
        self.noticed();
    }
}
