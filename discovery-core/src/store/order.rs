//! In which order do the entries of a snapshot stand?

use std::collections::HashMap;

use crate::backend::Entry;
use crate::key::Path;

/// Puts entries in the order of their keys, keys that come twice side by side in the order they came. Where there is
/// something to do, equal paths come to share one text.
///
/// Comparing two keys follows the pointers of both to texts that are in no cache. Instances share few paths, so the
/// paths alone are compared as texts, and each entry by its path's rank.
pub(super) fn in_key_order(mut entries: Vec<Entry>) -> Vec<Entry> {
    if entries.is_sorted_by(|one, next| one.key <= next.key) {
        return entries;
    }
    let mut numbers: HashMap<Path, usize> = HashMap::new();
    let mut order: Vec<(usize, u64, usize)> = Vec::with_capacity(entries.len());
    for (at, entry) in entries.iter_mut().enumerate() {
        let next = numbers.len();
        let number = match numbers.get_key_value(entry.key.path()) {
            Some((path, number)) => {
                entry.key.share_path(path);
                *number
            }
            None => {
                numbers.insert(entry.key.path().clone(), next);
                next
            }
        };
        order.push((number, entry.key.instance().0, at));
    }
    let mut paths: Vec<(&Path, usize)> = numbers.iter().map(|(path, number)| (path, *number)).collect();
    paths.sort_unstable();
    let mut ranks = vec![0; paths.len()];
    for (rank, (_, number)) in paths.into_iter().enumerate() {
        ranks[number] = rank;
    }
    for (number, ..) in &mut order {
        *number = ranks[*number];
    }
    order.sort_unstable_by(|one, other| {
        let suffix = |at: usize| entries[at].key.suffix();
        (one.0, one.1).cmp(&(other.0, other.1)).then_with(|| (suffix(one.2), one.2).cmp(&(suffix(other.2), other.2)))
    });
    let mut entries: Vec<Option<Entry>> = entries.into_iter().map(Some).collect();
    order.into_iter().filter_map(|(_, _, at)| entries[at].take()).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::in_key_order;
    use crate::backend::{Entry, Incarnation};
    use crate::key::{InstanceId, Key, Path};

    fn entry(service: u8, instance: u64, suffix: u8, value: u8) -> Entry {
        let path = Path::new("endpoint", [format!("{service}")]).expect("a path");
        let key = Key::new(path, InstanceId(instance));
        let key = if suffix == 0 { key } else { key.with_suffix(&format!("{suffix}")).expect("a suffix") };
        Entry { key, value: Bytes::copy_from_slice(&[value]), incarnation: Incarnation(0) }
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_a_stable_sort_by_key(
            parts in prop::collection::vec((0_u8..20, 0_u64..6, 0_u8..3, any::<u8>()), 0..80)
        ) {
            let entries: Vec<Entry> = parts.into_iter().map(|(s, i, x, v)| entry(s, i, x, v)).collect();
            let mut expected = entries.clone();
            expected.sort_by(|one, other| one.key.cmp(&other.key));
            prop_assert_eq!(in_key_order(entries), expected);
        }
    }
}
