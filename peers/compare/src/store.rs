//! The stores that both sides share, and a look into them that uses neither library.

mod kubernetes;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use discovery_testbed::Etcd;
use etcd_client::{Client, DeleteOptions, GetOptions};
use tempfile::TempDir;

use crate::Outcome;
use crate::peer::{Peer, Which};
use kubernetes::Pods;

/// How long records outlive their owner's last renewal on etcd, in seconds: both sides are told the same.
pub(crate) const ETCD_TTL: u64 = 5;
/// The same on file, where the reference has it fixed.
pub(crate) const FILE_TTL: u64 = 10;

/// The servers that this run has asked for their versions.
static VERSIONS: Mutex<BTreeMap<&str, String>> = Mutex::new(BTreeMap::new());

fn remember(server: &'static str, version: &str) {
    VERSIONS.lock().unwrap_or_else(PoisonError::into_inner).insert(server, version.to_owned());
}

/// The versions of the servers that were started up to now, as they say, by what they are.
pub(crate) fn versions() -> BTreeMap<&'static str, String> {
    VERSIONS.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// A store with nothing in it.
pub(crate) enum Store {
    /// A server of the testbed's.
    Etcd(Box<Etcd>),
    /// A directory.
    File(TempDir),
    /// A namespace of a control plane of the testbed's.
    Kubernetes(Box<Pods>),
}

/// What stored names start with, for the kinds that both sides know.
const SHARED: [&str; 4] = ["v1/instances/", "v1/mdc/", "v1/event_channels/", "v1/event_sources/"];

/// Where a side can run.
#[derive(Clone)]
pub(crate) struct Place {
    pod: Option<String>,
    environment: Vec<(String, String)>,
}

impl Place {
    /// The same, on an etcd at this address.
    pub(crate) fn at(mut self, endpoint: &str) -> Self {
        self.environment.push(("ETCD_ENDPOINTS".to_owned(), endpoint.to_owned()));
        self
    }
}

impl Store {
    pub(crate) async fn etcd() -> Outcome<Self> {
        let etcd = Etcd::start().await?;
        let status = Client::connect([etcd.endpoint()], None).await?.status().await?;
        remember("etcd", status.version());
        Ok(Self::Etcd(Box::new(etcd)))
    }

    pub(crate) fn file() -> Outcome<Self> {
        Ok(Self::File(TempDir::with_prefix("discovery-peers-")?))
    }

    pub(crate) async fn kubernetes() -> Outcome<Self> {
        let pods = Pods::start().await?;
        remember("Kubernetes", &pods.version().await?);
        Ok(Self::Kubernetes(Box::new(pods)))
    }

    /// The store of this name.
    pub(crate) async fn start(name: &str) -> Outcome<Self> {
        match name {
            "etcd" => Self::etcd().await,
            "file" => Self::file(),
            "kubernetes" => Self::kubernetes().await,
            _ => Err(format!("there is no store {name:?} here").into()),
        }
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Etcd(_) => "etcd",
            Self::File(_) => "file",
            Self::Kubernetes(_) => "kubernetes",
        }
    }

    /// How long a dead process's records may stay, in seconds, its expiry's slack included.
    pub(crate) fn expiry(&self) -> u64 {
        match self {
            Self::Etcd(_) => ETCD_TTL + 4,
            // The reference looks every third of the time to live.
            Self::File(_) => FILE_TTL + 6,
            // From the moment that the kubelet sees it.
            Self::Kubernetes(_) => 10,
        }
    }

    /// A side, connected.
    pub(crate) async fn peer(&self, which: Which) -> Outcome<Peer> {
        self.peer_at(which, self.place().await?).await
    }

    /// Where a side can run: on Kubernetes a pod of its own.
    pub(crate) async fn place(&self) -> Outcome<Place> {
        let owned = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        let mut environment = owned(&[("DYN_EVENT_PLANE", "zmq"), ("DYN_REQUEST_PLANE", "tcp")]);
        let mut pod = None;
        environment.extend(match self {
            Self::Etcd(etcd) => owned(&[
                ("DYN_DISCOVERY_BACKEND", "etcd"),
                ("ETCD_ENDPOINTS", &etcd.endpoint()),
                ("ETCD_LEASE_TTL", &ETCD_TTL.to_string()),
            ]),
            Self::File(directory) => {
                owned(&[("DYN_DISCOVERY_BACKEND", "file"), ("DYN_FILE_KV", &directory.path().to_string_lossy())])
            }
            Self::Kubernetes(pods) => {
                let (name, environment) = pods.pod().await?;
                pod = Some(name);
                environment
            }
        });
        Ok(Place { pod, environment })
    }

    /// A side there, connected.
    pub(crate) async fn peer_at(&self, which: Which, place: Place) -> Outcome<Peer> {
        let mut peer = Peer::start(which, &place.environment).await?;
        peer.pod = place.pod;
        Ok(peer)
    }

    /// Has a side withdraw everything and end; on Kubernetes its kubelet says that it has ended.
    pub(crate) async fn retire(&self, peer: Peer) -> Outcome {
        let pod = peer.pod.clone();
        peer.leave().await?;
        self.ended(pod).await
    }

    /// Ends a side by SIGKILL; on Kubernetes its kubelet says so.
    pub(crate) async fn crash(&self, peer: Peer) -> Outcome {
        let pod = peer.pod.clone();
        peer.crash().await?;
        self.ended(pod).await
    }

    async fn ended(&self, pod: Option<String>) -> Outcome {
        match (self, pod) {
            (Self::Kubernetes(pods), Some(pod)) => pods.bury(&pod).await,
            _ => Ok(()),
        }
    }

    /// Every record of the kinds that both sides know, under its stored name, as text.
    pub(crate) async fn stored(&self) -> Outcome<BTreeMap<String, String>> {
        let mut stored = self.everything().await?;
        stored.retain(|name, _| SHARED.iter().any(|shared| name.starts_with(shared)));
        Ok(stored)
    }

    async fn everything(&self) -> Outcome<BTreeMap<String, String>> {
        match self {
            Self::Etcd(etcd) => {
                let mut client = Client::connect([etcd.endpoint()], None).await?;
                let mut found = client.get("v1/", Some(GetOptions::new().with_prefix())).await?;
                let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
                let pairs = found.take_kvs().into_iter().map(etcd_client::KeyValue::into_key_value);
                Ok(pairs.map(|(key, value)| (text(key), text(value))).collect())
            }
            Self::File(directory) => {
                let mut found = BTreeMap::new();
                read_tree(directory.path(), directory.path(), &mut found)?;
                Ok(found)
            }
            Self::Kubernetes(pods) => pods.stored().await,
        }
    }

    /// Removes everything.
    pub(crate) async fn clear(&self) -> Outcome {
        match self {
            Self::Etcd(etcd) => {
                let mut client = Client::connect([etcd.endpoint()], None).await?;
                client.delete("\0", Some(DeleteOptions::new().with_from_key())).await?;
            }
            Self::File(directory) => {
                for entry in fs::read_dir(directory.path())? {
                    fs::remove_dir_all(entry?.path())?;
                }
            }
            Self::Kubernetes(pods) => pods.clear().await?,
        }
        Ok(())
    }
}

/// Records are the files whose names do not start with a dot, in directories whose names do not either.
fn read_tree(root: &Path, directory: &Path, found: &mut BTreeMap<String, String>) -> Outcome {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        if path.is_dir() {
            read_tree(root, &path, found)?;
        } else {
            let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
            found.insert(name, fs::read_to_string(&path)?);
        }
    }
    Ok(())
}
