//! The backend on an etcd that somebody runs: a black box, for its faults are not ours to cause.

use std::sync::Arc;

use async_trait::async_trait;
use discovery_core::backend::Backend;
use discovery_core::{BackendContext, Environment, Result, TaskScope};
use discovery_etcd::{Config, ENDPOINTS_VARIABLE, EtcdBackend};

use crate::world::{Absent, Factory, World};

/// Worlds in an etcd, each under a prefix of its own, which is erased when its case is over.
#[derive(Clone, Debug, Default)]
pub struct Etcd {
    config: Option<Config>,
}

impl Etcd {
    /// In the etcd that the process's environment names.
    pub fn new() -> Self {
        Self::default()
    }

    /// In this one, below this prefix.
    pub fn with_config(config: Config) -> Self {
        Self { config: Some(config) }
    }
}

#[async_trait]
impl Factory for Etcd {
    fn name(&self) -> &str {
        discovery_etcd::NAME
    }

    fn absent(&self) -> Option<Absent> {
        let named = self.config.is_some() || std::env::var_os(ENDPOINTS_VARIABLE).is_some();
        (!named).then(|| {
            Absent::Fails(format!(
                "no etcd is named: set {ENDPOINTS_VARIABLE} to its endpoints; \
                 `cargo test -p discovery-etcd --test conformance` starts servers of its own"
            ))
        })
    }

    async fn world(&self) -> Result<Box<dyn World>> {
        let mut config = match &self.config {
            Some(config) => config.clone(),
            None => Config::from_environment(&Environment::process())?,
        };
        config.prefix = format!("{}conformance-{:016x}/", config.prefix, fastrand::u64(..));
        Ok(Box::new(Place { config }))
    }
}

struct Place {
    config: Config,
}

#[async_trait]
impl World for Place {
    async fn owner(&self, _: usize) -> Result<Arc<dyn Backend>> {
        let context = BackendContext::new(Environment::default(), TaskScope::current());
        Ok(Arc::new(EtcdBackend::with_config(self.config.clone(), &context).await?))
    }

    async fn close(&self) {
        // Tried once: what is left goes with its leases.
        if let Err(error) = discovery_etcd::erase(&self.config).await {
            tracing::warn!(%error, prefix = self.config.prefix, "records of a case are left");
        }
    }
}
