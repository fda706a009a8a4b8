//! What the tests of this crate share.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use discovery_core::backend::{
    Change, Desired, Lineage, Position, Registrar, Session, SessionRequest, Stamp, WatchEvent, WatchStream, Watcher,
    Write, WriteBatch,
};
use discovery_core::{Error, ErrorKind, InstanceId, Key, Path, Result, Scope};
use discovery_memory::MemoryBackend;
use futures_util::{FutureExt, StreamExt};

pub(crate) const TTL: Duration = Duration::from_secs(3);

pub(crate) fn key(service: &str, instance: u64) -> Key {
    Key::new(Path::new("endpoint", ["test", service]).expect("a path"), InstanceId(instance))
}

pub(crate) fn scope(service: &str) -> Scope {
    Scope::new("endpoint", ["test", service]).expect("a scope")
}

pub(crate) fn put(key: &Key, value: &str) -> Write {
    Write::Put { key: key.clone(), value: Bytes::copy_from_slice(value.as_bytes()) }
}

pub(crate) fn delete(key: &Key) -> Write {
    Write::Delete { key: key.clone() }
}

pub(crate) async fn open(backend: &MemoryBackend) -> Box<dyn Session> {
    open_as(backend, None).await
}

pub(crate) async fn open_as(backend: &MemoryBackend, instance: Option<u64>) -> Box<dyn Session> {
    backend.open(&SessionRequest::new(Some(TTL), instance.map(InstanceId))).await.expect("a session")
}

pub(crate) async fn write_all(session: &dyn Session, writes: Vec<Write>, atomic: bool) -> Vec<Result<Stamp>> {
    session.publish(&WriteBatch { writes, atomic }, &Desired::new()).await
}

pub(crate) async fn write(session: &dyn Session, write: Write) -> Result<Stamp> {
    let mut results = write_all(session, vec![write], false).await;
    assert_eq!(results.len(), 1);
    results.remove(0)
}

pub(crate) async fn stored(session: &dyn Session, write_: Write) -> Position {
    write(session, write_).await.expect("written").position.expect("a position")
}

/// What `result` failed with.
pub(crate) fn failure<T>(result: Result<T>) -> Error {
    match result {
        Ok(_) => panic!("it should have failed"),
        Err(error) => error,
    }
}

pub(crate) fn kind<T>(result: Result<T>) -> ErrorKind {
    failure(result).kind()
}

/// A watch with the map that its events come to.
pub(crate) struct Fold {
    stream: WatchStream,
    pub(crate) scope: Scope,
    pub(crate) records: BTreeMap<Key, String>,
    pub(crate) incarnations: BTreeMap<Key, u64>,
    pub(crate) position: Option<Position>,
    pub(crate) lineages: Vec<Lineage>,
    pub(crate) resumed: usize,
    /// Batches in the order they came, as `+key=value` and `-key`.
    pub(crate) batches: Vec<Vec<String>>,
}

impl Fold {
    pub(crate) async fn open(backend: &MemoryBackend, scope: &Scope) -> Self {
        Self::open_after(backend, scope, None).await
    }

    /// Opens, and reads up to the end of the snapshot or the word that there is none.
    pub(crate) async fn open_after(backend: &MemoryBackend, scope: &Scope, after: Option<&Position>) -> Self {
        let mut fold = Self::lazy(backend, scope, after).await;
        loop {
            if matches!(fold.step().await.expect("an event"), WatchEvent::SnapshotEnd(_) | WatchEvent::Resumed) {
                return fold;
            }
        }
    }

    pub(crate) async fn lazy(backend: &MemoryBackend, scope: &Scope, after: Option<&Position>) -> Self {
        Self {
            stream: backend.watch(scope, after).await.expect("a watch"),
            scope: scope.clone(),
            records: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            position: after.cloned(),
            lineages: Vec::new(),
            resumed: 0,
            batches: Vec::new(),
        }
    }

    /// The next event; the stream must not end.
    pub(crate) async fn step(&mut self) -> Result<WatchEvent> {
        let event = self.stream.next().await.expect("the stream ended")?;
        self.apply(&event);
        Ok(event)
    }

    /// The next event that is ready without waiting.
    pub(crate) fn ready(&mut self) -> Option<Result<WatchEvent>> {
        let item = self.stream.next().now_or_never()??;
        if let Ok(event) = &item {
            self.apply(event);
        }
        Some(item)
    }

    /// The bare stream, from here on.
    pub(crate) fn into_stream(self) -> WatchStream {
        self.stream
    }

    pub(crate) async fn ended(&mut self) -> bool {
        self.stream.next().await.is_none()
    }

    fn apply(&mut self, event: &WatchEvent) {
        match event {
            WatchEvent::SnapshotStart { lineage } => {
                self.lineages.push(*lineage);
                self.records.clear();
                self.incarnations.clear();
            }
            WatchEvent::SnapshotChunk(entries) => {
                for entry in entries {
                    let before = self.records.insert(entry.key.clone(), text(&entry.value));
                    assert!(before.is_none(), "a key twice in one snapshot");
                    self.incarnations.insert(entry.key.clone(), entry.incarnation.0);
                }
            }
            WatchEvent::SnapshotEnd(position) | WatchEvent::Progress(position) => {
                self.position = Some(position.clone());
            }
            WatchEvent::Batch { changes, position } => {
                self.position = Some(position.clone());
                self.batches.push(changes.iter().map(describe).collect());
                for change in changes {
                    match change {
                        Change::Put(entry) => {
                            self.records.insert(entry.key.clone(), text(&entry.value));
                            self.incarnations.insert(entry.key.clone(), entry.incarnation.0);
                        }
                        Change::Delete(key) => {
                            self.records.remove(key);
                            self.incarnations.remove(key);
                        }
                    }
                }
            }
            WatchEvent::Resumed => self.resumed += 1,
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Reads until the condition holds.
    pub(crate) async fn until(&mut self, mut condition: impl FnMut(&Self) -> bool) {
        let within = Duration::from_secs(600);
        let reading = async {
            while !condition(self) {
                self.step().await.expect("an event");
            }
        };
        tokio::time::timeout(within, reading).await.expect("it did not come to this");
    }

    /// Reads until the watch has reached `target`.
    pub(crate) async fn reach(&mut self, backend: &MemoryBackend, target: &Position) {
        self.until(|fold| fold.position.as_ref().is_some_and(|at| backend.reached(at, target))).await;
    }

    pub(crate) async fn batch(&mut self) -> Vec<String> {
        let before = self.batches.len();
        self.until(|fold| fold.batches.len() > before).await;
        self.batches.last().cloned().expect("a batch")
    }
}

pub(crate) fn describe(change: &Change) -> String {
    match change {
        Change::Put(entry) => format!("+{}={}", short(&entry.key), text(&entry.value)),
        Change::Delete(key) => format!("-{}", short(key)),
    }
}

fn short(key: &Key) -> String {
    let service = key.path().segments().last().unwrap_or_default().into_owned();
    format!("{service}/{}", key.instance())
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}
