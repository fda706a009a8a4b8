//! The stored records, ordered so that a scope is one range of them.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use discovery_core::backend::{Entry, Incarnation};
use discovery_core::{Key, Path, Scope};

use super::Lease;

/// One record as it is stored.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) value: Bytes,
    /// Whose it is; `None` for what something foreign wrote.
    pub(crate) lease: Option<Lease>,
    /// The revision at which the key last became visible, or was created while invisible.
    pub(crate) incarnation: u64,
    /// The revision of its value.
    pub(crate) modified: u64,
}

impl Stored {
    pub(crate) fn entry(&self, key: &Key) -> Entry {
        Entry { key: key.clone(), value: self.value.clone(), incarnation: Incarnation(self.incarnation) }
    }
}

/// A path that is found by its text, so that a scope's text is the start of a range.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct ByText(Path);

impl Borrow<str> for ByText {
    fn borrow(&self) -> &str {
        self.0.as_str()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Records {
    paths: BTreeMap<ByText, BTreeMap<Key, Stored>>,
    count: usize,
}

impl Records {
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Stored> {
        self.paths.get(key.path().as_str())?.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: &Key) -> Option<&mut Stored> {
        self.paths.get_mut(key.path().as_str())?.get_mut(key)
    }

    /// Stores or removes, and answers what was there.
    pub(crate) fn replace(&mut self, key: &Key, record: Option<Stored>) -> Option<Stored> {
        let before = match record {
            Some(record) => self.paths.entry(ByText(key.path().clone())).or_default().insert(key.clone(), record),
            None => {
                let path = self.paths.get_mut(key.path().as_str())?;
                let before = path.remove(key);
                if path.is_empty() {
                    self.paths.remove(key.path().as_str());
                }
                self.count -= usize::from(before.is_some());
                return before;
            }
        };
        self.count += usize::from(before.is_none());
        before
    }

    pub(crate) fn within<'a>(&'a self, scope: &'a Scope) -> impl Iterator<Item = (&'a Key, &'a Stored)> {
        let prefix = scope.as_str();
        self.paths
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(path, _)| path.0.as_str().starts_with(prefix))
            .flat_map(|(_, records)| records)
    }

    pub(crate) fn clear(&mut self) {
        self.paths.clear();
        self.count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use discovery_core::InstanceId;

    fn key(path: &[&str], instance: u64) -> Key {
        Key::new(Path::new("endpoint", path).expect("a path"), InstanceId(instance))
    }

    fn record() -> Stored {
        Stored { value: Bytes::from_static(b"{}"), lease: None, incarnation: 1, modified: 1 }
    }

    #[test]
    fn a_scope_is_exact_on_segments() {
        let mut records = Records::default();
        for (path, instance) in [(&["a"][..], 1), (&["a", "b"], 2), (&["a!"], 3), (&["ab"], 4), (&["b"], 5)] {
            assert!(records.replace(&key(path, instance), Some(record())).is_none());
        }
        let within = |scope: &Scope| -> Vec<u64> { records.within(scope).map(|(key, _)| key.instance().0).collect() };
        assert_eq!(within(&Scope::new("endpoint", ["a"]).expect("a scope")), [1, 2]);
        assert_eq!(within(&Scope::new("endpoint", [""; 0]).expect("a scope")).len(), 5);
        assert_eq!(within(&Scope::all()).len(), 5);
        assert!(within(&Scope::new("model", [""; 0]).expect("a scope")).is_empty());
    }

    #[test]
    fn counting_follows_what_is_stored() {
        let mut records = Records::default();
        let one = key(&["a"], 1);
        records.replace(&one, Some(record()));
        records.replace(&one, Some(record()));
        assert_eq!(records.len(), 1);
        assert!(records.replace(&key(&["b"], 1), None).is_none());
        assert!(records.replace(&one, None).is_some());
        assert!(records.replace(&one, None).is_none());
        assert_eq!(records.len(), 0);
        assert!(records.paths.is_empty());
    }
}
