//! Snapshots that come in parts.

use super::*;

/// How often a value of one test was decoded; the tests run in one process and use pools of their own.
static DECODED: Mutex<Vec<(String, u32)>> = Mutex::new(Vec::new());

/// Tells that it is decoded. An odd load of a thousand or more does not decode.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Noted(Worker);

impl Record for Noted {
    const KIND: &'static str = Worker::KIND;

    fn path(&self) -> Result<Path> {
        self.0.path()
    }

    fn decode(key: &Key, value: &[u8]) -> Result<Self> {
        let worker: Worker = Worker::decode(key, value)?;
        DECODED.lock().unwrap().push((worker.pool.clone(), worker.load));
        if worker.load >= 1_000 && worker.load % 2 == 1 {
            return Err(Error::new(ErrorKind::InvalidValue, "odd").with_key(key));
        }
        Ok(Self(worker))
    }
}

fn decoded(pool: &str) -> Vec<u32> {
    let all = DECODED.lock().unwrap();
    all.iter().filter(|(of, _)| of == pool).map(|(_, load)| *load).collect()
}

fn part(pool: &str, loads: impl IntoIterator<Item = u32>) -> WatchEvent {
    let entries = loads.into_iter().map(|load| {
        let worker = worker(pool, load);
        let key = Key::new(worker.path().unwrap(), InstanceId(u64::from(load)));
        let value = worker.encode(&key).unwrap();
        Entry { key, value, incarnation: Incarnation(1) }
    });
    WatchEvent::SnapshotChunk(entries.collect())
}

/// A live view of an empty pool, and what makes its watch say more.
async fn viewing(pool: &str) -> (Discovery, View<Noted>, mpsc::UnboundedSender<WatchEvent>, Position) {
    let scripted = Scripted::new(&Cluster::new());
    let (says, heard) = mpsc::unbounded_channel();
    *scripted.hooks.says.lock().unwrap() = Some(heard);
    let handle = scripted.handle().await;
    let view = handle.view::<Noted>(Query::path([pool])).await.unwrap();
    let (_, position) = scripted.inner.list(&Scope::all()).await.unwrap();
    (handle, view, says, position)
}

async fn say(says: &mpsc::UnboundedSender<WatchEvent>, events: impl IntoIterator<Item = WatchEvent>) {
    for event in events {
        says.send(event).unwrap();
        tokio::time::sleep(ms(1)).await;
    }
}

fn loads(view: &View<Noted>) -> Vec<u32> {
    view.load().iter().map(|record| record.0.load).collect()
}

/// The store sends the next part meanwhile.
#[tokio::test(start_paused = true)]
async fn a_part_of_a_first_snapshot_is_decoded_when_it_comes_and_shown_with_the_whole() {
    let (_handle, view, says, position) = viewing("parts").await;
    say(&says, [WatchEvent::SnapshotStart { lineage: Lineage::Same }, part("parts", 0..700)]).await;
    assert_eq!(decoded("parts"), (0..700).collect::<Vec<_>>());
    assert!(view.load().is_empty());
    let bad = 1_001;
    say(&says, [part("parts", 700..900), part("parts", [bad])]).await;
    assert!(view.load().is_empty() && view.undecodable().is_empty());
    say(&says, [WatchEvent::SnapshotEnd(position)]).await;
    assert_eq!(loads(&view), (0..900).collect::<Vec<_>>());
    assert_eq!(decoded("parts"), (0..900).chain([bad, bad]).collect::<Vec<_>>(), "what decodes is decoded once");
    assert_eq!(view.undecodable().len(), 1);
}

/// Nothing is promised about the order of parts.
#[tokio::test(start_paused = true)]
async fn parts_in_no_order_make_the_same_view() {
    let (_handle, view, says, position) = viewing("mixed").await;
    let parts = [600..900, 0..300, 300..600].map(|loads| part("mixed", loads));
    say(&says, [WatchEvent::SnapshotStart { lineage: Lineage::Same }]).await;
    say(&says, parts).await;
    say(&says, [WatchEvent::SnapshotEnd(position)]).await;
    assert_eq!(loads(&view), (0..900).collect::<Vec<_>>());
}

/// What is decoded of a snapshot that is given up is of no other.
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_begins_again_holds_nothing_of_the_one_before() {
    let (_handle, view, says, position) = viewing("again").await;
    let start = || WatchEvent::SnapshotStart { lineage: Lineage::Same };
    say(&says, [start(), part("again", 0..10), start(), part("again", (0..20).step_by(2))]).await;
    say(&says, [WatchEvent::SnapshotEnd(position.clone())]).await;
    assert_eq!(loads(&view), (0..20).step_by(2).collect::<Vec<_>>());
    // Of a later snapshot, what is known already is not decoded again.
    let before = decoded("again").len();
    say(&says, [start(), part("again", (0..20).step_by(2)), part("again", [30])]).await;
    assert_eq!(decoded("again").len(), before);
    say(&says, [WatchEvent::SnapshotEnd(position)]).await;
    assert_eq!(decoded("again").len(), before + 1);
    assert_eq!(loads(&view), (0..20).step_by(2).chain([30]).collect::<Vec<_>>());
}

/// A store that takes long to read says so by beginning again; one that says nothing is given up after the handle's time.
#[tokio::test(start_paused = true)]
async fn a_snapshot_that_begins_again_and_again_is_waited_for_and_one_that_falls_silent_is_not() {
    let scripted = Scripted::new(&Cluster::new());
    let (says, heard) = mpsc::unbounded_channel();
    *scripted.hooks.says.lock().unwrap() = Some(heard);
    scripted.plan("worker/", Plan { quiet: true, ..Plan::default() });
    let handle = scripted.builder().connect_timeout(Duration::from_secs(10)).build().await.unwrap();
    let view = handle.view::<Noted>(Query::all()).await.unwrap();
    let opened = || scripted.hooks.opened.load(Ordering::SeqCst);
    for _ in 0..5 {
        say(&says, [WatchEvent::SnapshotStart { lineage: Lineage::Unknown }]).await;
        tokio::time::sleep(Duration::from_secs(9)).await;
        assert!(opened() == 1 && view.freshness().is_live());
    }
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(opened(), 1);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(opened(), 2);
}
