//! Three etcd members that choose a leader among them.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::peers::Peers;
use super::{Etcd, EtcdOptions, Member};
use crate::error::{Error, Result};
use crate::server::{PATIENCE, PAUSE};

const MEMBERS: usize = 3;

/// For a busy machine, where the heartbeats of etcd's defaults would come late.
const HEARTBEAT_AND_ELECTION: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(3));

/// Three etcd servers as one cluster. Each can be killed, paused and so on by itself; two must run.
#[derive(Debug)]
pub struct EtcdCluster {
    // Dropped in this order: members end before the ports go that they were advertised at.
    members: Vec<Etcd>,
    peers: Option<Peers>,
}

impl EtcdCluster {
    /// A cluster with the default options, whose members answer.
    ///
    /// # Errors
    /// See [`Etcd::start_with`].
    pub async fn start() -> Result<Self> {
        Self::start_with(EtcdOptions::default()).await
    }

    /// A cluster whose members answer. Each gets these options.
    ///
    /// # Errors
    /// See [`Etcd::start_with`].
    pub async fn start_with(options: EtcdOptions) -> Result<Self> {
        Self::assemble(options, false).await
    }

    /// A cluster with the default options whose members answer, and of which one can be [isolated](EtcdCluster::isolate).
    /// Its members reach each other through proxies.
    ///
    /// # Errors
    /// See [`Etcd::start_with`].
    pub async fn start_divisible() -> Result<Self> {
        Self::assemble(EtcdOptions::default(), true).await
    }

    async fn assemble(mut options: EtcdOptions, divisible: bool) -> Result<Self> {
        options.heartbeat_and_election.get_or_insert(HEARTBEAT_AND_ELECTION);
        let members = (0..MEMBERS).map(|n| Member::new(&format!("etcd-{n}"), &options));
        let mut members = members.collect::<Result<Vec<_>>>()?;
        let peers = if divisible { Some(Peers::of(&members)?) } else { None };
        if let Some(peers) = &peers {
            for (index, member) in members.iter_mut().enumerate() {
                member.advertised = peers.address(index);
            }
        }
        let urls: Vec<_> = members.iter().map(|member| format!("{}={}", member.name, member.peer_url())).collect();
        let urls = urls.join(",");
        let mut cluster = Self { members: Vec::new(), peers };
        for member in members {
            cluster.members.push(Etcd::assemble(member, &urls, options.clone()).await?);
        }
        cluster.launch()?;
        cluster.wait().await?;
        Ok(cluster)
    }

    /// The members, in an order that stays.
    pub fn members(&self) -> &[Etcd] {
        &self.members
    }

    /// The URLs for clients, joined by commas, as `ETCD_ENDPOINTS` has them.
    pub fn endpoints(&self) -> String {
        self.members.iter().map(Etcd::endpoint).collect::<Vec<_>>().join(",")
    }

    /// Starts those members that do not run, without waiting for an answer.
    ///
    /// # Errors
    /// One cannot be started.
    pub fn launch(&self) -> Result<()> {
        self.members.iter().filter(|member| member.pid().is_none()).try_for_each(Etcd::launch)
    }

    /// Waits until every member answers, knowing of a leader.
    ///
    /// # Errors
    /// See [`Etcd::wait`].
    pub async fn wait(&self) -> Result<()> {
        for member in &self.members {
            member.wait().await?;
        }
        Ok(())
    }

    /// The index of the member that leads: the one that says so itself. Waits until there is one, past members that do
    /// not answer.
    ///
    /// # Errors
    /// No member led for two minutes.
    pub async fn leader(&self) -> Result<usize> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            for (index, member) in self.members.iter().enumerate() {
                if member.pid().is_some() && member.leads().await {
                    return Ok(index);
                }
            }
            if Instant::now() >= deadline {
                let log = self.members.iter().map(Etcd::log_tail).collect::<Vec<_>>().join("\n\n");
                return Err(Error::new("the cluster has no leader").with_log(log));
            }
            sleep(PAUSE).await;
        }
    }

    /// Hands leadership to the member of this index, and returns when it leads.
    ///
    /// # Errors
    /// etcd refuses, or there is no leader that could hand it over.
    pub async fn move_leader(&self, to: usize) -> Result<()> {
        let from = self.leader().await?;
        if from == to {
            return Ok(());
        }
        let id = self.members[to].status().await?["Status"]["header"]["member_id"].as_u64();
        let id = id.ok_or_else(|| Error::new("etcdctl endpoint status tells no member id"))?;
        self.members[from].ctl(["move-leader", &format!("{id:x}")]).await?;
        let deadline = Instant::now() + PATIENCE;
        while self.leader().await? != to {
            if Instant::now() >= deadline {
                return Err(Error::new(format!("member {to} does not take the lead")));
            }
        }
        Ok(())
    }

    /// Keeps the member of this index and the others apart, until [`EtcdCluster::rejoin`]. Clients reach all of them. In the
    /// place of one that was isolated before; a member that is started meanwhile is not kept from anybody.
    ///
    /// # Errors
    /// It does not run, or was not started as one that [can be](EtcdCluster::start_divisible).
    pub fn isolate(&self, index: usize) -> Result<()> {
        let peers = self.peers.as_ref().ok_or_else(|| Error::new("this cluster was not started as a divisible one"))?;
        let pid = self.members[index].pid().ok_or_else(|| Error::new(format!("member {index} does not run")))?;
        peers.isolate(index, pid);
        Ok(())
    }

    /// Lets all members reach each other again.
    pub fn rejoin(&self) {
        if let Some(peers) = &self.peers {
            peers.rejoin();
        }
    }

    /// Loses all data of all members, as [`Etcd::wipe`] does.
    ///
    /// # Errors
    /// See [`Etcd::restart`].
    pub async fn wipe(&self) -> Result<()> {
        for member in &self.members {
            member.erase().await?;
        }
        self.launch()?;
        self.wait().await
    }
}

impl Etcd {
    async fn leads(&self) -> bool {
        let Ok(status) = self.status().await else { return false };
        let (leader, own) = (&status["Status"]["leader"], &status["Status"]["header"]["member_id"]);
        leader.as_u64().is_some_and(|leader| leader != 0) && leader == own
    }
}
