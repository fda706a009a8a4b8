//! The entries of a snapshot while it comes.

use std::sync::Arc;

use super::order::in_key_order;
use crate::backend::Entry;

/// What came of a snapshot so far.
#[derive(Default)]
pub(crate) struct Staged {
    /// As long as keys ascend.
    ascending: Vec<Arc<Entry>>,
    /// From the first entry on whose key does not stand behind the one that came before it. What is not in order is made
    /// shareable once it is, so that neighbours lie beside each other in memory, too.
    mixed: Vec<Entry>,
}

impl Staged {
    /// Takes the next part in. As long as keys ascend, neighbours with equal paths share one text.
    pub(crate) fn take(&mut self, part: Vec<Entry>) {
        let mut part = part.into_iter();
        if self.ascends() {
            self.ascending.reserve(part.len());
            for mut entry in part.by_ref() {
                if let Some(last) = self.ascending.last() {
                    entry.key.share_path(last.key.path());
                    if last.key >= entry.key {
                        self.mixed.push(entry);
                        break;
                    }
                }
                self.ascending.push(Arc::new(entry));
            }
        }
        self.mixed.extend(part);
    }

    pub(crate) fn len(&self) -> usize {
        self.ascending.len() + self.mixed.len()
    }

    /// Whether keys ascend so far, none of them twice.
    pub(crate) fn ascends(&self) -> bool {
        self.mixed.is_empty()
    }

    /// What came after the first `count`, as long as keys ascend.
    pub(crate) fn after(&self, count: usize) -> &[Arc<Entry>] {
        self.ascending.get(count..).unwrap_or_default()
    }

    /// All entries, their keys ascending, of several under one key the first.
    pub(super) fn in_order(self) -> Vec<Arc<Entry>> {
        if self.ascends() {
            return self.ascending;
        }
        let ascending = self.ascending.into_iter().map(Arc::unwrap_or_clone);
        let mut entries = in_key_order(ascending.chain(self.mixed).collect());
        entries.dedup_by(|later, earlier| later.key == earlier.key);
        entries.into_iter().map(Arc::new).collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::backend::Incarnation;
    use crate::key::{InstanceId, Key, Path};

    fn entry((service, instance, value): (u8, u64, u8)) -> Entry {
        let path = Path::new("endpoint", [format!("{service}")]).expect("a path");
        let value = Bytes::copy_from_slice(&[value]);
        Entry { key: Key::new(path, InstanceId(instance)), value, incarnation: Incarnation(0) }
    }

    proptest! {
        /// Sorted sets among them, and some with one pair that is not.
        #[test]
        fn parts_come_to_stand_in_order(
            mut named in prop::collection::vec((0_u8..4, 0_u64..40, any::<u8>()), 0..60),
            sorted in any::<bool>(),
            swapped in 0_usize..60,
            size in 1_usize..20,
        ) {
            if sorted {
                named.sort_by_key(|(service, instance, _)| (*service, *instance));
                if swapped + 1 < named.len() {
                    named.swap(swapped, swapped + 1);
                }
            }
            let mut expected: Vec<Entry> = named.iter().copied().map(entry).collect();
            let ascends = expected.is_sorted_by(|one, next| one.key < next.key);
            expected.sort_by(|one, other| one.key.cmp(&other.key));
            expected.dedup_by(|later, earlier| later.key == earlier.key);
            let mut staged = Staged::default();
            for part in named.chunks(size) {
                let known = staged.len();
                staged.take(part.iter().copied().map(entry).collect());
                if staged.ascends() {
                    prop_assert_eq!(staged.after(known).len(), part.len());
                }
            }
            prop_assert_eq!(staged.ascends(), ascends);
            let found: Vec<Entry> = staged.in_order().into_iter().map(Arc::unwrap_or_clone).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
