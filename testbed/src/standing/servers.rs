//! The servers of one kind, held by their keeper.

use std::path::Path;

use super::{Kind, Report, ServerReport};
use crate::error::Result;
use crate::etcd::{Etcd, EtcdCluster, EtcdOptions};

#[derive(Debug)]
pub(super) enum Servers {
    Etcd(Box<Etcd>),
    EtcdCluster(EtcdCluster),
}

impl Servers {
    /// Starts them, with their files below `files`, and waits until they answer.
    pub(super) async fn start(kind: Kind, files: &Path) -> Result<Self> {
        let options = EtcdOptions { files: Some(files.to_owned()), ..EtcdOptions::default() };
        Ok(match kind {
            Kind::Etcd => Self::Etcd(Box::new(Etcd::start_with(options).await?)),
            Kind::EtcdCluster => Self::EtcdCluster(EtcdCluster::start_with(options).await?),
        })
    }

    /// Starts those that have ended, on their ports and their data, and waits until they answer.
    pub(super) async fn start_again(&self) -> Result<()> {
        let ended: Vec<_> = self.etcds().iter().filter(|etcd| etcd.pid().is_none()).collect();
        ended.iter().try_for_each(|etcd| etcd.launch())?;
        for etcd in ended {
            etcd.wait().await?;
        }
        Ok(())
    }

    fn etcds(&self) -> &[Etcd] {
        match self {
            Self::Etcd(etcd) => std::slice::from_ref(&**etcd),
            Self::EtcdCluster(cluster) => cluster.members(),
        }
    }

    /// How they are. Takes five seconds at most for each that does not answer.
    pub(super) async fn report(&self) -> Report {
        let mut servers = Vec::new();
        for etcd in self.etcds() {
            servers.push(ServerReport {
                name: etcd.name().to_owned(),
                address: etcd.endpoint(),
                pid: etcd.pid(),
                well: etcd.is_well().await,
                log: etcd.log().display().to_string(),
            });
        }
        let endpoints = self.etcds().iter().map(Etcd::endpoint).collect::<Vec<_>>().join(",");
        let environment = [("ETCD_ENDPOINTS", endpoints.as_str()), ("DYN_DISCOVERY_BACKEND", "etcd")];
        Report { servers, environment: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec() }
    }
}
