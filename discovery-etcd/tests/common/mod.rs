//! What the tests share: handles on a server of the test's own, and a fold over a watch with deadlines.

#![allow(dead_code, unreachable_pub, missing_docs)]

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use discovery_core::backend::{
    Change, Desired, Entry, Lineage, Position, Registrar, Session, SessionRequest, Stamp, WatchEvent, WatchStream,
    Watcher, Write, WriteBatch,
};
use discovery_core::{BackendContext, Environment, InstanceId, Key, Path, Result, Scope, TaskScope};
use discovery_etcd::{Config, EtcdBackend};
use discovery_testbed::{Etcd, Proxy};
use futures_util::StreamExt;

/// Far above every bound that is declared, so that it only ends what hangs.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub fn environment(endpoints: &str) -> Environment {
    Environment::default().with("ETCD_ENDPOINTS", endpoints)
}

pub async fn backend(endpoints: &str) -> EtcdBackend {
    connect(environment(endpoints)).await.unwrap()
}

/// What clients of a server behind these networks are given.
pub fn behind<'a>(networks: impl IntoIterator<Item = &'a Proxy>) -> String {
    networks.into_iter().map(|network| format!("http://{}", network.address())).collect::<Vec<_>>().join(",")
}

/// A network to a server, and a handle behind it.
pub async fn backend_behind_a_network(etcd: &Etcd) -> (Proxy, EtcdBackend) {
    let network = Proxy::to_port(etcd.port()).unwrap();
    let backend = backend(&behind([&network])).await;
    (network, backend)
}

pub async fn connect(environment: Environment) -> Result<EtcdBackend> {
    connect_within(environment, TaskScope::current()).await
}

async fn connect_within(environment: Environment, tasks: TaskScope) -> Result<EtcdBackend> {
    let config = Config::from_environment(&environment)?;
    EtcdBackend::with_config(config, &BackendContext::new(environment, tasks)).await
}

/// Makes the next handle of this thread begin with the first of its endpoints.
fn begin_with_the_first_of(endpoints: &str) {
    for seed in 0.. {
        fastrand::seed(seed);
        if fastrand::usize(..endpoints.split(',').count()) == 0 {
            fastrand::seed(seed);
            break;
        }
    }
}

/// A handle whose calls go to the first endpoint until that fails. On a runtime of one thread.
pub async fn with_first(endpoints: &str) -> EtcdBackend {
    with_first_of(environment(endpoints)).await
}

/// [`with_first`] with more settings than the endpoints.
pub async fn with_first_of(environment: Environment) -> EtcdBackend {
    // Made before: it draws, too.
    let tasks = TaskScope::current();
    begin_with_the_first_of(environment.get("ETCD_ENDPOINTS").unwrap().unwrap());
    connect_within(environment, tasks).await.unwrap()
}

pub fn key(id: u64) -> Key {
    Key::new(Path::new("endpoint", ["dynamo", "backend", "generate"]).unwrap(), InstanceId(id))
}

/// What [`key`] is called in etcd.
pub fn stored(id: u64) -> String {
    format!("v1/instances/dynamo/backend/generate/{id:x}")
}

pub fn endpoints() -> Scope {
    Scope::new("endpoint", ["dynamo"]).unwrap()
}

pub async fn session(backend: &EtcdBackend) -> Box<dyn Session> {
    backend.open(&SessionRequest::default()).await.unwrap()
}

/// The session that follows a lost one.
pub async fn session_again(backend: &EtcdBackend, instance: InstanceId) -> Box<dyn Session> {
    backend.open(&SessionRequest::new(None, Some(instance))).await.unwrap()
}

pub fn put_of(key: &Key, value: impl AsRef<[u8]>) -> Write {
    Write::Put { key: key.clone(), value: Bytes::copy_from_slice(value.as_ref()) }
}

pub async fn put(session: &dyn Session, key: &Key, value: impl AsRef<[u8]>) -> Result<Stamp> {
    publish(session, vec![put_of(key, value)], false).await.remove(0)
}

pub async fn delete(session: &dyn Session, key: &Key) -> Result<Stamp> {
    publish(session, vec![Write::Delete { key: key.clone() }], false).await.remove(0)
}

pub async fn publish(session: &dyn Session, writes: Vec<Write>, atomic: bool) -> Vec<Result<Stamp>> {
    session.publish(&WriteBatch { writes, atomic }, &Desired::new()).await
}

