//! How far is an open watch to come? As far as whoever asked for a barrier waits for, where the watch covers what that was
//! asked of: the others need not ask the server how far they are.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::names::Range;

/// One sender for each open watch.
#[derive(Debug, Default)]
pub(crate) struct Awaited(Mutex<Vec<(Range, watch::Sender<i64>)>>);

impl Awaited {
    /// For a watch of this range: the newest revision that somebody waits for since this call.
    pub(crate) fn subscribe(&self, range: &Range) -> watch::Receiver<i64> {
        let (sender, receiver) = watch::channel(0);
        self.open().push((range.clone(), sender));
        receiver
    }

    /// Watches that cover `range` are to come to `revision`.
    pub(crate) fn expect(&self, range: &Range, revision: i64) {
        for (_, awaited) in self.open().iter().filter(|(watched, _)| watched.covers(range)) {
            awaited.send_if_modified(|awaited| {
                let newer = revision > *awaited;
                *awaited = revision.max(*awaited);
                newer
            });
        }
    }

    /// What was awaited was a revision of a history that is gone.
    pub(crate) fn forget(&self) {
        for (_, awaited) in self.open().iter() {
            awaited.send_replace(0);
        }
    }

    /// Those of watches that are still open.
    fn open(&self) -> MutexGuard<'_, Vec<(Range, watch::Sender<i64>)>> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, awaited)| !awaited.is_closed());
        open
    }
}

#[cfg(test)]
mod tests {
    use discovery_core::Scope;

    use super::*;
    use crate::names::Names;

    #[test]
    fn a_watch_is_to_come_as_far_as_is_awaited_of_what_it_covers() {
        let range = |path: &[&str]| Names::new("").range(&Scope::new("endpoint", path).unwrap()).unwrap();
        let awaited = Awaited::default();
        let [wide, narrow, beside] = [&["a"][..], &["a", "b"], &["a", "c"]].map(|path| awaited.subscribe(&range(path)));
        let told = || [&wide, &narrow, &beside].map(|told| *told.borrow());
        awaited.expect(&range(&["a", "b"]), 7);
        assert_eq!(told(), [7, 7, 0]);
        awaited.expect(&range(&["a"]), 9);
        awaited.expect(&range(&["a", "b"]), 8);
        assert_eq!(told(), [9, 8, 0], "no watch is sent back");
        awaited.forget();
        assert_eq!(told(), [0, 0, 0]);
    }

    #[test]
    fn a_watch_that_is_closed_is_forgotten() {
        let awaited = Awaited::default();
        let everything = Names::new("").everything();
        for _ in 0..100 {
            drop(awaited.subscribe(&everything));
        }
        assert_eq!(awaited.open().len(), 0);
    }
}
