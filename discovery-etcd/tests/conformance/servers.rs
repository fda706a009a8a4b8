//! The servers of one world: started, stopped, wiped, led by another member.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use discovery_core::{Error, ErrorKind, Result};
use discovery_testbed::{Etcd, EtcdCluster, EtcdOptions};

use super::client::{self, Client};
use super::failed;

/// How many servers there are, and so what they can lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Single,
    /// Three members, of which one may be lost.
    Cluster,
}

enum Running {
    Single(Box<Etcd>),
    Cluster(EtcdCluster),
}

pub(super) struct Servers {
    running: Running,
    /// Whether users are demanded.
    users: AtomicBool,
}

impl Servers {
    pub(super) async fn start(form: Form) -> Result<Self> {
        // Passwords are hashed at the least cost.
        let options = EtcdOptions { flags: vec!["--bcrypt-cost=4".to_owned()], ..EtcdOptions::default() };
        let running = match form {
            Form::Single => {
                // It leads again soon after each restart.
                let quick = Some((Duration::from_millis(20), Duration::from_millis(200)));
                let options = EtcdOptions { heartbeat_and_election: quick, ..options };
                Running::Single(Box::new(Etcd::start_with(options).await.map_err(failed)?))
            }
            Form::Cluster => Running::Cluster(EtcdCluster::start_with(options).await.map_err(failed)?),
        };
        Ok(Self { running, users: AtomicBool::new(false) })
    }

    /// The shortest time to live that may be asked for. A single server grants less, but then a machine that does other
    /// things too ends sessions that no fault has touched; members grant one and a half of their election time-out.
    pub(super) fn min_ttl(&self) -> Duration {
        match self.running {
            Running::Single(_) => Duration::from_secs(4),
            Running::Cluster(_) => Duration::from_secs(5),
        }
    }

    pub(super) fn members(&self) -> &[Etcd] {
        match &self.running {
            Running::Single(etcd) => std::slice::from_ref(etcd),
            Running::Cluster(cluster) => cluster.members(),
        }
    }

    /// Whether nothing is left of what was done to them.
    pub(super) fn are_as_new(&self) -> bool {
        self.complete() && !self.demand_users_already()
    }

    fn demand_users_already(&self) -> bool {
        self.users.load(Ordering::Acquire)
    }

    /// Whether all of them run.
    pub(super) fn complete(&self) -> bool {
        self.members().iter().all(|member| member.pid().is_some())
    }

    /// A connection of its own to a member that runs, past every proxy, as somebody who may do everything.
    pub(super) async fn client(&self) -> Result<Client> {
        client::connect(self.serving()?, self.demand_users_already()).await
    }

    fn serving(&self) -> Result<String> {
        let serving = self.members().iter().find(|member| member.pid().is_some()).map(Etcd::endpoint);
        serving.ok_or_else(|| Error::new(ErrorKind::Unavailable, "no member runs"))
    }

    /// Demands from now on that everybody signs in.
    pub(super) async fn demand_users(&self) -> Result<()> {
        if !self.demand_users_already() {
            client::demand_users(&mut self.client().await?).await?;
            self.users.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// Kills all of them.
    pub(super) async fn kill(&self) -> Result<()> {
        for member in self.members() {
            member.kill().await.map_err(failed)?;
        }
        Ok(())
    }

    /// Starts those that do not run, and waits until all answer.
    pub(super) async fn launch(&self) -> Result<()> {
        for member in self.members().iter().filter(|member| member.pid().is_none()) {
            member.launch().map_err(failed)?;
        }
        for member in self.members() {
            member.wait().await.map_err(failed)?;
        }
        Ok(())
    }

    /// All data is lost, users included, and all run again.
    pub(super) async fn wipe(&self) -> Result<()> {
        let wiped = match &self.running {
            Running::Single(etcd) => etcd.wipe().await,
            Running::Cluster(cluster) => cluster.wipe().await,
        };
        self.users.store(false, Ordering::Release);
        wiped.map_err(failed)
    }

    /// Another member leads; a single one takes the lead anew, in another term. It does not end in order, since etcd goes
    /// on to count leases down while it waits for its clients to leave.
    pub(super) async fn change_leader(&self) -> Result<()> {
        match &self.running {
            Running::Single(etcd) => {
                etcd.kill().await.map_err(failed)?;
                etcd.restart().await.map_err(failed)
            }
            Running::Cluster(cluster) => {
                let leader = client::leader(cluster.members(), self.demand_users_already()).await?;
                self.lead((leader + 1) % cluster.members().len()).await
            }
        }
    }

    /// The member of this index leads.
    pub(super) async fn lead(&self, index: usize) -> Result<()> {
        client::lead(self.members(), self.demand_users_already(), index).await
    }
}
