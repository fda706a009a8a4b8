//! What did a slot show when it was looked at last, and does it still?

use std::ops::Deref;
use std::sync::Arc;

use arc_swap::ArcSwap;
use arc_swap::cache::Cache;

use super::slot::{Slot, Version, shown};

/// The version of a slot that was loaded last. Loading it again compares a pointer and counts no reference.
pub(crate) struct Latest<T> {
    newest: Cache<Current<T>, Arc<Version<T>>>,
    shown: Arc<Version<T>>,
}

struct Current<T>(Arc<Slot<T>>);

impl<T> Deref for Current<T> {
    type Target = ArcSwap<Version<T>>;

    fn deref(&self) -> &Self::Target {
        self.0.current()
    }
}

impl<T> Latest<T> {
    pub(crate) fn new(slot: Arc<Slot<T>>) -> Self {
        Self { shown: slot.load(), newest: Cache::new(Current(slot)) }
    }

    /// What [`Slot::load`] answers.
    pub(crate) fn load(&mut self) -> &Arc<Version<T>> {
        let newest = self.newest.load();
        // A version that was shown is published for good. One that gave way to its predecessor may be published by now.
        if !Arc::ptr_eq(newest, &self.shown) {
            self.shown = shown(Arc::clone(newest));
        }
        &self.shown
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
        assert_eq!(latest.load().number, 0);
        let (published, last_good) = (Arc::new(AtomicU64::new(0)), LastGood::default());
        for number in 1..4 {
            let key = Key::new(Path::new("worker", ["a"]).expect("a path"), InstanceId(number));
            let entry = Entry { key, value: Bytes::from_static(b"{}"), incarnation: Incarnation(number) };
            let source = Source { number, published: &published, last_good: &last_good };
            slot.stage(&[&Effective::Put(Arc::new(entry))], &source);
            assert_eq!((latest.load().number, slot.load().number), (number - 1, number - 1), "staged");
            published.store(number, Ordering::Release);
            assert_eq!((latest.load().number, slot.load().number), (number, number), "published");
            slot.commit();
            assert_eq!((latest.load().number, latest.load().records.len() as u64), (number, number), "committed");
        }
    }
}
