//! A store of revisions: transactions, prefix watches that resume, leases that expire.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use discovery_core::backend::{
    Backend, Change, ChangeLog, Desired, Drift, Entry, Health, Incarnation, Lineage, Position, Registrar, Session,
    SessionRequest, Stamp, WatchEvent, WatchStream, Watcher, Write, WriteBatch,
};
use discovery_core::{
    Bounds, Capabilities, Effect, Error, ErrorKind, Freshness, InstanceId, Key, Query, Result, Scope, ViewChange,
};
use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::{Worker, carries_a_registration, handle, worker};

const TTL: Duration = Duration::from_secs(5);

struct Held {
    value: Bytes,
    created: u64,
    lease: u64,
}

#[derive(Default)]
struct State {
    revision: u64,
    held: BTreeMap<Key, Held>,
    history: Vec<(u64, Vec<Change>)>,
    compacted: u64,
    leases: BTreeMap<u64, Instant>,
    down: bool,
    streams: u64,
}

impl State {
    fn commit(&mut self, writes: &[Write], lease: u64) -> u64 {
        let revision = self.revision + 1;
        let mut changes = Vec::new();
        for write in writes {
            match write {
                Write::Put { key, value } => {
                    let created = self.held.get(key).map_or(revision, |held| held.created);
                    self.held.insert(key.clone(), Held { value: value.clone(), created, lease });
                    changes.push(Change::Put(entry(key, &self.held[key])));
                }
                Write::Delete { key } => {
                    if self.held.remove(key).is_some() {
                        changes.push(Change::Delete(key.clone()));
                    }
                }
            }
        }
        if changes.is_empty() {
            return self.revision;
        }
        self.revision = revision;
        self.history.push((revision, changes));
        revision
    }

    fn expire(&mut self) {
        let now = Instant::now();
        let due: Vec<u64> = self.leases.iter().filter(|(_, until)| **until <= now).map(|(id, _)| *id).collect();
        for lease in due {
            self.revoke(lease);
        }
    }

    fn revoke(&mut self, lease: u64) {
        self.leases.remove(&lease);
        let keys: Vec<_> =
            self.held.iter().filter(|(_, held)| held.lease == lease).map(|(key, _)| key.clone()).collect();
        let writes: Vec<_> = keys.into_iter().map(|key| Write::Delete { key }).collect();
        self.commit(&writes, 0);
    }
}

fn entry(key: &Key, held: &Held) -> Entry {
    Entry { key: key.clone(), value: held.value.clone(), incarnation: Incarnation(held.created) }
}

/// The store.
#[derive(Clone)]
struct Store {
    state: Arc<Mutex<State>>,
    moved: watch::Sender<()>,
}

impl Store {
    fn new() -> Self {
        Self { state: Arc::default(), moved: watch::Sender::new(()) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic under the lock")
    }

    fn up(&self) -> Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        if state.down {
            return Err(Error::new(ErrorKind::Unavailable, "the store is down").with_effect(Effect::None));
        }
        state.expire();
        Ok(state)
    }

    fn act(&self, act: impl FnOnce(&mut State)) {
        act(&mut self.lock());
        self.moved.send_replace(());
    }

    fn client(&self) -> Arc<Client> {
        Arc::new(Client { store: self.clone(), leases: Mutex::default() })
    }
}

/// One process's connection.
struct Client {
    store: Store,
    /// Every lease that this handle had: what stands under one of them is its own.
    leases: Mutex<Vec<u64>>,
}

