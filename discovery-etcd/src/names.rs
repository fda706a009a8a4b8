//! Which key of etcd is which record.

use discovery_core::{Error, ErrorKind, Key, Result, Scope};
use discovery_dynamo::layout;

/// The longest key in bytes. etcd itself knows no limit below that of a request.
const MAX_KEY: usize = 4096;

/// Keys from `start` to before `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: Vec<u8>,
    pub(crate) end: Vec<u8>,
}

impl Range {
    pub(crate) fn covers(&self, other: &Self) -> bool {
        self.start <= other.start && other.end <= self.end
    }

    pub(crate) fn holds(&self, stored: &[u8]) -> bool {
        *self.start <= *stored && *stored < *self.end
    }
}

/// The names in one store, below one prefix.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    prefix: String,
}

impl Names {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The stored key of a record.
    pub(crate) fn stored(&self, key: &Key) -> Result<String> {
        let stored = format!("{}{}", self.prefix, layout::stored_key(key)?);
        if stored.len() > MAX_KEY {
            let message =
                format!("the stored key takes {} bytes, and {MAX_KEY} are possible: shorten it", stored.len());
            return Err(Error::new(ErrorKind::InvalidKey, message).with_key(key));
        }
        Ok(stored)
    }

    /// The record of a stored key; `None` for what is no record of ours.
    pub(crate) fn parse(&self, stored: &[u8]) -> Option<Key> {
        let stored = std::str::from_utf8(stored).ok()?.strip_prefix(&self.prefix)?;
        layout::parse_stored_key(stored).ok()
    }

    /// The stored keys of a scope's records.
    pub(crate) fn range(&self, scope: &Scope) -> Result<Range> {
        Ok(below(format!("{}{}", self.prefix, layout::stored_prefix(scope)?).into_bytes()))
    }

    /// The stored keys of all records, and of what else is kept beside them.
    pub(crate) fn everything(&self) -> Range {
        below(self.root())
    }

    /// What every record's key starts with: itself the key of nothing, to be read where any read will do.
    pub(crate) fn root(&self) -> Vec<u8> {
        format!("{}{}/", self.prefix, layout::ROOT).into_bytes()
    }

    /// The key that fences the writes of one handle. No kind is called like that, so it is never taken for a record.
    pub(crate) fn fence(&self, handle: u64) -> String {
        format!("{}{handle:x}", self.fences())
    }

    /// Whether this is a key that fences some handle.
    pub(crate) fn is_fence(&self, stored: &[u8]) -> bool {
        stored.starts_with(self.fences().as_bytes())
    }

    fn fences(&self) -> String {
        format!("{}{}/.fences/", self.prefix, layout::ROOT)
    }
}

/// What starts with `start`, which ends with a slash.
fn below(start: Vec<u8>) -> Range {
    let mut end = start.clone();
    // The successor of a text is that of its last byte.
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    Range { start, end }
}

#[cfg(test)]
mod tests {
    use discovery_core::{InstanceId, Path};

    use super::*;

    #[test]
    fn a_range_holds_its_scope_alone() {
        for prefix in ["", "team/"] {
            let names = Names::new(prefix);
            let scope = Scope::new("endpoint", ["foo"]).unwrap();
            let range = names.range(&scope).unwrap();
            let holds = |path: &[&str]| {
                let key = Key::new(Path::new("endpoint", path).unwrap(), InstanceId(7));
                let stored = names.stored(&key).unwrap().into_bytes();
                assert_eq!(names.parse(&stored), Some(key));
                range.holds(&stored)
            };
            assert!(holds(&["foo", "a", "b"]));
            assert!(!holds(&["foo_other", "a", "b"]));
            assert!(!holds(&["fop", "a", "b"]));
        }
    }

    #[test]
    fn a_fence_is_no_record() {
        let names = Names::new("team/");
        let fence = names.fence(0x2a);
        assert_eq!(fence, "team/v1/.fences/2a");
        assert!(names.is_fence(fence.as_bytes()));
        assert_eq!(names.parse(fence.as_bytes()), None);
        assert_eq!(Names::new("").parse(fence.as_bytes()), None);
    }

    #[test]
    fn a_key_too_long_is_refused_before_it_is_sent() {
        let long = "x".repeat(MAX_KEY);
        let key = Key::new(Path::new("cache", [long]).unwrap(), InstanceId(7));
        assert_eq!(Names::new("").stored(&key).unwrap_err().kind(), ErrorKind::InvalidKey);
    }
}
