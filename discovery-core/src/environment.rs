//! Where settings come from: the process's environment, or one given by a test or an embedding program.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// A set of environment variables. Backends read their settings from here and never from the process directly, so
/// that several identities fit in one process.
#[derive(Clone, Default)]
pub struct Environment {
    variables: Arc<BTreeMap<String, String>>,
}

impl Environment {
    /// The process's variables as they are now. Those that are not UTF-8 are left out.
    pub fn process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// The variable's value; `None` where it is unset or empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The variable's value, parsed.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] where it is set and does not parse, naming the variable and what it should be.
    pub fn parse<T: FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>> {
        let Some(text) = self.get(name) else { return Ok(None) };
        text.trim().parse().map(Some).map_err(|_| {
            Error::new(ErrorKind::InvalidConfig, format!("{name}={text:?} is not {expected}: correct it or unset it"))
        })
    }

    /// A duration given in seconds, decimals allowed.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] where it is set and is not a number of seconds above zero.
    pub fn seconds(&self, name: &str) -> Result<Option<Duration>> {
        let expected = "a number of seconds above zero";
        let Some(seconds) = self.parse::<f64>(name, expected)? else { return Ok(None) };
        match Duration::try_from_secs_f64(seconds) {
            Ok(duration) if !duration.is_zero() => Ok(Some(duration)),
            _ => Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("{name}={seconds} is not {expected}: correct it or unset it"),
            )),
        }
    }

    /// The same environment with one variable set.
    pub fn with(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        Arc::make_mut(&mut self.variables).insert(name.into(), value.into());
        self
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
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
