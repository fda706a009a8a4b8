//! Servers for people: they stay when the command that started them has ended.
//!
//! A process in the background, the keeper, holds them as a test would, so they end with it and cannot be left behind.
//! What is known of it lies in the target directory, below `testbed/up`, or where `DISCOVERY_TESTBED_UP` says. It is the keeper that lives as long as a lock
//! there is held: a file that a reboot or a killed keeper has left is told from one that counts, and a process that got
//! the keeper's id later is never signalled.

mod command;
mod keeper;
mod place;
mod servers;
mod talk;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use self::command::{Found, down, status, up};
pub use self::keeper::keep;
use crate::program::Program;

/// What can be up. One of each at a time, for each target directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// One etcd.
    Etcd,
    /// Three etcd members.
    EtcdCluster,
    /// A Kubernetes control plane with discovery's CRD, a ready pod to register for, and, as root, a node that runs pods.
    Kubernetes,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Etcd, Self::EtcdCluster, Self::Kubernetes];

    /// What it is called on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::EtcdCluster => "etcd-cluster",
            Self::Kubernetes => "kubernetes",
        }
    }

    /// The client to look into it with.
    pub fn client(self) -> Program {
        match self {
            Self::Etcd | Self::EtcdCluster => Program::Etcdctl,
            Self::Kubernetes => Program::Kubectl,
        }
    }

    fn programs(self) -> &'static [Program] {
        match self {
            Self::Etcd | Self::EtcdCluster => &[Program::Etcd],
            Self::Kubernetes => {
                &[Program::Etcd, Program::KubeApiserver, Program::KubeControllerManager, Program::Kubectl]
            }
        }
    }

    /// The one of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// Its servers.
    pub servers: Vec<ServerReport>,
    /// The variables that make the project's programs use it.
    pub environment: Vec<(String, String)>,
    /// The directory with the logs of the pods that run, or why none can; `None` where there are no pods.
    pub pods: Option<std::result::Result<String, String>>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ServerReport {
    /// Its name.
    pub name: String,
    /// Where it listens; empty where nobody needs to know.
    pub address: String,
    /// Its process id; `None` where it has ended.
    pub pid: Option<u32>,
    /// Whether it answers and complains of nothing.
    pub well: bool,
    /// The file that it writes its log to.
    pub log: String,
}
