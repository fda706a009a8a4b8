//! Where in a configured store do the suite's own stores lie, and how does all of that go?

use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use discovery_conformance::Factory;
use discovery_core::Environment;
#[cfg(feature = "file")]
use {std::path::PathBuf, tempfile::TempDir};

use crate::failure::{Failure, Outcome};

/// Room for one run in a store that outlives it.
pub(super) enum Room {
    /// Within the configured directory.
    #[cfg(feature = "file")]
    File {
        directory: TempDir,
        /// Directories that were made for it, the outermost first.
        made: Vec<PathBuf>,
    },
    /// Below the configured prefix.
    #[cfg(feature = "etcd")]
    Etcd(Box<discovery_etcd::Config>),
}

impl Room {
    /// Room in the store that this backend is configured to use. `None`: the suite needs none there. Cancelled, it leaves
    /// nothing.
    pub(super) async fn make(backend: &str) -> Outcome<Option<Self>> {
        let environment = Environment::process();
        match backend {
            #[cfg(feature = "file")]
            "file" => {
                let all = discovery_file::Config::from_environment(&environment)?.directory;
                let failed = |error: std::io::Error| {
                    let variable = discovery_file::DIRECTORY_VARIABLE;
                    let all = all.display();
                    Failure::failed(format!(
                        "conformance: no directory within {all}: {error}: set {variable} to another"
                    ))
                };
                let missing = all.ancestors().take_while(|path| !path.exists());
                let mut made: Vec<_> = missing.map(PathBuf::from).collect();
                made.reverse();
                std::fs::create_dir_all(&all).map_err(failed)?;
                let directory = tempfile::Builder::new().prefix("conformance-").tempdir_in(&all).map_err(failed)?;
                Ok(Some(Self::File { directory, made }))
            }
            #[cfg(feature = "etcd")]
            discovery_etcd::NAME => {
                let own = format!("conformance-{:016x}", fastrand::u64(..));
                let config = below(environment, &own)?;
                answers(&config).await?;
                Ok(Some(Self::Etcd(Box::new(config))))
            }
            _ => {
                let _ = environment;
                Ok(None)
            }
        }
    }

    /// What tells another process of it.
    pub(super) fn name(&self) -> OsString {
        match self {
            #[cfg(feature = "file")]
            Self::File { directory, .. } => directory.path().into(),
            #[cfg(feature = "etcd")]
            // What is erased below a prefix is the layout there: so the worlds are within that.
            Self::Etcd(config) => format!("{}{}", config.prefix, discovery_dynamo::layout::ROOT).into(),
        }
    }

    /// Removes all that is in it. No process may use it any more.
    pub(super) async fn remove(self) -> Outcome {
        match self {
            #[cfg(feature = "file")]
            Self::File { directory, made } => {
                let path = directory.path().to_owned();
                directory.close().map_err(|error| {
                    Failure::failed(format!("conformance: {}: {error}: remove it by hand", path.display()))
                })?;
                // Somebody may have come to use them meanwhile: then they are not empty.
                made.iter().rev().try_for_each(std::fs::remove_dir).ok();
                Ok(())
            }
            #[cfg(feature = "etcd")]
            Self::Etcd(config) => erased(&config).await,
        }
    }
}

/// What a process that has ended had sent may arrive after it: again until nothing is found.
#[cfg(feature = "etcd")]
async fn erased(config: &discovery_etcd::Config) -> Outcome {
    const MOST: usize = 5;
    for _ in 0..MOST {
        match discovery_etcd::erase(config).await {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) => {
                let left = format!("conformance: the keys below {} could not be removed", config.prefix);
                return Err(Failure::failed(format!("{left}: {error}: they go with their time to live")));
            }
        }
    }
    let prefix = &config.prefix;
    Err(Failure::failed(format!("conformance: somebody writes below {prefix}: run `etcdctl del --prefix {prefix}`")))
}

/// The configured etcd, below `own` and below the prefix that is configured.
#[cfg(feature = "etcd")]
fn below(environment: Environment, own: &str) -> Outcome<discovery_etcd::Config> {
    let around = environment.get(discovery_etcd::PREFIX_VARIABLE)?.unwrap_or_default().trim_matches('/');
    let prefix = if around.is_empty() { own.to_owned() } else { format!("{around}/{own}") };
    Ok(discovery_etcd::Config::from_environment(&environment.with(discovery_etcd::PREFIX_VARIABLE, prefix))?)
}

/// Without an etcd that serves, each of the cases would wait for one.
#[cfg(feature = "etcd")]
async fn answers(config: &discovery_etcd::Config) -> Outcome {
    let mut causes = Vec::new();
    for found in discovery_etcd::diagnose(config).await {
        match found.outcome {
            Ok(member) if member.latency.is_some() => return Ok(()),
            Ok(member) => causes.extend(member.problems),
            Err(error) => causes.push(error.message().to_owned()),
        }
    }
    Err(Failure::failed(format!(
        "conformance: no etcd serves at {}: {}: set {}, or see `discovery doctor --backend etcd`",
        config.endpoints.join(" and "),
        causes.join("; "),
        discovery_etcd::ENDPOINTS_VARIABLE
    )))
}

/// A factory of stores within a room that another process made.
pub(super) fn factory(backend: &str, within: &OsStr) -> Outcome<Option<Arc<dyn Factory>>> {
    match backend {
        #[cfg(feature = "file")]
        "file" => Ok(Some(Arc::new(discovery_conformance::backends::File::within(within)))),
        #[cfg(feature = "etcd")]
        discovery_etcd::NAME => {
            let prefix = within.to_str().ok_or_else(|| Failure::usage("--within: no prefix of an etcd"))?;
            let environment = Environment::process().with(discovery_etcd::PREFIX_VARIABLE, prefix);
            let config = discovery_etcd::Config::from_environment(&environment)?;
            Ok(Some(Arc::new(discovery_conformance::backends::Etcd::with_config(config))))
        }
        _ => {
            let _ = within;
            Ok(None)
        }
    }
}
