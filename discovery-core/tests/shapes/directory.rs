//! A store that can only be listed: no revisions, no history, no barrier.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use discovery_core::backend::{
    Backend, Change, ChangeLog, Desired, Drift, Entry, Health, Incarnation, Lineage, Position, Registrar, Session,
    SessionRequest, Stamp, WatchEvent, WatchStream, Watcher, Write, WriteBatch,
};
use discovery_core::{Bounds, Capabilities, Error, ErrorKind, InstanceId, Key, Query, Result, Scope, ViewOptions};
use futures_util::{StreamExt, stream};
use tokio::time::sleep;

use crate::{Worker, carries_a_registration, handle, worker};

const POLL: Duration = Duration::from_millis(50);

type Files = Arc<Mutex<BTreeMap<Key, Bytes>>>;

#[derive(Clone)]
struct Directory {
    files: Files,
    id: u64,
}

impl Directory {
    fn read(&self, scope: &Scope) -> BTreeMap<Key, Bytes> {
        let files = self.files.lock().expect("no panic under the lock");
        files.iter().filter(|(key, _)| scope.contains(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
    }
}

fn entry(key: &Key, value: &Bytes) -> Entry {
    Entry { key: key.clone(), value: value.clone(), incarnation: Incarnation(0) }
}

#[async_trait]
impl Watcher for Directory {
    async fn watch(&self, scope: &Scope, _: Option<&Position>) -> Result<WatchStream> {
        let seen = self.read(scope);
        let entries = seen.iter().map(|(key, value)| entry(key, value)).collect();
        let first = WatchEvent::snapshot(Lineage::Unknown, entries, Position::from_u64(0));
        let (directory, scope) = (self.clone(), scope.clone());
        let rest = stream::unfold((directory, scope, seen, 0), |(directory, scope, seen, count)| async move {
            sleep(POLL).await;
            let now = directory.read(&scope);
            let put = now.iter().filter(|(key, value)| seen.get(*key) != Some(*value));
            let gone = seen.keys().filter(|key| !now.contains_key(*key));
            let mut changes: Vec<_> = put.map(|(key, value)| Change::Put(entry(key, value))).collect();
            changes.extend(gone.map(|key| Change::Delete(key.clone())));
            let position = Position::from_u64(count + 1);
            Some((Ok(WatchEvent::Batch { changes, position }), (directory, scope, now, count + 1)))
        });
        Ok(stream::iter(first.map(Ok)).chain(rest).boxed())
    }

    fn coarsen(&self, scope: &Scope) -> Scope {
        scope.kind().and_then(|kind| Scope::new(kind, [""; 0]).ok()).unwrap_or_else(Scope::all)
    }

    async fn barrier(&self, _: &Scope) -> Result<Option<Position>> {
        Ok(None)
    }

    fn reached(&self, at: &Position, target: &Position) -> bool {
        at.as_u64() >= target.as_u64()
    }
}

#[async_trait]
impl Registrar for Directory {
    async fn open(&self, _: &SessionRequest) -> Result<Box<dyn Session>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Session for Directory {
    fn id(&self) -> InstanceId {
        InstanceId(self.id)
    }

    fn effective_ttl(&self) -> Option<Duration> {
        None
    }

    async fn renew(&self) -> Result<Duration> {
        Err(Error::new(ErrorKind::Unsupported, "files have no time to live here"))
    }

    async fn publish(&self, batch: &WriteBatch, _: &Desired) -> Vec<Result<Stamp>> {
        let mut files = self.files.lock().expect("no panic under the lock");
        let write = |write: &Write| {
            match write {
                Write::Put { key, value } => drop(files.insert(key.clone(), value.clone())),
                Write::Delete { key } => drop(files.remove(key)),
            }
            Ok(Stamp::unordered())
        };
        batch.writes.iter().map(write).collect()
    }

    async fn verify(&self, desired: &Desired) -> Result<Vec<(Key, Drift)>> {
        let files = self.files.lock().expect("no panic under the lock");
        let changed = desired.iter().filter(|(key, value)| files.get(*key) != Some(*value));
        Ok(changed.map(|(key, _)| (key.clone(), Drift::Changed)).collect())
    }

    async fn lost(&self) -> Error {
        std::future::pending().await
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Backend for Directory {
    fn name(&self) -> &str {
        "directory"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::none()
    }

    fn bounds(&self) -> Bounds {
        Bounds::default()
    }

    fn admit(&self, _: &Key, _: usize) -> Result<()> {
        Ok(())
    }

    async fn health(&self) -> Result<Health> {
        Ok(Health::new(Duration::ZERO, "a toy"))
    }

    fn change_log(&self) -> Option<&dyn ChangeLog> {
        None
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

/// A directory that tells nothing unless something changes, and closes each watch soon after its snapshot.
struct Quiet {
    directory: Directory,
    opened: AtomicU64,
    closes: bool,
}

#[async_trait]
impl Watcher for Quiet {
    async fn watch(&self, scope: &Scope, _: Option<&Position>) -> Result<WatchStream> {
        let count = self.opened.fetch_add(1, Ordering::Relaxed);
        let entries = self.directory.read(scope);
        let entries = entries.iter().map(|(key, value)| entry(key, value)).collect();
        let first = WatchEvent::snapshot(Lineage::Unknown, entries, Position::from_u64(count)).map(Ok);
        if self.closes {
            Ok(stream::iter(first).boxed())
        } else {
            Ok(stream::iter(first).chain(stream::pending()).boxed())
        }
    }

    fn coarsen(&self, scope: &Scope) -> Scope {
        self.directory.coarsen(scope)
    }

    async fn barrier(&self, _: &Scope) -> Result<Option<Position>> {
        Ok(None)
    }

    fn reached(&self, at: &Position, target: &Position) -> bool {
        self.directory.reached(at, target)
    }
}

#[async_trait]
impl Registrar for Quiet {
    async fn open(&self, request: &SessionRequest) -> Result<Box<dyn Session>> {
        self.directory.open(request).await
    }
}

#[async_trait]
impl Backend for Quiet {
    fn name(&self) -> &str {
        "quiet"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::none()
    }

    fn bounds(&self) -> Bounds {
        Bounds::default()
    }

    fn admit(&self, _: &Key, _: usize) -> Result<()> {
        Ok(())
    }

    async fn health(&self) -> Result<Health> {
        self.directory.health().await
    }

    fn change_log(&self) -> Option<&dyn ChangeLog> {
        None
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

fn quiet(closes: bool) -> Arc<Quiet> {
    let directory = Directory { files: Files::default(), id: 1 };
    Arc::new(Quiet { directory, opened: AtomicU64::new(0), closes })
}

#[tokio::test(start_paused = true)]
async fn lists_of_a_quiet_scope_read_it_anew_and_share_the_reading() {
    let backend = quiet(false);
    let discovery = handle(Arc::clone(&backend) as Arc<dyn Backend>).await;
    let view = discovery.view::<Worker>(Query::all()).await.expect("a view");
    let mine = discovery.register(worker("a", "one")).await.expect("registered");
    let opened = backend.opened.load(Ordering::Relaxed);
    let list = || discovery.list::<Worker>(Query::all());
    let (one, two, three) = tokio::join!(list(), list(), list());
    for listed in [one, two, three] {
        assert_eq!(listed.expect("a list").len(), 1);
    }
    assert_eq!(backend.opened.load(Ordering::Relaxed), opened + 1, "one reading for all three");
    assert_eq!(view.load().len(), 1);
    mine.update(worker("a", "two")).await.expect("updated");
    view.reached(&mine.stamp()).await.expect("reached");
    assert_eq!(view.load().nth(0).expect("the record").address, "two");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_closes_each_watch_after_its_snapshot_is_asked_less_and_less_often() {
    let backend = quiet(true);
    let discovery = handle(Arc::clone(&backend) as Arc<dyn Backend>).await;
    let lazy = ViewOptions::default().lazy();
    let _view = discovery.view_with::<Worker>(Query::all(), lazy).await.expect("a view");
    let opened = |backend: &Quiet| backend.opened.load(Ordering::Relaxed);
    sleep(Duration::from_secs(30)).await;
    let settled = opened(&backend);
    sleep(Duration::from_secs(30)).await;
    let recovery = backend.bounds().recovery;
    let most = Duration::from_secs(30).as_millis() / (recovery / 4).as_millis();
    assert!(u128::from(opened(&backend) - settled) <= most, "{} openings in 30 s", opened(&backend) - settled);
}

#[tokio::test(start_paused = true)]
async fn registrations() {
    let files = Files::default();
    let directory = |id| Arc::new(Directory { files: Arc::clone(&files), id });
    carries_a_registration(directory(1), directory(2)).await;
}
