//! The one error type: what went wrong, whether anything was written, and whether trying again can help.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use crate::key::{Key, Path};

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure an [`Error`] is. Decides how callers react; the message is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A key that cannot be represented: an empty segment, a character or a length that the backend cannot store.
    InvalidKey,
    /// A query that cannot be answered: a kind that does not fit the record type, a malformed path.
    InvalidQuery,
    /// A setting that is missing, malformed or contradictory.
    InvalidConfig,
    /// A value that is not what its kind asks for, or that does not decode.
    InvalidValue,
    /// The backend does not claim the capability that this call needs.
    Unsupported,
    /// Another owner holds the key, or another record excludes this one.
    Conflict,
    /// The value, the batch or the owner's set is above the backend's declared limit.
    TooLarge,
    /// The rules of the record's kind forbid this write.
    Refused,
    /// The store says that this identity may not do this.
    PermissionDenied,
    /// The store cannot be reached, or answers that it cannot serve now.
    Unavailable,
    /// The caller's or the core's deadline passed first.
    Timeout,
    /// The session that the operation belonged to is gone.
    SessionLost,
    /// The history that was asked for is no longer kept by the store.
    Expired,
    /// The handle was shut down, or the registration was withdrawn.
    Closed,
    /// A broken promise of a backend, of the store or of this crate.
    Internal,
}

impl ErrorKind {
    /// The kind's stable name, as used in logs, metrics and reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidKey => "invalid_key",
            Self::InvalidQuery => "invalid_query",
            Self::InvalidConfig => "invalid_config",
            Self::InvalidValue => "invalid_value",
            Self::Unsupported => "unsupported",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::Refused => "refused",
            Self::PermissionDenied => "permission_denied",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::SessionLost => "session_lost",
            Self::Expired => "expired",
            Self::Closed => "closed",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a failed write left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Nothing was written, and nothing will be.
    None,
    /// The write may have happened, or may still happen: read before writing again.
    Unknown,
}

/// Every failure of this crate and of its backends.
///
/// `Display` is one line for a person: backend, operation, what happened. `Debug` adds the kind, the effect and the
/// chain of sources. Cloning is cheap, because one failure is often told to several waiting callers.
#[derive(Clone)]
pub struct Error {
    inner: Arc<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    effect: Effect,
    temporary: bool,
    message: String,
    backend: Option<String>,
    operation: Option<&'static str>,
    about: Option<About>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// What an error names.
#[derive(Clone)]
enum About {
    Key(Key),
    /// A path alone, for a key that nobody asked for.
    Path(Path),
}

impl fmt::Display for About {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(key) => key.fmt(f),
            Self::Path(path) => path.fmt(f),
        }
    }
}

