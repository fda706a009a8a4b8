//! A world: servers that it has to itself, a prefix, and owners each on a network of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use discovery_conformance::{Fault, World};
use discovery_core::backend::Backend;
use discovery_core::{BackendContext, Environment, Error, ErrorKind, Key, Result, TaskScope};
use discovery_dynamo::layout;
use discovery_etcd::{Config, EtcdBackend};
use discovery_testbed::{Etcd, Network, Way};

use super::servers::Servers;
use super::{client, failed, past};

/// Owners of numbers below this have a network of their own. A case that has more harms none of the others.
const NETWORKS: usize = 64;
/// Servers with more history than this serve no other world, which may have to go through all of it again.
const LONG_HISTORY: i64 = 2_000;

#[derive(Clone)]
struct Owner {
    backend: Arc<EtcdBackend>,
    network: Option<Arc<Network>>,
}

pub(super) struct Place {
    /// Held while something is done to them. `None` after the end.
    servers: tokio::sync::Mutex<Option<Servers>>,
    idle: Arc<Mutex<Vec<Servers>>>,
    prefix: String,
    owners: Mutex<BTreeMap<usize, Owner>>,
    denied: Mutex<BTreeSet<usize>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn network(members: &[Etcd]) -> Result<Network> {
    Network::to(members.iter().map(|member| (Ipv4Addr::LOCALHOST, member.port()).into())).map_err(failed)
}

fn endpoints(network: &Network) -> impl Iterator<Item = String> + '_ {
    network.proxies().iter().map(|proxy| format!("http://{}", proxy.address()))
}

fn over() -> Error {
    Error::new(ErrorKind::Closed, "this world has ended")
}

impl Place {
    pub(super) fn new(servers: Servers, idle: Arc<Mutex<Vec<Servers>>>) -> Self {
        let prefix = format!("world-{:016x}/", fastrand::u64(..));
        let servers = tokio::sync::Mutex::new(Some(servers));
        Self { servers, idle, prefix, owners: Mutex::default(), denied: Mutex::default() }
    }

    fn the(&self, n: usize) -> Result<Owner> {
        let owner = lock(&self.owners).get(&n).cloned();
        owner.ok_or_else(|| Error::new(ErrorKind::Internal, format!("there is no owner {n}")))
    }

    fn way(&self, n: usize, change: impl FnOnce(&mut Way)) -> Result<()> {
        let network = self.the(n)?.network;
        let network = network
            .ok_or_else(|| Error::new(ErrorKind::Unsupported, format!("owner {n} has no network of its own")))?;
        network.change(change);
        Ok(())
    }

    /// Whether anybody is let through to the servers.
    fn close_all(&self, closed: bool) {
        for owner in lock(&self.owners).values() {
            if let Some(network) = &owner.network {
                network.change(|way| way.closed = closed);
            }
        }
    }

    fn stored(&self, key: &Key) -> Result<String> {
        Ok(format!("{}{}", self.prefix, layout::stored_key(key)?))
    }

    /// The servers lose what they have; then `refill` gives them something else. No owner sees what is in between.
    async fn lose(&self, servers: &Servers, transactions: Option<usize>) -> Result<()> {
        self.close_all(true);
        let lost = async {
            let past = match transactions {
                Some(transactions) => Some(past::read(servers.client().await?, transactions).await?),
                None => None,
            };
            servers.wipe().await?;
            match past {
                Some(past) => past.write(servers.client().await?).await,
                None => Ok(()),
            }
        };
        let lost = lost.await;
        self.close_all(false);
        lost
    }

    /// The member that an owner talks with.
    async fn in_use(&self, servers: &Servers, n: usize) -> Result<usize> {
        let owner = self.the(n)?;
        let detail = owner.backend.health().await?.detail;
        let endpoints: Vec<_> = owner.network.iter().flat_map(|network| endpoints(network)).collect();
        let found = endpoints.iter().position(|endpoint| detail.contains(endpoint));
        found.filter(|index| *index < servers.members().len()).ok_or_else(|| {
            Error::new(ErrorKind::Internal, format!("none of {endpoints:?} is the member in use: {detail}"))
        })
    }

