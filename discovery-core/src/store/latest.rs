//! What did a slot show when it was looked at last, and does it still?

use std::sync::Arc;

use super::slot::{Slot, Version};

/// What is new in a slot since it was looked at last. To learn that nothing is takes one number, and counts no
/// reference.
pub(crate) struct Latest<T> {
    slot: Arc<Slot<T>>,
    /// The number of the version that was seen; `None` before the first look.
    seen: Option<u64>,
}

impl<T> Latest<T> {
    pub(crate) fn new(slot: Arc<Slot<T>>) -> Self {
        Self { slot, seen: None }
    }

    /// What [`Slot::load`] answers, unless it answered that last time too. While a version is staged, its predecessor is
    /// looked at again.
    #[inline]
    pub(crate) fn newer(&mut self) -> Option<Arc<Version<T>>> {
        if self.seen == Some(self.slot.announced()) { None } else { Some(self.look()) }
    }

    #[cold]
    fn look(&mut self) -> Arc<Version<T>> {
        let shown = self.slot.load();
        self.seen = Some(shown.number);
        shown
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
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

    /// A value that looks at the view while it is let go of, which is where a version gives way to the next.
    struct Nosy(u64);

    type Looks = (Vec<(u64, u64)>, Option<(Arc<Slot<Nosy>>, Latest<Nosy>, u64)>);

    thread_local!(static LOOKS: RefCell<Looks> = const { RefCell::new((Vec::new(), None)) });

    impl Drop for Nosy {
        fn drop(&mut self) {
            LOOKS.with_borrow_mut(|(seen, looking)| {
                if let Some((slot, latest, last)) = looking {
                    let loaded = slot.load().number;
                    *last = latest.newer().map_or(*last, |version| version.number);
                    seen.push((loaded, *last));
                }
            });
        }
    }

    #[test]
    fn a_version_that_was_loaded_is_new_to_whoever_looks_next() {
        let slot = Arc::new(Slot::new(Scope::all(), |_, value| Ok(Nosy(value.len() as u64))));
        let (published, last_good) = (Arc::new(AtomicU64::new(u64::MAX)), LastGood::default());
        LOOKS.with_borrow_mut(|looks| looks.1 = Some((Arc::clone(&slot), Latest::new(Arc::clone(&slot)), 0)));
        for number in 1..6 {
            let key = Key::new(Path::new("worker", ["a"]).expect("a path"), InstanceId(1));
            let entry = Entry { key, value: Bytes::from(vec![b'1'; number as usize]), incarnation: Incarnation(1) };
            let source = Source { number, published: &published, last_good: &last_good };
            slot.stage(&[&Effective::Put(Arc::new(entry))], &source);
        }
        assert!(slot.load().records.iter().next().is_some_and(|record| record.value().0 == 5));
        let (seen, _) = LOOKS.with_borrow_mut(std::mem::take);
        assert!(seen.len() > 2 && seen.iter().all(|(loaded, read)| loaded == read), "{seen:?}");
    }
}
