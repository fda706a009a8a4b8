//! How the program fails: one line on standard error, and an exit code.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use discovery_core::{Error, ErrorKind};
use tokio::signal::unix::SignalKind;

/// What a command comes to.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

/// Why a command does not go on.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments or the input are wrong.
    Usage(String),
    /// Something did not work.
    Failed(String),
    /// A signal ended it before it was done.
    Stopped(String, SignalKind),
    /// Another process has said it, and ended with this code.
    Told(u8),
    /// Whoever read the output has gone: nothing is left to be said.
    OutputClosed,
}

impl Failure {
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into())
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// An input file that cannot be used.
    pub(crate) fn input(path: &Path, what: impl fmt::Display) -> Self {
        let shown = if path == Path::new("-") { "standard input".to_owned() } else { path.display().to_string() };
        Self::Usage(format!("{shown}: {what}"))
    }

    /// A failed write to standard output.
    pub(crate) fn output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::Failed(format!("standard output: {error}: nothing more can be shown")),
        }
    }

    /// Says it, and answers the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        let (message, code) = match self {
            Self::Usage(message) => (message, 2),
            Self::Failed(message) => (message, 1),
            // As shells count a program that a signal ended.
            Self::Stopped(message, by) => (message, 128 | by.as_raw_value() as u8),
            Self::Told(code) => return ExitCode::from(*code),
            Self::OutputClosed => return ExitCode::SUCCESS,
        };
        tell(message);
        ExitCode::from(code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::InvalidKey
            | ErrorKind::InvalidQuery
            | ErrorKind::InvalidConfig
            | ErrorKind::InvalidValue
            | ErrorKind::TooLarge => Self::Usage(error.to_string()),
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// One line on standard error. That nobody reads it any more changes nothing.
pub(crate) fn tell(message: impl fmt::Display) {
    use std::io::Write;
    let line = one_line(&message.to_string());
    let _ = writeln!(io::stderr().lock(), "discovery: {line}");
}

/// The text on one line, without anything that a terminal would obey.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for word in text.split(['\n', '\r']).map(str::trim).filter(|word| !word.is_empty()) {
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().flat_map(printable));
    }
    line
}

/// A character as it may be shown: control characters are escaped.
pub(crate) fn printable(c: char) -> impl Iterator<Item = char> {
    let escaped = c.is_control().then(|| c.escape_default());
    let plain = (!c.is_control()).then_some(c);
    plain.into_iter().chain(escaped.into_iter().flatten())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_that_no_terminal_obeys() {
        assert_eq!(one_line("bad\n  thing\r\n\u{1b}[2Jgone"), "bad thing \\u{1b}[2Jgone");
    }
}
