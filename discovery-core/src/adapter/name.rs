//! Keys as text, for stores whose keys are text.

use crate::error::{Error, ErrorKind, Result};
use crate::key::{InstanceId, Key, Path, push_segment, segments_of};

/// The key as one text: `endpoint/dynamo/backend/1f`, and `endpoint/dynamo/backend/1f:suffix` where it has a suffix.
///
/// Two keys never share a text, and a key lies in a [`Scope`](crate::Scope) exactly when its text starts with
/// [`Scope::as_str`](crate::Scope::as_str).
pub fn name_of(key: &Key) -> String {
    let mut name = format!("{}{}", key.path().as_str(), key.instance());
    if let Some(suffix) = key.suffix() {
        name.push(':');
        // The key was checked when it was made.
        let _ = push_segment(&mut name, suffix);
        name.pop();
    }
    name
}

/// The key of a text that [`name_of`] wrote.
///
/// # Errors
/// [`ErrorKind::InvalidKey`] for every other text.
pub fn parse_name(name: &str) -> Result<Key> {
    let broken = || Error::new(ErrorKind::InvalidKey, format!("{name:?} is no key that this crate wrote: leave it"));
    let (path, last) = name.rsplit_once('/').ok_or_else(broken)?;
    let (instance, suffix) = match last.split_once(':') {
        Some((instance, suffix)) => (instance, Some(suffix)),
        None => (last, None),
    };
    let instance: InstanceId = instance.parse().map_err(|_| broken())?;
    let (kind, _) = path.split_once('/').ok_or_else(broken)?;
    let mut key = Key::new(Path::new(kind, segments_of(path))?, instance);
    if let Some(suffix) = suffix {
        key = key.with_suffix(&suffix.replace("%2F", "/").replace("%25", "%"))?;
    }
    // Each key has one text only.
    if name_of(&key) == name { Ok(key) } else { Err(broken()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::query::Scope;

    fn key(segments: &[String], instance: u64, suffix: Option<&str>) -> Option<Key> {
        let key = Key::new(Path::new("kind", segments).ok()?, InstanceId(instance));
        match suffix {
            Some(suffix) => key.with_suffix(suffix).ok(),
            None => Some(key),
        }
    }

    proptest! {
        #[test]
        fn keys_come_back(
            segments in prop::collection::vec("[a/%:é2F]{1,5}", 1..4),
            instance: u64,
            suffix in prop::option::of("[a/%:é2F]{1,5}"),
        ) {
            let key = key(&segments, instance, suffix.as_deref()).expect("a key");
            let name = name_of(&key);
            prop_assert_eq!(parse_name(&name).expect("a name"), key.clone());
            for end in 1..=segments.len() {
                let scope = Scope::new("kind", &segments[..end]).expect("a scope");
                prop_assert!(name.starts_with(scope.as_str()));
            }
            let longer = format!("{}x", segments[0]);
            prop_assert!(!name.starts_with(Scope::new("kind", [longer]).expect("a scope").as_str()));
        }

        #[test]
        fn a_text_is_refused_or_is_the_only_one_of_its_key(text in "[a-c/%:2F]{0,12}") {
            if let Ok(key) = parse_name(&text) {
                prop_assert_eq!(name_of(&key), text);
            }
        }
    }

    #[test]
    fn names_of_others_are_refused() {
        for name in ["", "kind", "kind/1", "kind//1", "kind/a/", "kind/a/x", "kind/a/01", "kind/a/+1", "kind/a/1:"] {
            assert!(parse_name(name).is_err(), "{name:?}");
        }
    }
}
