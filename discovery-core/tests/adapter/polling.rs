//! The polling adapter, over a list that is held in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use discovery_core::adapter::{Lister, Listing, Nudges, Polling};
use discovery_core::backend::{Change, Entry, Incarnation, Lineage, Position, WatchEvent, WatchStream, Watcher};
use discovery_core::{Error, ErrorKind, InstanceId, Key, Path, Result, Scope};
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, advance, timeout};

const INTERVAL: Duration = Duration::from_secs(10);

#[derive(Clone)]
struct Shelf {
    entries: Arc<Mutex<BTreeMap<Key, Entry>>>,
    lineage: Arc<Mutex<Option<u64>>>,
    fails: Arc<Mutex<Option<Error>>>,
    /// How long a list takes, after and before it looks.
    slow: Arc<Mutex<(Duration, Duration)>>,
    lists: Arc<AtomicUsize>,
    moved: watch::Sender<()>,
    end_hints: Arc<Notify>,
}

impl Shelf {
    fn new() -> Self {
        Self {
            entries: Arc::default(),
            lineage: Arc::default(),
            fails: Arc::default(),
            slow: Arc::default(),
            lists: Arc::default(),
            moved: watch::Sender::new(()),
            end_hints: Arc::default(),
        }
    }

    fn put(&self, key: &Key, value: &'static str, incarnation: u64) -> Entry {
        let entry = Entry {
            key: key.clone(),
            value: Bytes::from_static(value.as_bytes()),
            incarnation: Incarnation(incarnation),
        };
        self.entries.lock().expect("no panic under the lock").insert(key.clone(), entry.clone());
        entry
    }

    fn remove(&self, key: &Key) {
        self.entries.lock().expect("no panic under the lock").remove(key);
    }

    fn hint(&self) {
        self.moved.send_replace(());
    }

