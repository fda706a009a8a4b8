//! Where settings come from: the process's environment, or one given by a test or an embedding program.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// The longest span of time that a setting may ask for: a hundred years, with which every clock can reckon.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A set of environment variables. Backends read their settings from here and never from the process directly, so
/// that several identities fit in one process.
#[derive(Clone, Default)]
pub struct Environment {
    variables: Arc<BTreeMap<String, OsString>>,
}

impl Environment {
    /// The process's variables as they are now. One whose name is not Unicode is nobody's setting, and left out.
    pub fn process() -> Self {
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect()
    }

    /// The variable's value; `None` where it is unset or empty.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] where it is not Unicode, naming the variable: its value may be a secret.
    pub fn get(&self, name: &str) -> Result<Option<&str>> {
        let Some(value) = self.path(name) else { return Ok(None) };
        value.to_str().map(Some).ok_or_else(|| {
            Error::new(ErrorKind::InvalidConfig, format!("{name} is not Unicode (UTF-8): correct it or unset it"))
        })
    }

    /// The variable's value as a path, which may hold any bytes; `None` where it is unset or empty.
    pub fn path(&self, name: &str) -> Option<&Path> {
        self.variables.get(name).filter(|value| !value.is_empty()).map(Path::new)
    }

    /// Whether the variable is set and not empty, whatever it holds.
    pub fn is_set(&self, name: &str) -> bool {
        self.path(name).is_some()
    }

    /// The variable's value, parsed.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] where it is set and does not parse, naming the variable and what it should be.
    pub fn parse<T: FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>> {
        let Some(text) = self.get(name)? else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|_| {
            Error::new(ErrorKind::InvalidConfig, format!("{name}={text:?} is not {expected}: correct it or unset it"))
        })
    }

    /// A duration given in seconds, decimals allowed.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] where it is set and is not a number of seconds above zero, or is above a hundred years.
    pub fn seconds(&self, name: &str) -> Result<Option<Duration>> {
        let expected = "a number of seconds above zero";
        let Some(seconds) = self.parse::<f64>(name, expected)? else { return Ok(None) };
        let duration = Duration::try_from_secs_f64(seconds).ok().filter(|duration| *duration <= LONGEST);
        if let Some(duration) = duration.filter(|duration| !duration.is_zero()) {
            return Ok(Some(duration));
        }
        // Shown as it was written: the number itself may have a hundred digits.
        let text = self.get(name)?.unwrap_or_default().trim();
        let wrong = if seconds > 0.0 && duration.is_none() {
            format!("{name}={text} is more than {} seconds, which are a hundred years: lower it", LONGEST.as_secs())
        } else {
            format!("{name}={text} is not {expected}: correct it or unset it")
        };
        Err(Error::new(ErrorKind::InvalidConfig, wrong))
    }

    /// The same environment with one variable set.
    pub fn with(mut self, name: impl Into<String>, value: impl Into<OsString>) -> Self {
        Arc::make_mut(&mut self.variables).insert(name.into(), value.into());
        self
    }
}

impl<N: Into<String>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { variables: Arc::new(variables) }
    }
}

impl fmt::Debug for Environment {
    /// Names only: values may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}