    async fn harm(&self, servers: &Servers, fault: Fault) -> Result<()> {
        match fault {
            Fault::Outage => servers.kill().await?,
            Fault::Restore | Fault::RestoreMember => servers.launch().await?,
            _ if !servers.complete() => {
                return Err(Error::new(ErrorKind::Unavailable, "the servers do not run"));
            }
            Fault::LeaderChange => servers.change_leader().await?,
            Fault::LoseMember(n) => {
                let index = self.in_use(servers, n).await?;
                servers.members()[index].kill().await.map_err(failed)?;
            }
            Fault::LoseLeader => {
                let index = self.in_use(servers, 0).await?;
                servers.lead(index).await?;
                servers.members()[index].kill().await.map_err(failed)?;
            }
            Fault::LoseData => self.lose(servers, None).await?,
            Fault::RollBack(transactions) => self.lose(servers, Some(transactions)).await?,
            Fault::Compact => past::compact(servers.client().await?).await?,
            Fault::Revoke(n) => {
                if let Some(lease) = self.the(n)?.backend.lease() {
                    // One that has expired meanwhile is as good as revoked.
                    let _ = servers.client().await?.lease_revoke(lease).await;
                }
            }
            Fault::Delete(key) => {
                servers.client().await?.delete(self.stored(&key)?, None).await.map_err(failed)?;
            }
            Fault::Write(key, value) => {
                servers.client().await?.put(self.stored(&key)?, value.to_vec(), None).await.map_err(failed)?;
            }
            // The first time, users come to be demanded while everybody is at work.
            Fault::Deny(n) => {
                lock(&self.denied).insert(n);
                servers.demand_users().await?;
                client::permit(&mut servers.client().await?, n, false).await?;
            }
            Fault::Allow(n) => {
                let denied = lock(&self.denied).contains(&n);
                if denied {
                    servers.demand_users().await?;
                    client::permit(&mut servers.client().await?, n, true).await?;
                    lock(&self.denied).remove(&n);
                }
            }
            other => return Err(Error::new(ErrorKind::Unsupported, format!("nothing like {}", other.hook()))),
        }
        Ok(())
    }

    /// Whether another world may have these servers.
    async fn as_good_as_new(&self, servers: &Servers) -> Result<bool> {
        if !servers.are_as_new() {
            return Ok(false);
        }
        let answer = servers.client().await?.get(self.prefix.as_str(), None).await.map_err(failed)?;
        Ok(answer.header().is_some_and(|header| header.revision() < LONG_HISTORY))
    }
}

#[async_trait]
impl World for Place {
    async fn owner(&self, n: usize) -> Result<Arc<dyn Backend>> {
        let servers = self.servers.lock().await;
        let servers = servers.as_ref().ok_or_else(over)?;
        let network = if n < NETWORKS { Some(Arc::new(network(servers.members())?)) } else { None };
        let endpoints: Vec<String> = match &network {
            Some(network) => endpoints(network).collect(),
            None => servers.members().iter().map(Etcd::endpoint).collect(),
        };
        let mut config = Config::new(endpoints);
        config.prefix.clone_from(&self.prefix);
        config.min_ttl = servers.min_ttl();
        config.credentials = client::credentials(n);
        let context = BackendContext::new(Environment::default(), TaskScope::current());
        tracing::info!(owner = n, endpoints = ?config.endpoints, "an owner");
        let backend = Arc::new(EtcdBackend::with_config(config, &context).await?);
        lock(&self.owners).insert(n, Owner { backend: Arc::clone(&backend), network });
        Ok(backend)
    }

    async fn inject(&self, fault: Fault) -> Result<()> {
        tracing::info!(?fault, "begins");
        let done = self.done(fault.clone()).await;
        match &done {
            Ok(()) => tracing::info!(?fault, "is done"),
            Err(error) => tracing::warn!(?fault, %error, "could not be done"),
        }
        done
    }

    async fn close(&self) {
        lock(&self.owners).clear();
        let Some(servers) = self.servers.lock().await.take() else { return };
        if self.as_good_as_new(&servers).await.unwrap_or(false) {
            lock(&self.idle).push(servers);
        }
    }
}

impl Place {
    async fn done(&self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Cut(n) => self.way(n, |way| way.cut = true),
            // To the servers a stopped process is a silent one.
            Fault::HalfOpen(n) | Fault::Pause(n) => self.way(n, |way| way.stalled = true),
            Fault::Heal(n) | Fault::Resume(n) => self.way(n, |way| (way.cut, way.stalled) = (false, false)),
            Fault::DropAcks(n, on) => self.way(n, |way| way.deaf = on),
            Fault::DelayWrites(n, by) => self.way(n, |way| way.late = by),
            // The kernel closes its connections.
            Fault::Crash(n) => self.way(n, |way| way.dead = true),
            fault => {
                let servers = self.servers.lock().await;
                self.harm(servers.as_ref().ok_or_else(over)?, fault).await
            }
        }
    }
}
