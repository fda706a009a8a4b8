//! What an owner's object is to hold next.

use bytes::Bytes;
use discovery_core::backend::Desired;
use discovery_core::{Error, Key};

use crate::document::Draft;

/// What is to be stored of what is `desired` in the place of what is `stored`, but for what is `refused`; what does not fit
/// or has no place there is refused too. `puts` are the keys whose values are new.
pub(crate) fn next(stored: &Draft, desired: &Desired, puts: &[&Key], refused: &mut Vec<(Key, Error)>) -> Draft {
    let mut draft = Draft::default();
    // What is stored has its place, of its own size, before what is new: a value that is refused leaves the one before.
    for key in desired.keys() {
        draft.restore(key, stored);
    }
    let is_refused = |key: &Key| refused.iter().any(|(refused, _)| refused == key);
    let (new, old): (Vec<_>, Vec<_>) =
        desired.iter().filter(|(key, _)| !is_refused(key)).partition(|(key, _)| puts.contains(key));
    let mut put = |(key, value): &(&Key, &Bytes)| draft.put(key, value).err().map(|error| ((*key).clone(), error));
    // What does not fit at first may do so once another has become smaller.
    let waiting: Vec<_> = old.into_iter().chain(new).filter(|one| put(one).is_some()).collect();
    refused.extend(waiting.iter().filter_map(put));
    draft
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use discovery_core::{ErrorKind, InstanceId, Path};

    use super::*;

    fn key(name: &str) -> Key {
        Key::new(Path::new("cache", [name]).unwrap(), InstanceId(1))
    }

    /// Values of so many kilobytes.
    fn values(records: &[(&str, usize)]) -> Desired {
        let value = |kilobytes: usize| Bytes::from(format!("{:?}", "x".repeat(kilobytes * 1000)));
        records.iter().map(|(name, kilobytes)| (key(name), value(*kilobytes))).collect()
    }

    /// What of `puts` is refused beside what is `stored`, and the draft.
    fn planned(stored: &[(&str, usize)], puts: &[(&str, usize)]) -> (Vec<Key>, Draft) {
        let stored = values(stored);
        let mut desired: BTreeMap<_, _> = stored.clone();
        desired.extend(values(puts));
        let keys: Vec<_> = puts.iter().map(|(name, _)| key(name)).collect();
        let mut refused = Vec::new();
        let draft = next(&Draft::of(&stored).unwrap(), &desired, &keys.iter().collect::<Vec<_>>(), &mut refused);
        assert!(refused.iter().all(|(_, error)| error.kind() == ErrorKind::TooLarge), "{refused:?}");
        (refused.into_iter().map(|(key, _)| key).collect(), draft)
    }

    #[test]
    fn an_update_that_does_not_fit_takes_no_place_from_the_others() {
        let (refused, draft) = planned(&[("a", 100), ("b", 1000)], &[("a", 1300), ("b", 1050), ("c", 1)]);
        assert_eq!(refused, [key("a")]);
        assert_eq!(draft, Draft::of(&values(&[("a", 100), ("b", 1050), ("c", 1)])).unwrap());
    }

    #[test]
    fn what_becomes_smaller_makes_room_in_whatever_order() {
        for (smaller, larger) in [("a", "b"), ("b", "a")] {
            let (refused, draft) = planned(&[(smaller, 700), (larger, 600)], &[(smaller, 10), (larger, 1200)]);
            assert_eq!(refused, []);
            assert_eq!(draft, Draft::of(&values(&[(smaller, 10), (larger, 1200)])).unwrap());
        }
    }

    #[test]
    fn what_is_refused_leaves_what_is_stored() {
        let stored = Draft::of(&values(&[("a", 100), ("b", 100)])).unwrap();
        let mut refused = vec![(key("c"), Error::new(ErrorKind::Conflict, "another's"))];
        let mut desired = values(&[("a", 100), ("c", 1)]);
        desired.insert(key("a"), Bytes::from_static(b"no JSON"));
        let draft = next(&stored, &desired, &[&key("a"), &key("c")], &mut refused);
        assert_eq!(draft, Draft::of(&values(&[("a", 100)])).unwrap(), "and what is withdrawn goes");
        assert_eq!(refused.iter().map(|(key, _)| key).collect::<Vec<_>>(), [&key("c"), &key("a")]);
    }
}
