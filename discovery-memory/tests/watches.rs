//! Watches: snapshots, resuming, order, barriers, who is woken.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use common::{Fold, delete, key, kind, open, put, scope, stored, write_all};
use discovery_core::backend::{
    Backend, Change, Entry, Lineage, Position, Registrar, Session, SessionRequest, WatchEvent, Watcher,
};
use discovery_core::{ErrorKind, Scope};
use discovery_memory::{Cluster, MemoryBackend};
use futures_util::StreamExt;
use tokio::time::Instant;

async fn fill(session: &dyn Session, service: &str, ids: std::ops::Range<u64>) {
    for id in ids {
        stored(session, put(&key(service, id), "1")).await;
    }
}

async fn setting() -> (Cluster, MemoryBackend, Box<dyn Session>) {
    let cluster = Cluster::builder().history(100).build();
    let backend = cluster.connect_with_ttl(Duration::from_secs(3_600));
    let session = backend.open(&SessionRequest::default()).await.expect("a session");
    (cluster, backend, session)
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_holds_what_was_written_and_comes_in_parts() {
    let (_cluster, backend, session) = setting().await;
    for start in (0..2_500).step_by(100) {
        write_all(&*session, (start..start + 100).map(|id| put(&key("a", id), "1")).collect(), true).await;
    }
    fill(&*session, "ab", 0..3).await;
    let mut stream = backend.watch(&scope("a"), None).await.expect("a watch");
    let mut chunks = Vec::new();
    loop {
        match stream.next().await.expect("an event").expect("no error") {
            WatchEvent::SnapshotStart { lineage } => assert_eq!(lineage, Lineage::Unknown),
            WatchEvent::SnapshotChunk(entries) => chunks.push(entries.len()),
            WatchEvent::SnapshotEnd(_) => break,
            other => panic!("unexpected {other:?}"),
        }
    }
    assert_eq!(chunks, [1_000, 1_000, 500]);
    assert_eq!(backend.list(&scope("a")).await.expect("a list").0.len(), 2_500);
    let empty = Fold::open(&backend, &scope("none")).await;
    assert!(empty.records.is_empty() && empty.position.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_watch_goes_on_from_a_position_that_history_still_has() {
    let (cluster, backend, session) = setting().await;
    fill(&*session, "a", 0..3).await;
    let first = Fold::open(&backend, &scope("a")).await;
    let after = first.position.clone().expect("a position");
    drop(first);
    stored(&*session, put(&key("a", 1), "2")).await;
    stored(&*session, put(&key("b", 1), "2")).await;
    let newest = stored(&*session, delete(&key("a", 2))).await;

    let mut fold = Fold::open_after(&backend, &scope("a"), Some(&after)).await;
    assert_eq!((fold.resumed, fold.lineages.len()), (1, 0));
    fold.reach(&backend, &newest).await;
    assert_eq!(fold.batches, [vec!["+a/1=2"], vec!["-a/2"]]);

    // Nothing is missed by resuming at the newest position either.
    let mut fold = Fold::open_after(&backend, &scope("a"), Some(&newest)).await;
    assert_eq!(fold.resumed, 1);
    stored(&*session, put(&key("a", 9), "1")).await;
    assert_eq!(fold.batch().await, ["+a/9=1"]);

    cluster.compact();
    let fold = Fold::open_after(&backend, &scope("a"), Some(&after)).await;
    assert_eq!((fold.resumed, &fold.lineages[..]), (0, &[Lineage::Same][..]));
    assert_eq!(fold.records.len(), 3);
    let fold = Fold::open_after(&backend, &scope("a"), Some(&Position::from_u64(1))).await;
    assert_eq!(fold.lineages, [Lineage::Unknown]);
    let other = Fold::open(&Cluster::new().connect(), &scope("a")).await.position.expect("a position");
    let fold = Fold::open_after(&backend, &scope("a"), Some(&other)).await;
    assert_eq!(fold.lineages, [Lineage::Reset]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_lags_behind_history_expires_and_a_quiet_one_does_not() {
    let (cluster, backend, session) = setting().await;
    let mut lagging = Fold::open(&backend, &scope("a")).await;
    let mut quiet = Fold::open(&backend, &scope("b")).await;
    fill(&*session, "a", 0..101).await;
    assert_eq!(kind(lagging.step().await), ErrorKind::Expired);
    assert!(lagging.ended().await);
    cluster.compact();
    stored(&*session, put(&key("b", 1), "1")).await;
    assert_eq!(quiet.batch().await, ["+b/1=1"]);

    let mut behind = Fold::open(&backend, &scope("b")).await;
    stored(&*session, put(&key("b", 2), "1")).await;
    cluster.compact();
    assert_eq!(kind(behind.step().await), ErrorKind::Expired);
}

#[tokio::test(start_paused = true)]
async fn an_incarnation_changes_with_absence_only() {
    let (_cluster, backend, session) = setting().await;
    let one = key("a", 1);
    let mut fold = Fold::open(&backend, &Scope::all()).await;
    let mut seen = Vec::new();
    for write in [put(&one, "1"), put(&one, "2"), delete(&one), put(&one, "2")] {
        let at = stored(&*session, write).await;
        fold.reach(&backend, &at).await;
        seen.extend(fold.incarnations.get(&one).copied());
    }
    assert_eq!(seen.len(), 3);
    assert_eq!(seen[0], seen[1]);
    assert_ne!(seen[1], seen[2]);
    assert_eq!(Fold::open(&backend, &Scope::all()).await.incarnations[&one], seen[2]);
}

#[tokio::test(start_paused = true)]
async fn silence_is_broken_well_before_the_watch_counts_as_dead() {
    let (_cluster, backend, _session) = setting().await;
    let mut fold = Fold::open(&backend, &scope("a")).await;
    for _ in 0..10 {
        let start = Instant::now();
        assert!(matches!(fold.step().await, Ok(WatchEvent::Progress(_))));
        assert!(start.elapsed() * 2 < backend.bounds().silence.expect("a bound"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_barrier_is_reached_at_once() {
    let (cluster, backend, session) = setting().await;
    let mut wide = Fold::open(&backend, &Scope::all()).await;
    let mut same = Fold::open(&backend, &scope("a")).await;
    let mut other = Fold::open(&cluster.connect(), &scope("a")).await;
    stored(&*session, put(&key("b", 1), "1")).await;
    let start = Instant::now();
    let target = backend.barrier(&scope("a")).await.expect("an answer").expect("a position");
    assert!(!backend.reached(same.position.as_ref().expect("a position"), &target));
    same.reach(&backend, &target).await;
    wide.reach(&backend, &target).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(wide.batches.len(), 1);
    assert!(other.ready().is_none(), "another handle's watch was woken");
    // What is already reached needs no word.
    backend.barrier(&scope("a")).await.expect("an answer");
    assert!(same.ready().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_stamp_is_reached_at_once_also_where_nothing_changed() {
    let (_cluster, backend, session) = setting().await;
    let mut fold = Fold::open(&backend, &scope("a")).await;
    stored(&*session, put(&key("b", 1), "1")).await;
    let start = Instant::now();
    let stamp = stored(&*session, delete(&key("a", 1))).await;
    fold.reach(&backend, &stamp).await;
    let stamp = stored(&*session, put(&key("a", 1), "1")).await;
    fold.reach(&backend, &stamp).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_wakes_only_who_watches_it() {
    let (_cluster, backend, session) = setting().await;
    let mut waiting = Vec::new();
    for id in 0..1_000 {
        let mut stream = Fold::open(&backend, &scope(&format!("s{id}"))).await.into_stream();
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        assert!(stream.poll_next_unpin(&mut Context::from_waker(&waker)).is_pending());
        waiting.push((stream, wakes));
    }
    stored(&*session, put(&key("s7", 1), "1")).await;
    let woken: Vec<_> = waiting.iter().map(|(_, wakes)| wakes.0.load(Ordering::Relaxed)).collect();
    assert_eq!(woken.iter().sum::<usize>(), 1);
    assert_eq!(woken[7], 1);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_watch_is_closed() {
    let (cluster, backend, _session) = setting().await;
    for _ in 0..10_000 {
        drop(backend.watch(&scope("a"), None).await.expect("a watch"));
    }
    let fold = Fold::open(&backend, &scope("a")).await;
    let counters = cluster.counters();
    assert_eq!((counters.open_watches, counters.watches_opened), (1, 10_001));
    assert_eq!(counters.calls_of(discovery_memory::Operation::Watch), 10_001);
    let closing = cluster.wait_until(|cluster| cluster.counters().open_watches == 0);
    let (_, ()) = tokio::join!(closing, async { drop(fold) });
}

#[tokio::test(start_paused = true)]
async fn a_fold_equals_the_list_whatever_is_written() {
    let cluster = Cluster::new();
    let backend = cluster.connect();
    let mut random = fastrand::Rng::with_seed(7);
    let mut folds = Vec::new();
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(open(&cluster.connect()).await);
    }
    for round in 0..400 {
        if round % 40 == 0 {
            folds.push(Fold::open(&backend, &if round % 80 == 0 { Scope::all() } else { scope("s1") }).await);
        }
        cluster.reorder(random.bool());
        cluster.duplicate(random.bool());
        let index = random.usize(..4);
        let session = &sessions[index];
        let name = key(&format!("s{}", random.u8(..3)), index as u64 * 10 + random.u64(..3));
        let write = if random.u8(..3) == 0 { delete(&name) } else { put(&name, &random.u8(..4).to_string()) };
        write_all(&**session, vec![write], random.bool()).await;
        if random.u8(..4) == 0
            && let Some(fold) = folds.last_mut()
        {
            fold.ready();
        }
    }
    let target = backend.barrier(&Scope::all()).await.expect("an answer").expect("a position");
    for mut fold in folds {
        fold.reach(&backend, &target).await;
        let scope = fold.scope.clone();
        let (entries, _) = backend.list(&scope).await.expect("a list");
        let listed: Vec<_> = entries.iter().map(|entry: &Entry| (entry.key.clone(), entry.incarnation.0)).collect();
        assert_eq!(fold.incarnations.clone().into_iter().collect::<Vec<_>>(), listed);
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_shows_and_hides_all_of_an_owner_at_once() {
    let cluster = Cluster::with_readiness();
    let (owner, reader) = (cluster.connect(), cluster.connect());
    let session = open(&owner).await;
    let mut fold = Fold::open(&reader, &scope("a")).await;
    let start = Instant::now();
    stored(&*session, put(&key("a", 1), "1")).await;
    let stamp = stored(&*session, put(&key("a", 2), "1")).await;
    fold.reach(&reader, &stamp).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(fold.batches.is_empty() && reader.list(&Scope::all()).await.expect("a list").0.is_empty());
    assert_eq!(cluster.record_count(), 2);

    cluster.set_ready(&owner, true);
    assert_eq!(fold.batch().await, ["+a/1=1", "+a/2=1"]);
    let shown = fold.incarnations.clone();
    assert_eq!(reader.list(&Scope::all()).await.expect("a list").0.len(), 2);
    stored(&*session, put(&key("a", 1), "2")).await;
    assert_eq!(fold.batch().await, ["+a/1=2"]);
    assert_eq!(fold.incarnations, shown);
    cluster.set_ready(&owner, false);
    cluster.set_ready(&owner, false);
    assert_eq!(fold.batch().await, ["-a/1", "-a/2"]);
    assert!(Fold::open(&reader, &scope("a")).await.records.is_empty());
    stored(&*session, delete(&key("a", 2))).await;
    cluster.set_ready(&owner, true);
    assert_eq!(fold.batch().await, ["+a/1=2"]);
    assert_ne!(fold.incarnations[&key("a", 1)], shown[&key("a", 1)]);

    // Foreign records and clusters without the option know no readiness.
    cluster.inject(&key("a", 3), "x");
    assert_eq!(fold.batch().await, ["+a/3=x"]);
    let plain = Cluster::new();
    let owner = plain.connect();
    stored(&*open(&owner).await, put(&key("a", 1), "1")).await;
    plain.set_ready(&owner, false);
    assert_eq!(owner.list(&Scope::all()).await.expect("a list").0.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn reordering_keeps_each_keys_order_and_true_positions() {
    let (cluster, backend, session) = setting().await;
    let mut fold = Fold::open(&backend, &scope("a")).await;
    let start = fold.position.clone().expect("a position");
    cluster.reorder(true);
    stored(&*session, put(&key("a", 1), "1")).await;
    write_all(&*session, vec![put(&key("a", 2), "1"), put(&key("a", 3), "1")], true).await;
    let last = stored(&*session, put(&key("a", 1), "2")).await;
    for _ in 0..2 {
        fold.batch().await;
        assert_eq!(fold.position.as_ref(), Some(&start), "not all before it is delivered");
    }
    fold.batch().await;
    assert_eq!(fold.position, Some(last));
    assert_eq!(fold.batches, [vec!["+a/2=1", "+a/3=1"], vec!["+a/1=1"], vec!["+a/1=2"]]);
}

#[tokio::test(start_paused = true)]
async fn duplicates_come_in_a_row() {
    let (cluster, backend, session) = setting().await;
    let mut fold = Fold::open(&backend, &scope("a")).await;
    cluster.duplicate(true);
    stored(&*session, put(&key("a", 1), "1")).await;
    stored(&*session, delete(&key("a", 1))).await;
    fold.until(|fold| fold.batches.len() == 4).await;
    assert_eq!(fold.batches, [["+a/1=1"], ["+a/1=1"], ["-a/1"], ["-a/1"]]);
}

#[tokio::test(start_paused = true)]
async fn the_change_log_gives_every_change_or_says_that_it_cannot() {
    use discovery_core::backend::Backend;
    let (cluster, backend, session) = setting().await;
    let log = backend.change_log().expect("a change log");
    let token = log.now().await.expect("a token");
    stored(&*session, put(&key("a", 1), "1")).await;
    write_all(&*session, vec![put(&key("a", 1), "2"), put(&key("b", 1), "1"), put(&key("a", 2), "1")], true).await;
    let read = |item: Option<discovery_core::Result<(Vec<Change>, Position)>>| item.expect("an item").expect("changes");
    let mut changes = log.changes_since(&scope("a"), &token).await.expect("a stream");
    let (first, middle) = read(changes.next().await);
    assert_eq!(first.len(), 1);
    assert_eq!(read(changes.next().await).0.len(), 2);
    let (last, ()) = tokio::join!(changes.next(), async {
        stored(&*session, delete(&key("a", 1))).await;
    });
    assert_eq!(read(last).0, [Change::Delete(key("a", 1))]);
    assert_eq!(cluster.counters().open_change_logs, 1);
    let mut again = log.changes_since(&scope("a"), &middle).await.expect("a stream");
    assert_eq!(read(again.next().await).0.len(), 2);
    drop(again);

    // An expiry is delivered at its deadline, without any other access.
    let dying = open(&cluster.connect()).await;
    stored(&*dying, put(&key("a", 5), "1")).await;
    read(changes.next().await);
    assert_eq!(read(changes.next().await).0, [Change::Delete(key("a", 5))]);

    stored(&*session, put(&key("a", 1), "3")).await;
    cluster.compact();
    assert_eq!(kind(changes.next().await.expect("an item")), ErrorKind::Expired);
    assert!(changes.next().await.is_none());
    let old = log.changes_since(&scope("a"), &token).await;
    assert_eq!(kind(old.map(drop)), ErrorKind::Expired);
    let token = log.now().await.expect("a token");
    let mut changes = log.changes_since(&scope("a"), &token).await.expect("a stream");
    cluster.lose_data();
    assert_eq!(kind(changes.next().await.expect("an item")), ErrorKind::Expired);
    let old = log.changes_since(&scope("a"), &token).await;
    assert_eq!(kind(old.map(drop)), ErrorKind::Expired);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn watches_that_open_amid_writes_end_with_the_same_set() {
    let cluster = Cluster::new();
    let reader = cluster.connect();
    let mut writers = tokio::task::JoinSet::new();
    let mut readers = tokio::task::JoinSet::new();
    for id in 0..256 {
        // Real time passes here, and nobody renews.
        let backend = cluster.connect_with_ttl(Duration::from_secs(3_600));
        writers.spawn(async move {
            let session = backend.open(&SessionRequest::default()).await.expect("a session");
            for value in ["1", "2", "3"] {
                stored(&*session, put(&key("a", id), value)).await;
                tokio::task::yield_now().await;
            }
            session
        });
        let reader = reader.clone();
        if id % 2 == 0 {
            readers.spawn(async move { Fold::open(&reader, &scope("a")).await });
        } else {
            readers.spawn(async move {
                drop(Fold::open(&reader, &scope("a")).await);
                Fold::open(&reader, &scope("a")).await
            });
        }
    }
    let sessions = writers.join_all().await;
    let folds = readers.join_all().await;
    let target = reader.barrier(&scope("a")).await.expect("an answer").expect("a position");
    for mut fold in folds {
        fold.reach(&reader, &target).await;
        assert_eq!(fold.records.len(), 256);
        assert!(fold.records.values().all(|value| value == "3"));
    }
    drop(sessions);
    assert_eq!(cluster.counters().open_watches, 0);
}
