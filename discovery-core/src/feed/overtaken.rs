//! May a first state be shown that a list has overtaken?
//!
//! A list does not wait for a watch that keeps failing before its first snapshot. It may then answer with what is newer
//! than a snapshot that is under way, and a load after the list must not go back to that (ORD 8). So a list leaves a mark,
//! and a first snapshot that finds one is shown only where nothing was written since it was read; else a new one is read.

use std::sync::Arc;

use super::Feed;
use super::run::{Leave, Stop, Task, whereabouts};
use crate::backend::Position;

impl Feed {
    /// A list is about to answer, though this feed has shown nothing. Answers false where its first snapshot is here by now:
    /// the list then waits for it like for any other.
    pub(super) fn overtake(&self) -> bool {
        let mut arrived = false;
        self.status.send_if_modified(|status| {
            arrived = status.arrived;
            status.overtaken |= !arrived;
            false
        });
        !arrived
    }
}

impl Task {
    /// What is read from now on holds all that any list before has answered.
    pub(super) fn begin_reading(&self) {
        self.feed.status.send_if_modified(|status| {
            status.overtaken = false;
            false
        });
    }

    /// The first snapshot is here. Answers why to leave the watch, where it must not be shown. Lists wait for what comes
    /// then, so that it is not overtaken again.
    pub(super) async fn arrive(&mut self, position: &Position) -> Result<Option<Leave>, Stop> {
        let mut overtaken = false;
        self.feed.status.send_if_modified(|status| {
            status.arrived = true;
            overtaken = status.overtaken;
            false
        });
        if !overtaken {
            return Ok(None);
        }
        let asked = whereabouts(Arc::clone(&self.feed), self.settings.open_timeout);
        Ok(match self.alongside(asked).await? {
            Ok(Some(target)) if self.feed.backend.reached(position, &target) => None,
            Ok(_) => Some(Leave::Reopen),
            Err(error) => Some(Leave::Failed(error)),
        })
    }
}
