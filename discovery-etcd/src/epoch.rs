//! Which history an answer belongs to. A store that loses data goes on with another one, in which the revisions of the
//! first come again: by themselves they say nothing of what was before.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// What was known of the store at some moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// How many losses of data were proven.
    pub(crate) epoch: u64,
    /// The newest revision that the store was seen at since the last of them.
    newest: i64,
}

/// What one handle knows.
#[derive(Debug, Default)]
pub(crate) struct Epochs {
    known: Mutex<Known>,
}

impl Epochs {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn known(&self) -> Known {
        *self.lock()
    }

    /// Takes note of an answer that holds everything which was committed before it was asked for, and of what was known
    /// then. Answers the epoch that it belongs to, and whether the answer is what proves a loss.
    pub(crate) fn answered(&self, before: Known, revision: i64) -> (u64, bool) {
        let mut known = self.lock();
        let lost = known.epoch == before.epoch && revision < before.newest;
        if lost {
            *known = Known { epoch: known.epoch + 1, newest: revision };
        } else if known.epoch == before.epoch {
            known.newest = known.newest.max(revision);
        }
        (known.epoch, lost)
    }

    /// Takes note of how far a watch of `epoch` was told everything.
    pub(crate) fn told(&self, epoch: u64, revision: i64) {
        let mut known = self.lock();
        if known.epoch == epoch {
            known.newest = known.newest.max(revision);
        }
    }

    /// A watch that was in `epoch` has proven a loss. The same one is counted once, whoever finds it: answers the epoch since,
    /// and whether this is the first to find it.
    pub(crate) fn lost(&self, epoch: u64) -> (u64, bool) {
        let mut known = self.lock();
        let first = known.epoch <= epoch;
        if first {
            *known = Known { epoch: epoch + 1, newest: 0 };
        }
        (known.epoch, first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_that_goes_back_proves_a_loss_once() {
        let epochs = Epochs::default();
        let start = epochs.known();
        assert_eq!(epochs.answered(start, 10), (0, false));
        let before = epochs.known();
        // Asked for before the store was seen at 10.
        assert_eq!(epochs.answered(start, 9), (0, false));
        assert_eq!(epochs.answered(before, 4), (1, true));
        assert_eq!(epochs.answered(before, 3), (1, false));
        assert_eq!(epochs.lost(0), (1, false));
        let after = epochs.known();
        assert_eq!(epochs.answered(after, 4), (1, false));
        epochs.told(0, 99);
        assert_eq!(epochs.answered(epochs.known(), 5), (1, false));
        epochs.told(1, 7);
        assert_eq!(epochs.answered(epochs.known(), 6), (2, true));
        assert_eq!(epochs.lost(2), (3, true));
    }
}
