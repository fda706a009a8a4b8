//! The settings, from an injected environment.

use std::path::{Path, PathBuf};
use std::time::Duration;

use discovery_core::{Environment, Error, ErrorKind, Result};

/// The variable that names the shared directory.
pub const DIRECTORY_VARIABLE: &str = "DYN_FILE_KV";
/// The variable that sets the time to live, in seconds.
pub const TTL_VARIABLE: &str = "DYN_DISCOVERY_FILE_TTL";

const DEFAULT_TTL: Duration = Duration::from_secs(10);
/// Below this a busy machine misses renewals.
pub(crate) const MIN_TTL: Duration = Duration::from_secs(1);

/// Where the records lie and how long they outlive their owner's last renewal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The shared directory, absolute. It need not exist yet.
    pub directory: PathBuf,
    /// The time to live where a session asks for none. Values below one second are raised to it.
    pub ttl: Duration,
}

impl Config {
    /// Reads `DYN_FILE_KV` (default: `dynamo_store_kv` below `TMPDIR`, which itself defaults to `/tmp`) and
    /// `DYN_DISCOVERY_FILE_TTL` (seconds, default 10).
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] where the time to live is no number of seconds above zero, or where a relative
    /// directory cannot be made absolute.
    pub fn from_environment(environment: &Environment) -> Result<Self> {
        let named = match environment.path(DIRECTORY_VARIABLE) {
            Some(directory) => directory.to_owned(),
            None => environment.path("TMPDIR").unwrap_or(Path::new("/tmp")).join("dynamo_store_kv"),
        };
        let directory = std::path::absolute(&named).map_err(|error| {
            Error::new(
                ErrorKind::InvalidConfig,
                format!("{} cannot be made absolute: set {DIRECTORY_VARIABLE} to an absolute path", named.display()),
            )
            .with_source(error)
        })?;
        let ttl = environment.seconds(TTL_VARIABLE)?.unwrap_or(DEFAULT_TTL).max(MIN_TTL);
        Ok(Self { directory, ttl })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_comes_from_the_environment_that_was_given() {
        let config = |environment: Environment| Config::from_environment(&environment).unwrap();
        assert_eq!(config(Environment::default()).directory, PathBuf::from("/tmp/dynamo_store_kv"));
        assert_eq!(config(Environment::default()).ttl, Duration::from_secs(10));
        let elsewhere = Environment::default().with("TMPDIR", "/var/x");
        assert_eq!(config(elsewhere.clone()).directory, PathBuf::from("/var/x/dynamo_store_kv"));
        assert_eq!(config(elsewhere.with("DYN_FILE_KV", "/srv/kv")).directory, PathBuf::from("/srv/kv"));
    }

    #[test]
    fn a_short_ttl_is_raised_and_a_malformed_one_refused() {
        let with = |ttl: &str| Config::from_environment(&Environment::default().with(TTL_VARIABLE, ttl));
        assert_eq!(with("0.2").unwrap().ttl, MIN_TTL);
        assert_eq!(with("2.5").unwrap().ttl, Duration::from_millis(2500));
        assert_eq!(with("soon").unwrap_err().kind(), ErrorKind::InvalidConfig);
        assert_eq!(with("0").unwrap_err().kind(), ErrorKind::InvalidConfig);
    }
}