#[async_trait]
impl Watcher for Client {
    async fn watch(&self, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
        let mut state = self.store.up()?;
        state.streams += 1;
        let after = after.and_then(Position::as_u64).filter(|after| *after >= state.compacted);
        let (first, from) = match after {
            Some(after) => (vec![WatchEvent::Resumed], after),
            None => {
                let inside = state.held.iter().filter(|(key, _)| scope.contains(key));
                let entries = inside.map(|(key, held)| entry(key, held)).collect();
                let snapshot = WatchEvent::snapshot(Lineage::Same, entries, Position::from_u64(state.revision));
                (snapshot.to_vec(), state.revision)
            }
        };
        let mut moved = self.store.moved.subscribe();
        moved.mark_changed();
        let (store, scope) = (self.store.clone(), scope.clone());
        let rest = stream::unfold((store, moved, from), move |(store, mut moved, from)| {
            let scope = scope.clone();
            async move {
                loop {
                    moved.borrow_and_update();
                    let next = match store.up() {
                        Err(error) => Some(Err(error)),
                        Ok(state) if from < state.compacted => {
                            Some(Err(Error::new(ErrorKind::Expired, "the history is compacted")))
                        }
                        Ok(state) => {
                            state.history.iter().find(|(revision, _)| *revision > from).map(|(revision, changes)| {
                                let changes: Vec<_> =
                                    changes.iter().filter(|c| scope.contains(c.key())).cloned().collect();
                                let position = Position::from_u64(*revision);
                                Ok((WatchEvent::Batch { changes, position }, *revision))
                            })
                        }
                    };
                    match next {
                        Some(Ok((event, revision))) => return Some((Ok(event), (store, moved, revision))),
                        Some(Err(error)) => return Some((Err(error), (store, moved, from))),
                        None => {}
                    }
                    let due = store.lock().leases.values().min().copied();
                    let due = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(60));
                    tokio::select! {
                        changed = moved.changed() => changed.ok()?,
                        () = tokio::time::sleep_until(due) => {}
                    }
                }
            }
        });
        Ok(stream::iter(first.into_iter().map(Ok)).chain(rest).boxed())
    }

    fn coarsen(&self, scope: &Scope) -> Scope {
        scope.clone()
    }

    async fn barrier(&self, _: &Scope) -> Result<Option<Position>> {
        let position = Position::from_u64(self.store.up()?.revision);
        Ok(Some(position))
    }

    fn reached(&self, at: &Position, target: &Position) -> bool {
        at.as_u64() >= target.as_u64()
    }
}

#[async_trait]
impl Registrar for Client {
    async fn open(&self, request: &SessionRequest) -> Result<Box<dyn Session>> {
        let lease = {
            let mut state = self.store.up()?;
            state.revision += 1;
            let lease = state.revision;
            state.leases.insert(lease, Instant::now() + TTL);
            lease
        };
        let mut leases = self.leases.lock().expect("no panic under the lock");
        leases.push(lease);
        let id = request.instance.unwrap_or(InstanceId(leases[0]));
        Ok(Box::new(Lease { store: self.store.clone(), id, lease, own: leases.clone() }))
    }
}

#[async_trait]
impl Backend for Client {
    fn name(&self) -> &str {
        "revisions"
    }

    fn capabilities(&self) -> Capabilities {
        let mut claims = Capabilities::none();
        (claims.ttl, claims.lease, claims.exclusive, claims.incarnation, claims.batch) = (true, true, true, true, true);
        claims
    }

    fn bounds(&self) -> Bounds {
        let mut bounds = Bounds::default();
        (bounds.max_batch, bounds.default_ttl) = (128, Some(TTL));
        bounds
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

struct Lease {
    store: Store,
    id: InstanceId,
    lease: u64,
    own: Vec<u64>,
}

impl Lease {
    fn alive(&self) -> Result<MutexGuard<'_, State>> {
        let state = self.store.up()?;
        if state.leases.contains_key(&self.lease) {
            Ok(state)
        } else {
            Err(Error::new(ErrorKind::SessionLost, "the lease is gone"))
        }
    }
}

#[async_trait]
impl Session for Lease {
    fn id(&self) -> InstanceId {
        self.id
    }

    fn effective_ttl(&self) -> Option<Duration> {
        Some(TTL)
    }

    async fn renew(&self) -> Result<Duration> {
        self.alive()?.leases.insert(self.lease, Instant::now() + TTL);
        Ok(TTL)
    }

    async fn publish(&self, batch: &WriteBatch, _: &Desired) -> Vec<Result<Stamp>> {
        let results = match self.alive() {
            Err(error) => vec![Err(error); batch.writes.len()],
            Ok(mut state) => {
                let foreign =
                    |write: &Write| state.held.get(write.key()).is_some_and(|held| !self.own.contains(&held.lease));
                if batch.writes.iter().any(foreign) {
                    vec![Err(Error::new(ErrorKind::Conflict, "held by another lease")); batch.writes.len()]
                } else {
                    let revision = state.commit(&batch.writes, self.lease);
                    vec![Ok(Stamp::at(Position::from_u64(revision))); batch.writes.len()]
                }
            }
        };
        self.store.moved.send_replace(());
        results
    }

    async fn verify(&self, desired: &Desired) -> Result<Vec<(Key, Drift)>> {
        let state = self.alive()?;
        let right = |key: &Key, value: &Bytes| {
            state.held.get(key).is_some_and(|held| held.lease == self.lease && held.value == *value)
        };
        Ok(desired
            .iter()
            .filter(|(key, value)| !right(key, value))
            .map(|(key, _)| (key.clone(), Drift::Changed))
            .collect())
    }

