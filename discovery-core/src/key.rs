//! Keys: a kind, a path of segments, the instance id of whoever serves it, and an optional suffix.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

/// Identifies one instance of a service, or one publisher. Shown, stored and parsed as lower-case hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub u64);

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl FromStr for InstanceId {
    type Err = ParseIntError;

    fn from_str(text: &str) -> std::result::Result<Self, ParseIntError> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// A kind and its segments, in one canonical text that ends with a slash: `endpoint/dynamo/backend/generate/`.
///
/// A `%` and a `/` inside a segment are written as `%25` and `%2F`, so two different lists of segments never share a
/// text, and a path lies below another exactly when its text starts with the other's. Cloning copies a pointer.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Path(Arc<str>);

impl Ord for Path {
    fn cmp(&self, other: &Self) -> Ordering {
        // The instances of one service share their path's text.
        if Arc::ptr_eq(&self.0, &other.0) { Ordering::Equal } else { self.0.cmp(&other.0) }
    }
}

impl PartialOrd for Path {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Path {
    /// A path of `kind` and `segments`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`] where the kind is not one or more of `[A-Za-z0-9_-]`, where there is no segment, or
    /// where a segment is empty or holds a control character.
    pub fn new<S: AsRef<str>>(kind: &str, segments: impl IntoIterator<Item = S>) -> Result<Self> {
        check_kind(kind)?;
        let mut text = String::with_capacity(64);
        text.push_str(kind);
        text.push('/');
        let mut count = 0;
        for segment in segments {
            push_segment(&mut text, segment.as_ref())?;
            count += 1;
        }
        if count == 0 {
            return Err(Error::new(ErrorKind::InvalidKey, format!("a {kind} path needs at least one segment")));
        }
        Ok(Self(text.into()))
    }

    /// The kind, the first part of the path.
    pub fn kind(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// The segments after the kind, as they were given.
    pub fn segments(&self) -> impl Iterator<Item = Cow<'_, str>> {
        segments_of(&self.0)
    }

    /// The canonical text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where this path stands against the run of paths whose text starts with `prefix`; equal within the run.
    pub(crate) fn order_against_prefix(&self, prefix: &str) -> Ordering {
        if self.0.starts_with(prefix) { Ordering::Equal } else { (*self.0).cmp(prefix) }
    }

    /// The texts of every scope that holds this path, the widest first.
    pub(crate) fn scopes(&self) -> impl Iterator<Item = &str> {
        let ends = self.0.match_indices('/').map(|(slash, _)| slash + 1);
        std::iter::once(0).chain(ends).map(|end| &self.0[..end])
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.trim_end_matches('/'))
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Path({self})")
    }
}

/// The name of a record: what it is, where it stands, whose it is.
///
/// Ordered by path, then instance, then suffix. Cloning copies pointers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    path: Path,
    instance: InstanceId,
    /// Few keys have one: for those that have none a thin pointer takes half the room, in every record that is held.
    suffix: Option<Arc<Box<str>>>,
}

impl Key {
    /// The key of `instance` at `path`, without a suffix.
    pub fn new(path: Path, instance: InstanceId) -> Self {
        Self { path, instance, suffix: None }
    }

    /// The same key with a suffix, which tells several records of one instance at one path apart.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`] where the suffix is empty or holds a control character.
    pub fn with_suffix(mut self, suffix: &str) -> Result<Self> {
        check_segment(suffix)?;
        self.suffix = Some(Arc::new(suffix.into()));
        Ok(self)
    }

    /// The kind of the record.
    pub fn kind(&self) -> &str {
        self.path.kind()
    }

    /// The kind and the segments.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose record it is.
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// What tells several records of one instance at one path apart.
    pub fn suffix(&self) -> Option<&str> {
        self.suffix.as_deref().map(AsRef::as_ref)
    }

    /// Shares the text of the path with `other` where both are equal: one allocation for all the instances of a service.
    pub(crate) fn share_path(&mut self, other: &Path) {
        if !Arc::ptr_eq(&self.path.0, &other.0) && self.path == *other {
            self.path = other.clone();
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.path, self.instance)?;
        match &self.suffix {
            Some(suffix) => write!(f, "/{suffix}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// Checks the name of a kind: one or more of `[A-Za-z0-9_-]`.
pub(crate) fn check_kind(kind: &str) -> Result<()> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if kind.is_empty() || !kind.bytes().all(legal) {
        return Err(Error::new(
            ErrorKind::InvalidKey,
            format!("{kind:?} is no name for a kind: use letters, digits, `_` and `-`"),
        ));
    }
    Ok(())
}

pub(crate) fn check_segment(segment: &str) -> Result<()> {
    if segment.is_empty() {
        return Err(Error::new(ErrorKind::InvalidKey, "a segment is empty: give each a name"));
    }
    // Most segments are of these alone, and none of them is a control character.
    let plain = segment.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if !plain && let Some(bad) = segment.chars().find(|c| c.is_control()) {
        return Err(Error::new(
            ErrorKind::InvalidKey,
            format!("segment {segment:?} holds the control character {bad:?}: leave it out"),
        ));
    }
    Ok(())
}

/// Appends one segment and its slash in canonical form.
pub(crate) fn push_segment(text: &mut String, segment: &str) -> Result<()> {
    check_segment(segment)?;
    let mut rest = segment;
    while let Some(at) = rest.bytes().position(|byte| matches!(byte, b'%' | b'/')) {
        text.push_str(&rest[..at]);
        text.push_str(if rest.as_bytes()[at] == b'%' { "%25" } else { "%2F" });
        rest = &rest[at + 1..];
    }
    text.push_str(rest);
    text.push('/');
    Ok(())
}

/// The segments of a canonical text, after the kind.
pub(crate) fn segments_of(text: &str) -> impl Iterator<Item = Cow<'_, str>> {
    text.split_terminator('/').skip(1).map(|segment| {
        if segment.contains('%') {
            Cow::Owned(segment.replace("%2F", "/").replace("%25", "%"))
        } else {
            Cow::Borrowed(segment)
        }
    })
}
