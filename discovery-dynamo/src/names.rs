//! Under which names is something served?

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};

use discovery_core::{Path, Result};

use crate::wire;

/// A namespace, a component and an endpoint.
///
/// The key of a record that was read holds the same three in its path, which the instances of an endpoint share. A
/// view of a large fleet would otherwise hold them again for each of its records.
#[derive(Clone)]
pub(crate) enum Names {
    Own(Box<[String; 3]>),
    /// The path's three segments, written without escapes.
    Within(Path),
}

impl Names {
    pub(crate) fn new(namespace: impl Into<String>, component: impl Into<String>, endpoint: impl Into<String>) -> Self {
        Self::Own(Box::new([namespace.into(), component.into(), endpoint.into()]))
    }

    /// Names that were read under a key with this path.
    pub(crate) fn read(names: [Cow<'_, str>; 3], path: &Path) -> Self {
        let is_literal = !path.as_str().contains('%');
        if is_literal && literal_segments(path).eq(names.iter().map(AsRef::as_ref)) {
            Self::Within(path.clone())
        } else {
            Self::own(names)
        }
    }

    /// Names that were read under no key.
    pub(crate) fn own(names: [Cow<'_, str>; 3]) -> Self {
        Self::Own(Box::new(names.map(Cow::into_owned)))
    }

    /// The namespace, the component and the endpoint.
    pub(crate) fn all(&self) -> [&str; 3] {
        match self {
            Self::Own(names) => names.each_ref().map(String::as_str),
            Self::Within(path) => {
                let mut segments = literal_segments(path);
                std::array::from_fn(|_| segments.next().unwrap_or_default())
            }
        }
    }

    /// The path of a record of this kind.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`](discovery_core::ErrorKind::InvalidKey) where a name cannot be part of a key.
    pub(crate) fn path(&self, kind: &str) -> Result<Path> {
        if let Self::Within(path) = self
            && path.kind() == kind
        {
            return Ok(path.clone());
        }
        let names = self.all();
        for (what, name) in ["namespace", "component", "endpoint"].into_iter().zip(names) {
            wire::check_plain(what, name)?;
        }
        Path::new(kind, names)
    }
}

/// The segments of a path whose text holds no escape.
fn literal_segments(path: &Path) -> impl Iterator<Item = &str> {
    path.as_str().split_terminator('/').skip(1)
}

impl PartialEq for Names {
    fn eq(&self, other: &Self) -> bool {
        self.all() == other.all()
    }
}

impl Eq for Names {}

impl Hash for Names {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.all().hash(state);
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.all().join("/"))
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

    use proptest::prelude::*;

    use super::*;

    fn read(names: &[String; 3], path: &Path) -> Names {
        Names::read(names.each_ref().map(|name| Cow::Borrowed(name.as_str())), path)
    }

    #[test]
    fn what_the_key_spells_is_held_once() {
        let names = ["dynamo", "backend", "generate"].map(str::to_owned);
        let path = Path::new("endpoint", &names).expect("a path");
        let Names::Within(held) = read(&names, &path) else { panic!("the names are held again") };
        assert!(std::ptr::eq(held.as_str(), path.as_str()));
    }

    proptest! {
        /// Names with escapes and separators among them, under their own path and under another's.
        #[test]
        fn where_names_are_held_makes_no_difference(
            names in prop::array::uniform3("[ab%/]{0,3}"),
            others in prop::array::uniform4("[ab%]{1,2}"),
            segments in 1_usize..5,
        ) {
            let own = Names::new(&names[0], &names[1], &names[2]);
            let foreign = Path::new("endpoint", &others[..segments.min(4)]).expect("a path");
            let paths = Path::new("endpoint", &names).into_iter().chain([foreign]);
            for path in paths {
                let read = read(&names, &path);
                prop_assert_eq!(read.all(), names.each_ref().map(String::as_str));
                prop_assert_eq!(&read, &own);
                let hasher = BuildHasherDefault::<DefaultHasher>::new();
                prop_assert_eq!(hasher.hash_one(&read), hasher.hash_one(&own));
                for kind in ["endpoint", "model"] {
                    prop_assert_eq!(read.path(kind).ok(), own.path(kind).ok());
                }
            }
        }
    }
}
