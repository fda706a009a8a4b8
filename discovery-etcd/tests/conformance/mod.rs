//! Worlds on real etcd servers.

mod client;
mod past;
mod place;
mod servers;

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use discovery_conformance::{Factory, Hook, World};
use discovery_core::{Error, ErrorKind, Result};

use self::place::Place;
pub(crate) use self::servers::Form;
use self::servers::Servers;

/// Each world has servers to itself while it lasts. Those that came to no harm serve another one afterwards, under
/// another prefix.
pub(crate) struct OnEtcd {
    form: Form,
    idle: Arc<Mutex<Vec<Servers>>>,
}

impl OnEtcd {
    pub(crate) fn new(form: Form) -> Self {
        Self { form, idle: Arc::default() }
    }
}

#[async_trait]
impl Factory for OnEtcd {
    fn name(&self) -> &str {
        match self.form {
            Form::Single => "etcd",
            Form::Cluster => "etcd-cluster",
        }
    }

    // What etcd and TCP rule out is missing here: transactions in another order, or twice. So is readiness, which etcd
    // does not know, and the clock on the wall, which only the machine's administrator can move.
    fn hooks(&self) -> Vec<Hook> {
        let mut hooks = vec![
            Hook::Cut,
            Hook::HalfOpen,
            Hook::Outage,
            Hook::Revoke,
            Hook::Crash,
            Hook::Pause,
            Hook::Compact,
            Hook::LoseData,
            Hook::RollBack,
            Hook::Delete,
            Hook::Write,
            Hook::DropAcks,
            Hook::DelayWrites,
            Hook::LeaderChange,
            Hook::Deny,
        ];
        if self.form == Form::Cluster {
            hooks.push(Hook::LoseMember);
        }
        hooks
    }

    // Real servers, several at once on a machine that does other things too.
    fn patience(&self) -> u32 {
        8
    }

    async fn world(&self) -> Result<Box<dyn World>> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let servers = match idle {
            Some(servers) => servers,
            None => Servers::start(self.form).await?,
        };
        Ok(Box::new(Place::new(servers, Arc::clone(&self.idle))))
    }
}

/// A fault that could not be done.
fn failed(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Internal, error.to_string()).with_source(error)
}
