//! The backend in memory: every fault there is.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use discovery_core::backend::Backend;
use discovery_core::{Error, ErrorKind, Result};
use discovery_memory::{Cluster, MemoryBackend};

use crate::report::Verdict;
use crate::world::{Clock, Factory, Fault, Hook, World};

/// Worlds in the process, on tokio's paused clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct Memory;

#[async_trait]
impl Factory for Memory {
    fn name(&self) -> &str {
        "memory"
    }

    fn clock(&self) -> Clock {
        Clock::Paused
    }

    fn hooks(&self) -> Vec<Hook> {
        vec![
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
            Hook::Deny,
            Hook::Ready,
            Hook::Terminate,
            Hook::Impostor,
            Hook::LeaderChange,
            Hook::LoseMember,
            Hook::Reorder,
            Hook::Duplicate,
        ]
    }

    // Every fault that a store without files can have.
    fn expects(&self) -> Verdict {
        Verdict::Passed
    }

    fn missing(&self) -> Option<Vec<Hook>> {
        Some(Vec::new())
    }

    fn patience(&self) -> u32 {
        2
    }

    async fn world(&self) -> Result<Box<dyn World>> {
        Ok(Box::new(Place { cluster: Cluster::builder().readiness().members(3).build(), owners: Mutex::default() }))
    }
}

struct Place {
    cluster: Cluster,
    owners: Mutex<BTreeMap<usize, Arc<MemoryBackend>>>,
}

impl Place {
    fn handle(&self, n: usize) -> Result<Arc<MemoryBackend>> {
        let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        owners.get(&n).cloned().ok_or_else(|| Error::new(ErrorKind::Internal, format!("there is no owner {n}")))
    }
}

#[async_trait]
impl World for Place {
    async fn owner(&self, n: usize) -> Result<Arc<dyn Backend>> {
        let backend = Arc::new(self.cluster.connect());
        self.cluster.set_ready(&backend, true);
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).insert(n, Arc::clone(&backend));
        Ok(backend)
    }

    async fn inject(&self, fault: Fault) -> Result<()> {
        let cluster = &self.cluster;
        match fault {
            Fault::Cut(n) => self.handle(n)?.link().cut(),
            Fault::HalfOpen(n) => self.handle(n)?.link().half_open(),
            Fault::Heal(n) | Fault::Allow(n) | Fault::DropAcks(n, false) => self.handle(n)?.link().heal(),
            Fault::Outage => cluster.outage(),
            Fault::Restore => cluster.restore(),
            Fault::Revoke(n) => {
                cluster.revoke_handle(&*self.handle(n)?);
            }
            Fault::Crash(n) => cluster.crash(&*self.handle(n)?),
            Fault::Pause(n) => cluster.pause(&*self.handle(n)?),
            Fault::Resume(n) => cluster.resume(&*self.handle(n)?),
            Fault::Compact => cluster.compact(),
            Fault::LoseData => cluster.lose_data(),
            Fault::RollBack(revisions) => cluster.roll_back(revisions),
            Fault::Delete(key) => cluster.delete(&key),
            Fault::Write(key, value) => cluster.inject(&key, value),
            Fault::DropAcks(n, true) => self.handle(n)?.link().drop_acks(),
            Fault::DelayWrites(n, by) => self.handle(n)?.link().delay_writes(by.unwrap_or(Duration::ZERO)),
            Fault::Deny(n) => self.handle(n)?.link().deny(),
            Fault::Ready(n, ready) => cluster.set_ready(&*self.handle(n)?, ready),
            Fault::Terminate(n) => cluster.terminate(&*self.handle(n)?),
            Fault::Impostor(key, value) => cluster.impersonate(&key, value),
            Fault::LeaderChange => cluster.change_leader(),
            Fault::LoseMember(n) => cluster.lose_member(&*self.handle(n)?),
            Fault::LoseLeader => cluster.lose_leader(),
            Fault::RestoreMember => cluster.restore_members(),
            Fault::Reorder(on) => cluster.reorder(on),
            Fault::Duplicate(on) => cluster.duplicate(on),
            other => {
                return Err(Error::new(ErrorKind::Unsupported, format!("memory has nothing like {}", other.hook())));
            }
        }
        Ok(())
    }
}