    fn lists(&self) -> usize {
        self.lists.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Lister for Shelf {
    async fn list(&self, _: &Scope) -> Result<Listing<Entry>> {
        self.lists.fetch_add(1, Ordering::SeqCst);
        let (before, after) = *self.slow.lock().expect("no panic under the lock");
        tokio::time::sleep(before).await;
        let items = self.entries.lock().expect("no panic under the lock").values().cloned().collect();
        let lineage = *self.lineage.lock().expect("no panic under the lock");
        tokio::time::sleep(after).await;
        match &*self.fails.lock().expect("no panic under the lock") {
            Some(error) => Err(error.clone()),
            None => Ok(Listing { items, lineage }),
        }
    }

    async fn nudges(&self) -> Result<Nudges> {
        let (moved, end) = (self.moved.subscribe(), Arc::clone(&self.end_hints));
        Ok(stream::unfold((moved, end), |(mut moved, end)| async {
            tokio::select! {
                changed = moved.changed() => changed.ok()?,
                () = end.notified() => return None,
            }
            Some(((), (moved, end)))
        })
        .boxed())
    }

    fn interval(&self) -> Duration {
        INTERVAL
    }
}

fn key(pool: &str, instance: u64) -> Key {
    Key::new(Path::new("worker", [pool]).expect("a path"), InstanceId(instance))
}

async fn opened(watches: &Polling<Shelf>, scope: &Scope) -> (WatchStream, Vec<Entry>, Position) {
    let mut stream = watches.watch(scope, None).await.expect("a watch");
    let Some(Ok(WatchEvent::SnapshotStart { lineage: Lineage::Unknown })) = stream.next().await else {
        panic!("a start")
    };
    let Some(Ok(WatchEvent::SnapshotChunk(entries))) = stream.next().await else { panic!("a chunk") };
    let Some(Ok(WatchEvent::SnapshotEnd(position))) = stream.next().await else { panic!("an end") };
    (stream, entries, position)
}

async fn batch(stream: &mut WatchStream) -> (Vec<Change>, Position) {
    match stream.next().await {
        Some(Ok(WatchEvent::Batch { changes, position })) => (changes, position),
        other => panic!("a batch, not {other:?}"),
    }
}

async fn progress(stream: &mut WatchStream) -> Position {
    match stream.next().await {
        Some(Ok(WatchEvent::Progress(position))) => position,
        other => panic!("progress, not {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_a_snapshot_then_differences_then_signs_of_life() {
    let shelf = Shelf::new();
    let watches = Polling::new(shelf.clone());
    let (kept, gone, outside) = (key("a", 1), key("a", 2), key("ab", 3));
    let first = [shelf.put(&kept, "1", 1), shelf.put(&gone, "1", 1)];
    shelf.put(&outside, "1", 1);
    let scope = Scope::new("worker", ["a"]).expect("a scope");
    let (mut stream, entries, start) = opened(&watches, &scope).await;
    assert_eq!(entries, first);

    let began = Instant::now();
    let still = progress(&mut stream).await;
    assert_eq!(began.elapsed(), INTERVAL);
    assert!(watches.reached(&still, &start) && !watches.reached(&start, &still));

    shelf.remove(&gone);
    let changed = shelf.put(&kept, "2", 1);
    let new = shelf.put(&key("a", 9), "1", 1);
    shelf.put(&outside, "2", 1);
    let (changes, position) = batch(&mut stream).await;
    assert_eq!(changes, [Change::Put(changed), Change::Put(new), Change::Delete(gone)]);
    assert!(watches.reached(&position, &still));

    let again = shelf.put(&kept, "2", 2);
    assert_eq!(batch(&mut stream).await.0, [Change::Put(again)], "another incarnation is a change");
    progress(&mut stream).await;
}

#[tokio::test(start_paused = true)]
async fn a_hint_lists_at_once_and_many_hints_list_once() {
    let shelf = Shelf::new();
    let watches = Polling::new(shelf.clone());
    let (mut stream, ..) = opened(&watches, &Scope::all()).await;
    let began = Instant::now();
    for number in 0..100 {
        shelf.put(&key("a", number), "1", 1);
        shelf.hint();
    }
    assert_eq!(batch(&mut stream).await.0.len(), 100);
    assert!(began.elapsed() < Duration::from_millis(100));
    progress(&mut stream).await;
    assert!(began.elapsed() >= INTERVAL, "no list that nobody asked for");

    *shelf.slow.lock().expect("a lock") = (Duration::from_secs(1), Duration::ZERO);
    let lists = shelf.lists();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(60) {
        shelf.hint();
        stream.next().await.expect("an item").expect("no error");
    }
    assert!(shelf.lists() - lists <= 32, "a store that changes all the time is listed half of the time at most");
}

#[tokio::test(start_paused = true)]
async fn hints_that_end_end_the_watch_with_an_error() {
    let shelf = Shelf::new();
    let (mut stream, ..) = opened(&Polling::new(shelf.clone()), &Scope::all()).await;
    shelf.end_hints.notify_one();
    let error = stream.next().await.expect("an item").expect_err("an error");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(stream.next().await.is_none());
}

/// Where a barrier or the interval comes first, the end of the hints is met by whoever asks for the next one; a stream like
/// this one panics when it is asked again after its end.
#[tokio::test(start_paused = true)]
async fn hints_that_end_while_a_list_is_due_anyway_end_the_watch_with_an_error() {
    for barrier in [true, false] {
        let shelf = Shelf::new();
        let watches = Polling::new(shelf.clone());
        let (mut stream, ..) = opened(&watches, &Scope::all()).await;
        // For as long as a list took hints ask for no other.
        let took = if barrier { INTERVAL / 2 } else { INTERVAL * 2 };
        *shelf.slow.lock().expect("a lock") = (took, Duration::ZERO);
        shelf.put(&key("a", 1), "1", 1);
        while !matches!(stream.next().await, Some(Ok(WatchEvent::Batch { .. }))) {}

        shelf.end_hints.notify_one();
        assert!(stream.next().now_or_never().is_none(), "the end waits as a hint would");
        if barrier {
            watches.barrier(&Scope::all()).await.expect("a barrier");
        }
        let error = stream.next().await.expect("an item").expect_err("an error");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(stream.next().await.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_list_gives_signs_of_life_and_one_that_hangs_falls_silent() {
    let shelf = Shelf::new();
    let watches = Polling::new(shelf.clone());
    let took = INTERVAL * 6;
    *shelf.slow.lock().expect("a lock") = (took, Duration::ZERO);
    let (mut stream, _, mut newest) = opened(&watches, &Scope::all()).await;
    let mut last = Instant::now();
    while shelf.lists() < 5 {
        let position = progress(&mut stream).await;
        assert!(watches.reached(&position, &newest), "signs of life never go back");
        assert!(last.elapsed() <= INTERVAL * 2, "{:?} without a sign", last.elapsed());
        (last, newest) = (Instant::now(), position);
    }

    // What was as slow as this may well be twice as slow, and no more.
    *shelf.slow.lock().expect("a lock") = (took * 1000, Duration::ZERO);
    while shelf.lists() < 6 {
        progress(&mut stream).await;
    }
    let hangs = Instant::now();
    let mut last = hangs;
    while timeout(took, progress(&mut stream)).await.is_ok() {
        last = Instant::now();
    }
    let signs = last - hangs;
    assert!(signs >= took && signs <= took * 2, "{signs:?}");
}

#[tokio::test(start_paused = true)]
async fn a_list_that_fails_is_the_last_item_and_no_removal() {
    let shelf = Shelf::new();
    let watches = Polling::new(shelf.clone());
    shelf.put(&key("a", 1), "1", 1);
    let (mut stream, ..) = opened(&watches, &Scope::all()).await;
    *shelf.fails.lock().expect("a lock") = Some(Error::new(ErrorKind::PermissionDenied, "no"));
    let error = stream.next().await.expect("an item").expect_err("an error");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(stream.next().await.is_none());
    let error = watches.watch(&Scope::all(), None).await.err().expect("an error");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(watches.list(&Scope::all()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_barrier_is_reached_by_a_list_that_began_after_it() {
    let shelf = Shelf::new();
    let watches = Polling::new(shelf.clone());
    let (mut stream, _, start) = opened(&watches, &Scope::all()).await;
    *shelf.slow.lock().expect("a lock") = (Duration::from_secs(1), Duration::from_secs(1));

    // A list is under way and has looked already when the write comes, and the barrier after it.
    shelf.hint();
    let mut next = stream.next();
    assert!(timeout(Duration::from_millis(1500), &mut next).await.is_err());
    let written = shelf.put(&key("a", 1), "1", 1);
    let target = watches.barrier(&Scope::all()).await.expect("a barrier").expect("a position");
    assert!(!watches.reached(&start, &target));

    let began = Instant::now();
    let Some(Ok(WatchEvent::Progress(blind))) = next.await else { panic!("progress") };
    assert!(!watches.reached(&blind, &target), "it began before the barrier");
    let (changes, position) = batch(&mut stream).await;
    assert_eq!(changes, [Change::Put(written)]);
    assert!(watches.reached(&position, &target));
    assert!(began.elapsed() < Duration::from_secs(5), "at once, and not after an interval");

    let (_, listed) = watches.list(&Scope::all()).await.expect("a list");
    assert!(watches.reached(&listed, &position) && !watches.reached(&position, &listed));
}

#[tokio::test(start_paused = true)]
async fn of_two_lists_that_overlap_neither_has_reached_the_other() {
    let shelf = Shelf::new();
    let watches = Polling::new(shelf.clone());
    *shelf.slow.lock().expect("a lock") = (Duration::from_secs(1), Duration::from_secs(1));
    let scope = Scope::all();
    let early = watches.list(&scope);
    let late = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        watches.list(&scope).await
    };
    let (early, late) = tokio::join!(early, late);
    let ((_, early), (_, late)) = (early.expect("a list"), late.expect("a list"));
    assert!(!watches.reached(&early, &late) && !watches.reached(&late, &early));
    assert!(watches.reached(&early, &early));
    let foreign = Position::from_u64(1);
    assert!(!watches.reached(&early, &foreign) && !watches.reached(&foreign, &early));
}

#[tokio::test(start_paused = true)]
async fn another_lineage_is_a_reset_in_the_stream_and_across_streams() {
    let shelf = Shelf::new();
    let watches = Polling::new(shelf.clone());
    let set = |lineage| *shelf.lineage.lock().expect("a lock") = lineage;
    let (mut stream, _, unknown) = opened(&watches, &Scope::all()).await;
    shelf.put(&key("a", 1), "1", 1);
    set(Some(1));
    let (_, first) = batch(&mut stream).await;
    progress(&mut stream).await;

    shelf.remove(&key("a", 1));
    set(None);
    let start = stream.next().await.expect("an item").expect("no error");
    assert!(matches!(start, WatchEvent::SnapshotStart { lineage: Lineage::Reset }), "{start:?}");
    let Some(Ok(WatchEvent::SnapshotChunk(entries))) = stream.next().await else { panic!("a chunk") };
    assert!(entries.is_empty());
    let Some(Ok(WatchEvent::SnapshotEnd(_))) = stream.next().await else { panic!("an end") };
    shelf.put(&key("a", 1), "1", 2);
    set(Some(2));
    assert_eq!(batch(&mut stream).await.0.len(), 1, "data that are back are no loss");

    for (after, expected) in [(&unknown, Lineage::Unknown), (&first, Lineage::Reset)] {
        let mut stream = watches.watch(&Scope::all(), Some(after)).await.expect("a watch");
        let Some(Ok(WatchEvent::SnapshotStart { lineage })) = stream.next().await else { panic!("a start") };
        assert_eq!(lineage, expected);
    }
    set(Some(1));
    let mut stream = watches.watch(&Scope::all(), Some(&first)).await.expect("a watch");
    let Some(Ok(WatchEvent::SnapshotStart { lineage })) = stream.next().await else { panic!("a start") };
    assert_eq!(lineage, Lineage::Same);
}

#[tokio::test(start_paused = true)]
async fn dropping_a_stream_in_the_middle_of_a_list_leaves_nothing() {
    let shelf = Shelf::new();
    let watches = Polling::new(shelf.clone());
    let (mut stream, ..) = opened(&watches, &Scope::all()).await;
    *shelf.slow.lock().expect("a lock") = (Duration::from_secs(1), Duration::ZERO);
    shelf.hint();
    assert!(timeout(Duration::from_millis(500), stream.next()).await.is_err());
    shelf.put(&key("a", 1), "1", 1);
    assert_eq!(batch(&mut stream).await.0.len(), 1, "the list under way goes on where `next` was dropped");
    shelf.hint();
    assert!(stream.next().now_or_never().is_none());
    drop(stream);
    let lists = shelf.lists();
    shelf.hint();
    advance(INTERVAL * 3).await;
    assert_eq!(shelf.lists(), lists);
    assert_eq!(shelf.moved.receiver_count(), 0);
}
