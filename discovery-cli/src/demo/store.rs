//! Where the processes of the demo meet: a place of its own, which goes at the end.

use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use discovery_core::BACKEND_VARIABLE;
#[cfg(feature = "etcd")]
use discovery_core::Environment;

use super::directory::Directory;
#[cfg(feature = "kubernetes")]
use super::kubernetes::Space;
use crate::failure::{Failure, Outcome};

/// Variables of a process, and their values.
pub(super) type Variables = Vec<(&'static str, OsString)>;

pub(super) enum Store {
    File(Directory),
    #[cfg(feature = "etcd")]
    Etcd(Box<discovery_etcd::Config>),
    #[cfg(feature = "kubernetes")]
    Kubernetes(Box<Space>),
}

impl Store {
    /// A place on this backend. Cancelled, it leaves nothing.
    pub(super) async fn open(backend: &str) -> Outcome<Self> {
        match backend {
            "file" => Ok(Self::File(Directory::new()?)),
            #[cfg(feature = "etcd")]
            discovery_etcd::NAME => Ok(Self::Etcd(Box::new(answering().await?))),
            #[cfg(feature = "kubernetes")]
            discovery_k8s::NAME | "k8s" => Ok(Self::Kubernetes(Box::new(Space::find().await?))),
            other => Err(Failure::usage(format!(
                "demo: it runs on file, etcd and kubernetes, not on {other:?}: add --backend file, or one of the others"
            ))),
        }
    }

    pub(super) fn backend(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            #[cfg(feature = "etcd")]
            Self::Etcd(_) => discovery_etcd::NAME,
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(_) => discovery_k8s::NAME,
        }
    }

    /// What makes a process use it, with a time to live that it asks for.
    pub(super) fn variables(&self, ttl: Duration) -> Variables {
        let ttl = ttl.as_secs_f64().to_string().into();
        let mut variables: Variables = vec![(BACKEND_VARIABLE, self.backend().into())];
        match self {
            Self::File(directory) => {
                variables.push((discovery_file::DIRECTORY_VARIABLE, directory.path().into()));
                variables.push((discovery_file::TTL_VARIABLE, ttl));
            }
            #[cfg(feature = "etcd")]
            Self::Etcd(config) => {
                variables.push((discovery_etcd::PREFIX_VARIABLE, config.prefix.trim_end_matches('/').into()));
                variables.push((discovery_etcd::TTL_VARIABLE, ttl));
            }
            // Who is alive, the cluster says.
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(space) => variables.extend(space.variables()),
        }
        variables
    }

    /// Removes all that is there. No process may use it any more.
    pub(super) async fn remove(self) -> Outcome {
        match self {
            Self::File(directory) => directory.remove(),
            #[cfg(feature = "etcd")]
            Self::Etcd(config) => match discovery_etcd::erase(&config).await {
                Ok(_) => Ok(()),
                Err(error) => Err(Failure::failed(format!(
                    "demo: the keys below {} could not be removed: {error}: they go with their time to live",
                    config.prefix
                ))),
            },
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(space) => space.remove().await,
        }
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(directory) => directory.path().display().fmt(f),
            #[cfg(feature = "etcd")]
            Self::Etcd(config) => {
                write!(f, "etcd at {}, below {}", config.endpoints.join(" and "), config.prefix)
            }
            #[cfg(feature = "kubernetes")]
            Self::Kubernetes(space) => space.fmt(f),
        }
    }
}

/// The settings for an etcd that answers below a prefix of this demo's own.
#[cfg(feature = "etcd")]
async fn answering() -> Outcome<discovery_etcd::Config> {
    let environment = Environment::process();
    let own = format!("discovery-demo-{:08x}", fastrand::u32(..));
    let prefix = match environment.get(discovery_etcd::PREFIX_VARIABLE)? {
        Some(around) => format!("{}/{own}", around.trim_end_matches('/')),
        None => own,
    };
    let environment = environment.with(discovery_etcd::PREFIX_VARIABLE, prefix);
    let config = discovery_etcd::Config::from_environment(&environment)?;
    let mut causes = Vec::new();
    for found in discovery_etcd::diagnose(&config).await {
        match found.outcome {
            Ok(member) if member.latency.is_some() => return Ok(config),
            Ok(member) => causes.extend(member.problems),
            Err(error) => causes.push(error.message().to_owned()),
        }
    }
    Err(Failure::failed(format!(
        "demo: no etcd can be used: {}: `cargo xtask testbed up` starts one and prints the environment to export, or set {} \
         to one that runs",
        causes.join("; "),
        discovery_etcd::ENDPOINTS_VARIABLE
    )))
}
