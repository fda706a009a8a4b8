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
use self::servers::{Form, Servers};

/// Each world has servers to itself while it lasts. Those that came to no harm serve another one afterwards, under
/// another prefix.
struct OnEtcd {
    form: Form,
    idle: Arc<Mutex<Vec<Servers>>>,
}

impl OnEtcd {
    fn new(form: Form) -> Self {
        Self { form, idle: Arc::default() }
    }
}

/// The factory of each form; of one alone where `DYN_DISCOVERY_BACKEND` names it.
pub(crate) fn forms() -> Vec<Arc<dyn Factory>> {
    let all = || [OnEtcd::new(Form::Single), OnEtcd::new(Form::Cluster)].into_iter();
    let wanted = std::env::var("DYN_DISCOVERY_BACKEND").unwrap_or_default();
    let named = all().any(|form| form.name() == wanted);
    all().filter(|form| !named || form.name() == wanted).map(|form| Arc::new(form) as Arc<dyn Factory>).collect()
}

#[async_trait]
impl Factory for OnEtcd {
    fn name(&self) -> &str {
        match self.form {
            Form::Single => "etcd",
            Form::Cluster => "etcd-cluster",
        }
    }

    fn impossible(&self, fault: Hook) -> Option<&'static str> {
        match fault {
            Hook::Reorder => Some("a watch tells revisions in their order, over TCP"),
            Hook::Duplicate => Some("a watch tells each revision once, over TCP"),
            _ => None,
        }
    }

    // What etcd and TCP rule out is missing here. So is readiness, which etcd does not know, and the clock on the wall, which
    // only the machine's administrator can move.
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

    fn missing(&self) -> Option<Vec<Hook>> {
        Some(vec![Hook::WallClock])
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