pub fn desired<V: AsRef<[u8]>>(records: impl IntoIterator<Item = (Key, V)>) -> Desired {
    records.into_iter().map(|(key, value)| (key, Bytes::copy_from_slice(value.as_ref()))).collect()
}

pub async fn listed(backend: &EtcdBackend, scope: &Scope) -> BTreeMap<Key, Bytes> {
    let (entries, _) = backend.list(scope).await.unwrap();
    entries.into_iter().map(|entry| (entry.key, entry.value)).collect()
}

pub async fn within<F: Future>(what: &str, work: F) -> F::Output {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}

/// Asks again and again until the answer is yes.
pub async fn until<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let asking = async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    within(what, asking).await;
}

/// Copies a directory with all that is in it.
pub fn copy(from: &std::path::Path, to: &std::path::Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// A watch, folded.
pub struct Fold {
    stream: WatchStream,
    pub entries: BTreeMap<Key, Entry>,
    /// Everything that was delivered after the first snapshot, one item for each batch.
    pub batches: Vec<Vec<Change>>,
    pub position: Option<Position>,
    pub lineages: Vec<Lineage>,
    pub resumed: bool,
    building: BTreeMap<Key, Entry>,
}

impl Fold {
    /// Opens a watch as the core does: again after a temporary error. A network that heals need not accept connections
    /// at once.
    pub async fn open(backend: &EtcdBackend, scope: &Scope, after: Option<&Position>) -> Self {
        let opening = async {
            loop {
                match backend.watch(scope, after).await {
                    Err(error) if error.is_temporary() => tokio::time::sleep(Duration::from_millis(20)).await,
                    opened => return opened.unwrap(),
                }
            }
        };
        let mut fold = Self::bare(within("a watch", opening).await);
        within("a first state", async {
            while fold.position.is_none() && !fold.resumed {
                fold.step().await.unwrap();
            }
        })
        .await;
        fold
    }

    fn bare(stream: WatchStream) -> Self {
        Self {
            stream,
            entries: BTreeMap::new(),
            batches: Vec::new(),
            position: None,
            lineages: Vec::new(),
            resumed: false,
            building: BTreeMap::new(),
        }
    }

    /// Opens the watch again after what was seen. Answers whether that worked.
    pub async fn reopen(&mut self, backend: &EtcdBackend, scope: &Scope) -> bool {
        match backend.watch(scope, self.position.as_ref()).await {
            Ok(stream) => self.stream = stream,
            Err(error) if error.is_temporary() => return false,
            Err(error) => panic!("not opened again: {error}"),
        }
        true
    }

    /// The next event, folded. The end of the stream is an error.
    pub async fn step(&mut self) -> Result<()> {
        let event = self.stream.next().await.expect("the stream goes on until it fails")?;
        match event {
            WatchEvent::SnapshotStart { lineage } => {
                self.lineages.push(lineage);
                self.building.clear();
            }
            WatchEvent::SnapshotChunk(entries) => {
                self.building.extend(entries.into_iter().map(|entry| (entry.key.clone(), entry)));
            }
            WatchEvent::SnapshotEnd(position) => {
                self.entries = std::mem::take(&mut self.building);
                self.position = Some(position);
            }
            WatchEvent::Resumed => self.resumed = true,
            WatchEvent::Batch { changes, position } => {
                for change in &changes {
                    match change.clone() {
                        Change::Put(entry) => drop(self.entries.insert(entry.key.clone(), entry)),
                        Change::Delete(key) => drop(self.entries.remove(&key)),
                    }
                }
                self.batches.push(changes);
                self.position = Some(position);
            }
            WatchEvent::Progress(position) => self.position = Some(position),
            other => panic!("an event that this backend does not send: {other:?}"),
        }
        Ok(())
    }

    /// Follows the stream until the fold is as wanted.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&Self) -> bool) {
        within(what, async {
            while !wanted(self) {
                self.step().await.unwrap();
            }
        })
        .await;
    }

    /// Follows the stream until it fails.
    pub async fn failure(&mut self, what: &str) -> discovery_core::Error {
        within(what, async {
            loop {
                if let Err(error) = self.step().await {
                    return error;
                }
            }
        })
        .await
    }

    pub fn values(&self) -> BTreeMap<Key, Bytes> {
        self.entries.iter().map(|(key, entry)| (key.clone(), entry.value.clone())).collect()
    }
}
