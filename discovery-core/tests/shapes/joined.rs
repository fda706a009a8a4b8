//! A store that joins two collections with versions of their own: an owner's records in one object, written whole, and
//! visible only while another object says that the owner is ready.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use discovery_core::backend::{
    Backend, ChangeLog, Desired, Drift, Entry, Health, Incarnation, Lineage, Position, Registrar, Session,
    SessionRequest, Stamp, WatchEvent, WatchStream, Watcher, WriteBatch,
};
use discovery_core::{Bounds, Capabilities, Error, InstanceId, Key, Query, Result, Scope};
use futures_util::{StreamExt, stream};
use tokio::sync::watch;

use crate::{Worker, carries_a_registration, handle, worker};

#[derive(Default)]
struct State {
    /// The owner's objects, whole, by instance; and the collection's version.
    objects: BTreeMap<InstanceId, Desired>,
    objects_version: u64,
    ready: BTreeSet<InstanceId>,
    ready_version: u64,
}

impl State {
    fn visible(&self, scope: &Scope) -> Vec<Entry> {
        let objects = self.objects.iter().filter(|(owner, _)| self.ready.contains(owner));
        let records = objects.flat_map(|(_, records)| records);
        let inside = records.filter(|(key, _)| scope.contains(key));
        inside
            .map(|(key, value)| Entry { key: key.clone(), value: value.clone(), incarnation: Incarnation(1) })
            .collect()
    }

    /// Two versions side by side: neither alone says how far a watch is.
    fn position(&self) -> Position {
        let versions = [self.objects_version.to_be_bytes(), self.ready_version.to_be_bytes()].concat();
        Position(Bytes::from(versions))
    }
}

#[derive(Clone)]
struct Cluster {
    state: Arc<Mutex<State>>,
    moved: watch::Sender<()>,
}

impl Cluster {
    fn new() -> Self {
        Self { state: Arc::default(), moved: watch::Sender::new(()) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under the lock")
    }

    fn set_ready(&self, owner: InstanceId, ready: bool) {
        {
            let mut state = self.lock();
            state.ready_version += 1;
            if ready {
                state.ready.insert(owner)
            } else {
                state.ready.remove(&owner)
            };
        }
        self.moved.send_replace(());
    }

    fn pod(&self, id: u64) -> Arc<Pod> {
        Arc::new(Pod { cluster: self.clone(), id: InstanceId(id) })
    }
}

#[derive(Clone)]
struct Pod {
    cluster: Cluster,
    id: InstanceId,
}

#[async_trait]
impl Watcher for Pod {
    async fn watch(&self, scope: &Scope, _: Option<&Position>) -> Result<WatchStream> {
        let mut moved = self.cluster.moved.subscribe();
        moved.mark_changed();
        let (cluster, scope) = (self.cluster.clone(), scope.clone());
        // Each state is told whole: the core finds what changed.
        let states = stream::unfold((cluster, moved, scope), |(cluster, mut moved, scope)| async move {
            moved.changed().await.ok()?;
            let (entries, position) = {
                let state = cluster.lock();
                (state.visible(&scope), state.position())
            };
            let events = WatchEvent::snapshot(Lineage::Same, entries, position);
            Some((stream::iter(events.map(Ok)), (cluster, moved, scope)))
        });
        Ok(states.flatten().boxed())
    }

    fn coarsen(&self, _: &Scope) -> Scope {
        Scope::all()
    }

    async fn barrier(&self, _: &Scope) -> Result<Option<Position>> {
        Ok(Some(self.cluster.lock().position()))
    }

    fn reached(&self, at: &Position, target: &Position) -> bool {
        at.0.chunks(8).zip(target.0.chunks(8)).all(|(at, target)| at >= target)
    }
}

#[async_trait]
impl Registrar for Pod {
    async fn open(&self, _: &SessionRequest) -> Result<Box<dyn Session>> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl Session for Pod {
    fn id(&self) -> InstanceId {
        self.id
    }

    fn effective_ttl(&self) -> Option<Duration> {
        None
    }

    async fn renew(&self) -> Result<Duration> {
        Ok(Duration::MAX)
    }

    async fn publish(&self, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        let position = {
            let mut state = self.cluster.lock();
            state.objects_version += 1;
            state.objects.insert(self.id, desired.clone());
            state.position()
        };
        self.cluster.moved.send_replace(());
        vec![Ok(Stamp::at(position)); batch.writes.len()]
    }

    async fn verify(&self, desired: &Desired) -> Result<Vec<(Key, Drift)>> {
        let state = self.cluster.lock();
        let stored = state.objects.get(&self.id);
        let differs = |key: &Key, value: &Bytes| stored.and_then(|records| records.get(key)) != Some(value);
        Ok(desired
            .iter()
            .filter(|(key, value)| differs(key, value))
            .map(|(key, _)| (key.clone(), Drift::Changed))
            .collect())
    }

    async fn lost(&self) -> Error {
        std::future::pending().await
    }

    async fn close(&self) -> Result<()> {
        self.cluster.lock().objects.remove(&self.id);
        self.cluster.moved.send_replace(());
        Ok(())
    }
}

#[async_trait]
impl Backend for Pod {
    fn name(&self) -> &str {
        "joined"
    }

    fn capabilities(&self) -> Capabilities {
        let mut claims = Capabilities::none();
        (claims.readiness, claims.batch) = (true, true);
        claims
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

#[tokio::test(start_paused = true)]
async fn registrations() {
    let cluster = Cluster::new();
    cluster.set_ready(InstanceId(1), true);
    carries_a_registration(cluster.pod(1), cluster.pod(2)).await;
}

#[tokio::test(start_paused = true)]
async fn readiness_shows_and_hides_and_an_object_deleted_by_others_comes_back() {
    let cluster = Cluster::new();
    let (owner, watcher) = (handle(cluster.pod(1)).await, handle(cluster.pod(2)).await);
    let view = watcher.view::<Worker>(Query::all()).await.expect("a view");
    let mut changes = view.changes();
    changes.next().await.expect("the first batch");
    let mine = owner.register(worker("a", "one")).await.expect("stored, though nobody sees it yet");
    view.reached(&mine.stamp()).await.expect("reached");
    assert!(view.load().is_empty(), "not ready");
    cluster.set_ready(InstanceId(1), true);
    assert_eq!(changes.next().await.expect("a batch").changes().len(), 1);
    cluster.set_ready(InstanceId(1), false);
    assert_eq!(changes.next().await.expect("a batch").changes().len(), 1);
    cluster.set_ready(InstanceId(1), true);
    assert_eq!(changes.next().await.expect("a batch").changes().len(), 1);

    cluster.lock().objects.clear();
    cluster.moved.send_replace(());
    assert_eq!(changes.next().await.expect("gone").changes().len(), 1);
    assert_eq!(changes.next().await.expect("back").changes().len(), 1);
    mine.wait_for(|state| state.is_registered()).await;
}
