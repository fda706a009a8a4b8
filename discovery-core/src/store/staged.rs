//! The entries of a snapshot while it comes.

use std::sync::Arc;

use super::order::in_key_order;
use crate::backend::Entry;

/// What came of a snapshot so far.
#[derive(Default)]
pub(crate) struct Staged {
    entries: Vec<Arc<Entry>>,
    /// Whether some key does not stand behind the one that came before it.
    mixed: bool,
}

impl Staged {
    /// Takes the next part in. As long as keys ascend, neighbours with equal paths share one text.
    pub(crate) fn take(&mut self, part: Vec<Entry>) {
        self.entries.reserve(part.len());
        for mut entry in part {
            if let (false, Some(last)) = (self.mixed, self.entries.last()) {
                entry.key.share_path(last.key.path());
                self.mixed = last.key >= entry.key;
            }
            self.entries.push(Arc::new(entry));
        }
    }

    /// What came after the first `count`.
    pub(crate) fn after(&self, count: usize) -> &[Arc<Entry>] {
        &self.entries[count..]
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether keys ascend so far, none of them twice.
    pub(crate) fn ascends(&self) -> bool {
        !self.mixed
    }

    /// All entries, their keys ascending, of several under one key the first.
    pub(super) fn in_order(self) -> Vec<Arc<Entry>> {
        if !self.mixed {
            return self.entries;
        }
        let mut entries = in_key_order(self.entries);
        entries.dedup_by(|later, earlier| later.key == earlier.key);
        entries
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
                prop_assert_eq!(staged.after(known).len(), part.len());
            }
            prop_assert_eq!(staged.ascends(), ascends);
            let found: Vec<Entry> = staged.in_order().into_iter().map(Arc::unwrap_or_clone).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
