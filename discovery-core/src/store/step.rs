//! What did one change make of a version's predecessor? Tells a stream that saw the predecessor without a comparison.

use super::tree::{Diff, Keyed, Tree};

/// The one change between two versions. Most transactions are of one record.
pub(crate) struct Step<T> {
    before: Tree<T>,
    old: Option<T>,
    new: Option<T>,
}

impl<T: Keyed + Clone> Step<T> {
    /// From `before`, where `old` was at the key that has `new` now.
    pub(crate) fn new(before: Tree<T>, old: Option<T>, new: Option<T>) -> Self {
        Self { before, old, new }
    }

    /// Whether it begins at this state.
    pub(crate) fn leads_on_from(&self, state: &Tree<T>) -> bool {
        self.before.is(state)
    }

    /// What it changed, as [`Tree::diff`] tells it; `None` where the key has never held anything.
    pub(crate) fn change(&self) -> Option<Diff<'_, T>> {
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => Some(Diff::Changed(old, new)),
            (Some(old), None) => Some(Diff::Removed(old)),
            (None, Some(new)) => Some(Diff::Added(new)),
            (None, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use bytes::Bytes;

    use super::*;
    use crate::backend::{Entry, Incarnation};
    use crate::key::{InstanceId, Key, Path};
    use crate::query::Scope;
    use crate::record::Registered;
    use crate::store::{AnySlot, Effective, LastGood, Slot, Source, Version};

    const BAD: &[u8] = b"bad";

    fn put(number: u64, value: &'static [u8], incarnation: u64) -> Effective {
        let key = Key::new(Path::new("worker", ["a"]).expect("a path"), InstanceId(number));
        Effective::Put(Arc::new(Entry { key, value: Bytes::from_static(value), incarnation: Incarnation(incarnation) }))
    }

    fn told(diff: Diff<'_, Registered<Bytes>>) -> (Option<Bytes>, Option<Bytes>) {
        match diff {
            Diff::Added(new) => (None, Some(new.value().clone())),
            Diff::Changed(old, new) => (Some(old.value().clone()), Some(new.value().clone())),
            Diff::Removed(old) => (Some(old.value().clone()), None),
        }
    }

    /// Puts 40 records, and then one of them anew, beside others, in every way that there is.
    #[test]
    fn a_step_says_what_a_comparison_would() {
        let decode = |key: &Key, value: &Bytes| {
            if value == BAD {
                return Err(crate::Error::new(crate::ErrorKind::InvalidValue, "bad").with_key(key));
            }
            Ok(value.clone())
        };
        let slot = Slot::<Bytes>::new(Scope::all(), decode);
        let (published, last_good) = (Arc::new(AtomicU64::new(u64::MAX)), LastGood::default());
        let mut number = 0;
        let mut stage = |changes: &[&Effective]| -> (Arc<Version<Bytes>>, Arc<Version<Bytes>>) {
            number += 1;
            let before = slot.load();
            slot.stage(changes, &Source { number, published: &published, last_good: &last_good });
            (before, slot.load())
        };
        let many: Vec<Effective> = (0..40).map(|number| put(number, b"1", 1)).collect();
        let (_, after) = stage(&many.iter().collect::<Vec<_>>());
        assert!(after.step.is_none() && after.records.len() == 40);
        let Effective::Put(entry) = &many[7] else { unreachable!("it was put") };
        let gone = Effective::Delete(entry.key.clone());
        let changes = [
            put(7, b"2", 1),
            put(7, b"3", 2),
            put(7, BAD, 2),
            put(7, BAD, 3),
            put(7, b"4", 3),
            gone.clone(),
            gone,
            put(99, b"1", 1),
            put(98, BAD, 1),
        ];
        for change in changes {
            let (before, after) = stage(&[&change]);
            let mut compared = Vec::new();
            Tree::diff(&before.records, &after.records, Registered::is_same, |diff| compared.push(told(diff)));
            let step = after.step.as_ref().expect("one change");
            assert!(step.leads_on_from(&before.records), "{change:?}");
            let changed = step.change().map(told).filter(|(old, new)| old != new);
            assert_eq!(changed.into_iter().collect::<Vec<_>>(), compared, "{change:?}");
            let (_, later) = stage(&[&change, &put(1, b"1", after.number)]);
            assert!(later.step.is_none(), "two changes");
        }
    }
}