impl Error {
    /// A failure of `kind` that had no effect. `message` is one line that says what happened and what to do next.
    ///
    /// [`ErrorKind::Unavailable`], [`ErrorKind::Timeout`], [`ErrorKind::SessionLost`] and [`ErrorKind::Expired`] start
    /// as temporary; every other kind as permanent.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let temporary =
            matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::SessionLost | ErrorKind::Expired);
        Self {
            inner: Arc::new(Inner {
                kind,
                effect: Effect::None,
                temporary,
                message: message.into(),
                backend: None,
                operation: None,
                about: None,
                source: None,
            }),
        }
    }

    fn edit(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }

    /// Says what the failed write left behind.
    pub fn with_effect(self, effect: Effect) -> Self {
        self.edit(|inner| inner.effect = effect)
    }

    /// Says whether the same call can succeed later without anything else being changed by the caller.
    pub fn with_temporary(self, temporary: bool) -> Self {
        self.edit(|inner| inner.temporary = temporary)
    }

    /// Names the backend, unless one is named already.
    pub fn with_backend(self, backend: &str) -> Self {
        if self.inner.backend.is_some() {
            return self;
        }
        self.edit(|inner| inner.backend = Some(backend.to_owned()))
    }

    /// Names the operation, unless one is named already: `register`, `watch`, `renew`, ...
    pub fn with_operation(self, operation: &'static str) -> Self {
        if self.inner.operation.is_some() {
            return self;
        }
        self.edit(|inner| inner.operation = Some(operation))
    }

    /// Names the key, unless one is named already.
    pub fn with_key(self, key: &Key) -> Self {
        if self.inner.about.is_some() {
            return self;
        }
        self.edit(|inner| inner.about = Some(About::Key(key.clone())))
    }

    /// Names the path alone, for a key that nobody asked for.
    pub(crate) fn of_path(self, path: &Path) -> Self {
        self.edit(|inner| inner.about = Some(About::Path(path.clone())))
    }

    /// Keeps the cause.
    pub fn with_source(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let source: Box<dyn StdError + Send + Sync> = source.into();
        self.edit(|inner| inner.source = Some(Arc::from(source)))
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// What the failed write left behind.
    pub fn effect(&self) -> Effect {
        self.inner.effect
    }

    /// Whether the same call can succeed later.
    pub fn is_temporary(&self) -> bool {
        self.inner.temporary
    }

    /// The message alone, without backend and operation.
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// The backend that failed, where one is known.
    pub fn backend(&self) -> Option<&str> {
        self.inner.backend.as_deref()
    }

    /// The operation that failed, where it is known.
    pub fn operation(&self) -> Option<&'static str> {
        self.inner.operation
    }

    /// The key that it was about, where it was about one.
    pub fn key(&self) -> Option<&Key> {
        match &self.inner.about {
            Some(About::Key(key)) => Some(key),
            Some(About::Path(_)) | None => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(backend) = &self.inner.backend {
            write!(f, "{backend}: ")?;
        }
        if let Some(operation) = self.inner.operation {
            write!(f, "{operation}: ")?;
        }
        if let Some(about) = &self.inner.about {
            write!(f, "{about}: ")?;
        }
        f.write_str(&self.inner.message)?;
        // Many an error tells its own causes too.
        let mut said = self.inner.message.clone();
        let mut source = self.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !said.contains(&text) {
                write!(f, ": {text}")?;
                said.push_str(&text);
            }
            source = cause.source();
        }
        Ok(())
    }
}

/// What a `main` that returns an error and an `unwrap` print: the line for a person, and then what a program goes by.
/// `{:#?}` tells every part.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            write!(f, "{self} ({:?}", self.inner.kind)?;
            if self.inner.effect != Effect::None {
                write!(f, ", effect {:?}", self.inner.effect)?;
            }
            return f.write_str(if self.inner.temporary { ", temporary)" } else { ")" });
        }
        f.debug_struct("Error")
            .field("kind", &self.inner.kind)
            .field("effect", &self.inner.effect)
            .field("temporary", &self.inner.temporary)
            .field("backend", &self.inner.backend)
            .field("operation", &self.inner.operation)
            .field("about", &self.inner.about.as_ref().map(ToString::to_string))
            .field("message", &self.inner.message)
            .field("source", &self.inner.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let cause = Error::new(ErrorKind::Unavailable, "no answer").with_source("connection refused");
        let error = Error::new(ErrorKind::Timeout, "not done").with_source(cause);
        assert_eq!(error.to_string(), "not done: no answer: connection refused");
    }

    #[test]
    fn a_main_that_returns_an_error_prints_a_line_for_a_person() {
        let error = Error::new(ErrorKind::InvalidConfig, "no backend \"etcd\"").with_temporary(false);
        assert_eq!(format!("{error:?}"), "no backend \"etcd\" (InvalidConfig)");
        let error = Error::new(ErrorKind::Timeout, "no answer").with_effect(Effect::Unknown).with_temporary(true);
        assert_eq!(format!("{error:?}"), "no answer (Timeout, effect Unknown, temporary)");
        assert!(format!("{error:#?}").contains("message: \"no answer\""));
    }
}
