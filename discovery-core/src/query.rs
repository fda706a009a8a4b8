//! Queries of users, and the scopes that backends watch.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};
use crate::key::{InstanceId, Key, check_kind, push_segment, segments_of};

/// A part of the tree of keys: everything, one kind, or what lies at and below some leading segments of a kind.
///
/// A scope is exact on segments: `endpoint/a` holds `endpoint/a/b` and never `endpoint/ab`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(Arc<str>);

impl Scope {
    /// Every record of every kind.
    pub fn all() -> Self {
        Self("".into())
    }

    /// The records of `kind` whose path starts with `segments`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidQuery`] where the kind or a segment could not be part of a key.
    pub fn new<S: AsRef<str>>(kind: &str, segments: impl IntoIterator<Item = S>) -> Result<Self> {
        let as_query = |error: Error| Error::new(ErrorKind::InvalidQuery, error.message().to_owned());
        check_kind(kind).map_err(as_query)?;
        let mut text = format!("{kind}/");
        for segment in segments {
            push_segment(&mut text, segment.as_ref()).map_err(as_query)?;
        }
        Ok(Self(text.into()))
    }

    /// Whether `key` lies in this scope.
    pub fn contains(&self, key: &Key) -> bool {
        key.path().as_str().starts_with(&*self.0)
    }

    /// Whether every key of `other` lies in this scope too.
    pub fn covers(&self, other: &Scope) -> bool {
        other.0.starts_with(&*self.0)
    }

    /// The scope one segment wider: a path's parent, then its kind, then everything. `None` above everything.
    pub fn parent(&self) -> Option<Self> {
        let trimmed = self.0.strip_suffix('/')?;
        let end = trimmed.rfind('/').map_or(0, |slash| slash + 1);
        Some(Self(trimmed[..end].into()))
    }

    /// The kind, or `None` for the scope of everything.
    pub fn kind(&self) -> Option<&str> {
        self.0.split_once('/').map(|(kind, _)| kind)
    }

    /// The leading segments, as they were given.
    pub fn segments(&self) -> impl Iterator<Item = Cow<'_, str>> {
        segments_of(&self.0)
    }

    /// The canonical text: that of the paths in this scope starts with it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("everything") } else { f.write_str(self.0.trim_end_matches('/')) }
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scope({self})")
    }
}

/// Which records a view or a list shows: leading segments, and possibly one instance.
///
/// The kind may be left out where the record type says it. Written as text, a query is a kind and leading segments:
/// `endpoint`, `endpoint/dynamo`, `endpoint/dynamo/backend`; a `/` or `%` inside a segment is `%2F` or `%25`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Query {
    kind: Option<String>,
    segments: Vec<String>,
    instance: Option<InstanceId>,
}

impl Query {
    /// Every record: of the record type's kind, or of all kinds in an untyped view.
    pub fn all() -> Self {
        Self::default()
    }

    /// The records whose path starts with these segments.
    pub fn path<S: Into<String>>(segments: impl IntoIterator<Item = S>) -> Self {
        Self { segments: segments.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// The records of one kind, for untyped views and lists.
    pub fn kind(kind: impl Into<String>) -> Self {
        Self { kind: Some(kind.into()), ..Self::default() }
    }

    /// One more leading segment.
    pub fn segment(mut self, segment: impl Into<String>) -> Self {
        self.segments.push(segment.into());
        self
    }

    /// Only the records of one instance.
    pub fn instance(mut self, instance: InstanceId) -> Self {
        self.instance = Some(instance);
        self
    }

    /// The instance that this query is restricted to.
    pub fn only_instance(&self) -> Option<InstanceId> {
        self.instance
    }

    /// The scope of this query for records of `kind`; with `None`, the query's own kind or else everything.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidQuery`] where the query names another kind, or segments without any kind.
    pub fn scope(&self, kind: Option<&str>) -> Result<Scope> {
        let kind = match (kind, self.kind.as_deref()) {
            (Some(typed), Some(named)) if typed != named => {
                return Err(Error::new(
                    ErrorKind::InvalidQuery,
                    format!("the query asks for kind {named:?}, the record type is of kind {typed:?}"),
                ));
            }
            (Some(kind), _) | (None, Some(kind)) => kind,
            (None, None) if self.segments.is_empty() => return Ok(Scope::all()),
            (None, None) => {
                return Err(Error::new(
                    ErrorKind::InvalidQuery,
                    "the query has segments and no kind: name the kind first, as in endpoint/dynamo",
                ));
            }
        };
        Scope::new(kind, &self.segments)
    }
}

impl FromStr for Query {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.strip_suffix('/').unwrap_or(text);
        if text.is_empty() {
            return Ok(Self::all());
        }
        let canonical = format!("{text}/");
        let kind = canonical.split('/').next().unwrap_or_default();
        let segments: Vec<_> = segments_of(&canonical).map(Cow::into_owned).collect();
        Scope::new(kind, &segments)?;
        Ok(Self { kind: Some(kind.to_owned()), segments, instance: None })
    }
}
