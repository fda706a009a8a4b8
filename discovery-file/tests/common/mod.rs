//! What the tests share: handles on a temporary directory, and a fold over a watch with deadlines.

#![allow(dead_code, unreachable_pub, missing_docs)]

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::time::Duration;

use bytes::Bytes;
use discovery_core::backend::Registrar;
use discovery_core::backend::{
    Change, Desired, Entry, Lineage, Position, Session, SessionRequest, WatchEvent, WatchStream, Watcher, Write,
    WriteBatch,
};
use discovery_core::{BackendContext, Environment, InstanceId, Key, Path, Result, Scope, TaskScope};
use discovery_file::FileBackend;
use futures_util::StreamExt;

/// Far above every bound that is declared, so that it only ends what hangs.
pub const DEADLINE: Duration = Duration::from_secs(20);

pub async fn backend(root: &FilePath) -> FileBackend {
    try_backend(root).await.unwrap()
}

pub async fn try_backend(root: &FilePath) -> Result<FileBackend> {
    let environment = Environment::default().with("DYN_FILE_KV", root);
    FileBackend::connect(&BackendContext::new(environment, TaskScope::current())).await
}

pub fn key(id: u64) -> Key {
    Key::new(Path::new("endpoint", ["dynamo", "backend", "generate"]).unwrap(), InstanceId(id))
}

/// The file of [`key`].
pub fn file_of(root: &FilePath, id: u64) -> std::path::PathBuf {
    root.join("v1/instances").join(format!("dynamo%2Fbackend%2Fgenerate%2F{id:x}"))
}

pub fn endpoints() -> Scope {
    Scope::new("endpoint", ["dynamo"]).unwrap()
}

pub fn request(id: u64, ttl: Duration) -> SessionRequest {
    SessionRequest::new(Some(ttl), Some(InstanceId(id)))
}

pub async fn session(backend: &FileBackend, id: u64) -> Box<dyn Session> {
    backend.open(&request(id, Duration::from_secs(10))).await.unwrap()
}

pub async fn put(session: &dyn Session, key: &Key, value: &str) -> Result<()> {
    let write = Write::Put { key: key.clone(), value: Bytes::copy_from_slice(value.as_bytes()) };
    publish(session, write).await
}

pub async fn delete(session: &dyn Session, key: &Key) -> Result<()> {
    publish(session, Write::Delete { key: key.clone() }).await
}

async fn publish(session: &dyn Session, write: Write) -> Result<()> {
    let mut batch = WriteBatch::default();
    batch.writes.push(write);
    session.publish(&batch, &Desired::new()).await.remove(0).map(|_| ())
}

pub fn desired(key: &Key, value: &str) -> Desired {
    Desired::from([(key.clone(), Bytes::copy_from_slice(value.as_bytes()))])
}

/// Fails where this does not end.
pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

/// A watch, folded.
pub struct Fold {
    stream: WatchStream,
    pub entries: BTreeMap<Key, Entry>,
    /// Everything that was delivered after the first snapshot.
    pub changes: Vec<Change>,
    pub position: Option<Position>,
    pub lineages: Vec<Lineage>,
    pub interrupted: bool,
    building: BTreeMap<Key, Entry>,
}

impl Fold {
    pub async fn open(backend: &FileBackend, scope: &Scope) -> Self {
        let stream = backend.watch(scope, None).await.unwrap();
        let mut fold = Self {
            stream,
            entries: BTreeMap::new(),
            changes: Vec::new(),
            position: None,
            lineages: Vec::new(),
            interrupted: false,
            building: BTreeMap::new(),
        };
        fold.until("the first snapshot", |fold| fold.position.is_some()).await;
        fold
    }

    pub async fn until(&mut self, what: &str, mut reached: impl FnMut(&Fold) -> bool) {
        let waited = tokio::time::timeout(DEADLINE, async {
            while !reached(self) {
                let event = self.stream.next().await.expect("a watch does not end").expect("a watch does not fail");
                self.apply(event);
            }
        });
        if waited.await.is_err() {
            panic!("waited too long for {what}: {:?} after {:?}", self.entries, self.changes);
        }
    }

    fn apply(&mut self, event: WatchEvent) {
        match event {
            WatchEvent::SnapshotStart { lineage } => {
                self.building.clear();
                self.lineages.push(lineage);
            }
            WatchEvent::SnapshotChunk(entries) => {
                self.building.extend(entries.into_iter().map(|entry| (entry.key.clone(), entry)));
            }
            WatchEvent::SnapshotEnd(position) => {
                self.entries = std::mem::take(&mut self.building);
                self.position = Some(position);
            }
            WatchEvent::Batch { changes, position } => {
                for change in &changes {
                    match change {
                        Change::Put(entry) => self.entries.insert(entry.key.clone(), entry.clone()),
                        Change::Delete(key) => self.entries.remove(key),
                    };
                }
                self.changes.extend(changes);
                self.position = Some(position);
            }
            WatchEvent::Progress(position) => self.position = Some(position),
            WatchEvent::Interrupted(_) => self.interrupted = true,
            WatchEvent::Recovered => self.interrupted = false,
            WatchEvent::Resumed => panic!("this backend never resumes"),
        }
    }

    pub fn value(&self, key: &Key) -> Option<&[u8]> {
        self.entries.get(key).map(|entry| &*entry.value)
    }

    /// Reads up to what is stored now.
    pub async fn settle(&mut self, backend: &FileBackend, scope: &Scope) {
        let target = backend.barrier(scope).await.unwrap().expect("this backend has barriers");
        self.until("the barrier", |fold| fold.position.as_ref().is_some_and(|at| backend.reached(at, &target))).await;
    }
}

/// Every file below `root`, by its path, with its bytes.
pub fn tree(root: &FilePath) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                left.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                files.insert(name, std::fs::read(path).unwrap());
            }
        }
    }
    files
}
