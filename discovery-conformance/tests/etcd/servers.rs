//! The servers of one world: started, stopped, wiped, led by another member.

use std::time::Duration;

use discovery_core::{Error, ErrorKind, Result};
use discovery_testbed::{Etcd, EtcdCluster, EtcdOptions};

use super::client::{self, Client};
use super::failed;

/// How many servers there are, and so what they can lose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Single,
    /// Three members, of which one may be lost.
    Cluster,
}

pub(super) enum Servers {
    Single(Box<Etcd>),
    Cluster(EtcdCluster),
}

impl Servers {
    pub(super) async fn start(form: Form) -> Result<Self> {
        // Passwords are hashed at the least cost: hundreds of connections sign in.
        let options = EtcdOptions { flags: vec!["--bcrypt-cost=4".to_owned()], ..EtcdOptions::default() };
        let servers = match form {
            Form::Single => {
                // It leads again soon after each restart.
                let quick = Some((Duration::from_millis(20), Duration::from_millis(200)));
                let options = EtcdOptions { heartbeat_and_election: quick, ..options };
                Self::Single(Box::new(Etcd::start_with(options).await.map_err(failed)?))
            }
            Form::Cluster => Self::Cluster(EtcdCluster::start_with(options).await.map_err(failed)?),
        };
        servers.demand_users().await?;
        Ok(servers)
    }

    /// The shortest time to live that may be asked for: here what etcd grants with its defaults, there one and a half of
    /// the members' election time-out, in whole seconds.
    pub(super) fn min_ttl(&self) -> Duration {
        match self {
            Self::Single(_) => Duration::from_secs(2),
            Self::Cluster(_) => Duration::from_secs(5),
        }
    }

    pub(super) fn members(&self) -> &[Etcd] {
        match self {
            Self::Single(etcd) => std::slice::from_ref(etcd),
            Self::Cluster(cluster) => cluster.members(),
        }
    }

    /// Whether all of them run.
    pub(super) fn complete(&self) -> bool {
        self.members().iter().all(|member| member.pid().is_some())
    }

    /// A connection of its own to a member that runs, past every proxy, as the user who may do everything.
    pub(super) async fn client(&self) -> Result<Client> {
        client::connect(self.serving()?, true).await
    }

    fn serving(&self) -> Result<String> {
        let serving = self.members().iter().find(|member| member.pid().is_some()).map(Etcd::endpoint);
        serving.ok_or_else(|| Error::new(ErrorKind::Unavailable, "no member runs"))
    }

    async fn demand_users(&self) -> Result<()> {
        client::demand_users(&mut client::connect(self.serving()?, false).await?).await
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

    /// All data is lost, and all run again; whoever administrates them has made the users anew.
    pub(super) async fn wipe(&self) -> Result<()> {
        let wiped = match self {
            Self::Single(etcd) => etcd.wipe().await,
            Self::Cluster(cluster) => cluster.wipe().await,
        };
        wiped.map_err(failed)?;
        self.demand_users().await
    }

    /// Another member leads; a single one takes the lead anew, in another term.
    pub(super) async fn change_leader(&self) -> Result<()> {
        match self {
            Self::Single(etcd) => etcd.restart().await.map_err(failed),
            Self::Cluster(cluster) => {
                let leader = client::leader(cluster.members()).await?;
                self.lead((leader + 1) % cluster.members().len()).await
            }
        }
    }

    /// The member of this index leads.
    pub(super) async fn lead(&self, index: usize) -> Result<()> {
        client::lead(self.members(), index).await
    }
}
