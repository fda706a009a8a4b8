//! What did a slot show when it was looked at last, and does it still?

use std::sync::Arc;

use super::slot::{Slot, Version};

/// What is new in a slot since it was looked at last. To learn that nothing is takes one number, and counts no
/// reference.
pub(crate) struct Latest<T> {
    slot: Arc<Slot<T>>,
    /// Which turn of the slot's was seen; `None` before the first look.
    turn: Option<u64>,
}

impl<T> Latest<T> {
    pub(crate) fn new(slot: Arc<Slot<T>>) -> Self {
        Self { slot, turn: None }
    }

    /// What [`Slot::load`] answers, unless it answered that last time too.
    #[inline]
    pub(crate) fn newer(&mut self) -> Option<Arc<Version<T>>> {
        // Before the version itself: what is stored in between counts as new once more.
        let turn = Some(self.slot.turn());
        if turn == self.turn { None } else { Some(self.look(turn)) }
    }

    #[cold]
    fn look(&mut self, turn: Option<u64>) -> Arc<Version<T>> {
        let (shown, newest) = self.slot.shown();
        // A version that was shown is published for good. One that gave way to its predecessor may be published by now.
        if newest {
            self.turn = turn;
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use bytes::Bytes;

    use super::*;
    use crate::backend::{Entry, Incarnation};
    use crate::key::{InstanceId, Key, Path};
    use crate::query::Scope;
    use crate::store::{AnySlot, Effective, LastGood, Source};

    #[test]
    fn a_staged_version_shows_once_it_is_published() {
        let slot = Arc::new(Slot::new(Scope::all(), |_, value| Ok(value.clone())));
        let mut latest = Latest::new(Arc::clone(&slot));
        assert_eq!(latest.newer().map(|version| version.number), Some(0));
        let (published, last_good) = (Arc::new(AtomicU64::new(0)), LastGood::default());
        for number in 1..4 {
            let key = Key::new(Path::new("worker", ["a"]).expect("a path"), InstanceId(number));
            let entry = Entry { key, value: Bytes::from_static(b"{}"), incarnation: Incarnation(number) };
            let source = Source { number, published: &published, last_good: &last_good };
            slot.stage(&[&Effective::Put(Arc::new(entry))], &source);
            let mut newer = || latest.newer().map(|version| version.number);
            assert_eq!((newer(), slot.load().number), (Some(number - 1), number - 1), "staged");
            published.store(number, Ordering::Release);
            assert_eq!((newer(), slot.load().number), (Some(number), number), "published");
            assert_eq!(newer(), None, "nothing is new");
            slot.commit();
            assert_eq!((newer(), slot.load().records.len() as u64), (None, number), "committed");
        }
    }
}