    async fn lost(&self) -> Error {
        std::future::pending().await
    }

    async fn close(&self) -> Result<()> {
        self.store.act(|state| state.revoke(self.lease));
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn registrations() {
    let store = Store::new();
    carries_a_registration(store.client(), store.client()).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_marks_views_stale_and_removes_nobody() {
    let store = Store::new();
    let (owner, watcher) = (handle(store.client()).await, handle(store.client()).await);
    let mine = owner.register(worker("a", "one")).await.expect("registered");
    let view = watcher.view::<Worker>(Query::all()).await.expect("a view");
    let mut changes = view.changes();
    assert_eq!(changes.next().await.expect("the first batch").changes().len(), 1);

    store.act(|state| state.down = true);
    let batch = changes.next().await.expect("news of freshness");
    assert!(batch.changes().is_empty() && matches!(batch.freshness(), Freshness::Stale { .. }), "{batch:?}");
    assert_eq!(view.load().len(), 1);
    let state = mine.wait_for(|state| !state.is_registered()).await;
    assert_eq!(state.as_str(), "lost", "its time to live passed without a renewal");

    store.act(|state| state.down = false);
    mine.wait_for(|state| state.is_registered()).await;
    let mut removed = 0;
    loop {
        let batch = changes.next().await.expect("a batch");
        removed += batch.changes().iter().filter(|change| matches!(change, ViewChange::Removed(_))).count();
        if batch.freshness().is_live() && view.load().len() == 1 && store.lock().held.len() == 1 {
            break;
        }
    }
    assert!(removed <= 1);
    assert_eq!(mine.instance(), view.load().nth(0).expect("the record").instance());
}

#[tokio::test(start_paused = true)]
async fn a_revoked_lease_is_replaced_under_the_same_id() {
    let store = Store::new();
    let owner = handle(store.client()).await;
    let records = owner.register_all(vec![worker("a", "one"), worker("b", "two")]).await.expect("registered");
    let lease = *store.lock().leases.keys().next().expect("a lease");
    store.act(|state| state.revoke(lease));
    assert!(store.lock().held.is_empty());
    records[0].wait_for(|state| !state.is_registered()).await;
    for record in &records {
        record.wait_for(|state| state.is_registered()).await;
    }
    assert_eq!(store.lock().held.len(), 2);
    assert_eq!(owner.instance_id().await.expect("the id"), records[0].instance());
}

#[tokio::test(start_paused = true)]
async fn a_compacted_history_is_read_anew() {
    let store = Store::new();
    let (owner, watcher) = (handle(store.client()).await, handle(store.client()).await);
    let kept = owner.register(worker("a", "kept")).await.expect("registered");
    let gone = owner.register(worker("a", "gone").clone()).await;
    assert!(gone.is_ok(), "the same key with another value is an update");
    let view = watcher.view::<Worker>(Query::all()).await.expect("a view");
    store.act(|state| state.down = true);
    let mut changes = view.changes();
    changes.next().await.expect("the first batch");
    while !matches!(view.freshness(), Freshness::Stale { .. }) {
        changes.next().await.expect("news of freshness");
    }
    let key = kept.key().clone();
    store.act(|state| {
        state.down = false;
        state.commit(&[Write::Delete { key }], 0);
        state.compacted = state.revision;
        state.history.clear();
    });
    let mut seen = Vec::new();
    while !view.freshness().is_live() || seen.is_empty() {
        seen.extend(changes.next().await.expect("a batch").into_changes());
    }
    assert!(matches!(seen[0], ViewChange::Removed(_)), "{seen:?}");
}

#[tokio::test(start_paused = true)]
async fn many_views_share_few_watches() {
    let store = Store::new();
    let (owner, watcher) = (handle(store.client()).await, handle(store.client()).await);
    let mut views = Vec::new();
    for pool in 0..40 {
        let first = owner.register(worker(&format!("p{pool}"), "x")).await.expect("registered");
        let view = watcher.view::<Worker>(Query::path([format!("p{pool}")])).await.expect("a view");
        assert_eq!(view.load().len(), 1, "pool {pool}");
        views.push((first, view));
    }
    assert!(store.lock().streams <= 17, "{} watches", store.lock().streams);
    for (mine, view) in &views {
        let pool = mine.value().pool.clone();
        let stamp = mine.update(worker(&pool, "y")).await.expect("updated");
        view.reached(&stamp).await.expect("reached");
        assert_eq!(view.load().nth(0).expect("the record").address, "y");
    }
}
