//! What went wrong with a server, for a person.

use std::fmt;

/// What this crate answers with.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a server could not be had, or does not do what it was told: a line, and the end of the server's log where that
/// says more. `Debug` prints the same, so that `expect` in a test shows it.
#[derive(Clone)]
pub struct Error {
    message: String,
    log: Option<String>,
}

impl Error {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), log: None }
    }

    /// What was being done, and the cause.
    pub(crate) fn because(doing: impl fmt::Display, cause: impl fmt::Display) -> Self {
        Self::new(format!("{doing}: {cause}"))
    }

    pub(crate) fn with_log(mut self, log: String) -> Self {
        self.log = Some(log);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.log {
            Some(log) => write!(f, "\nthe end of its log:\n{log}"),
            None => Ok(()),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Error {}
