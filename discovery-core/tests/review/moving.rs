//! Slots that move between watches, and watches that begin late.
use super::*;

fn q(pool: &str) -> Query {
    Query::path([pool])
}

fn lazy() -> ViewOptions {
    ViewOptions::default().lazy()
}

/// ORD 8: the watch failed at first, and its snapshot is on the way while a list reads what came after.
#[tokio::test(start_paused = true)]
async fn a_load_after_a_list_never_goes_back_to_a_late_first_snapshot() {
    for barrier in [true, false] {
        let cluster = Cluster::new();
        let backend = Scripted::new(&cluster);
        *backend.hooks.no_barrier.lock().unwrap() = !barrier;
        let (handle, owner) = (backend.handle().await, writing::handle_on(&cluster.connect()).await);
        let unavailable = Error::new(ErrorKind::Unavailable, "not yet");
        backend.plan("worker/", Plan { deny: Some(unavailable), ..Plan::default() });
        let view = handle.view_with::<Worker>(Query::all(), lazy()).await.unwrap();
        tokio::time::sleep(ms(10)).await;
        backend.plan("worker/", Plan { eager: true, delay: Duration::from_secs(2), hold: true, ..Plan::default() });
        while backend.hooks.open.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(ms(1)).await;
        }
        let mine = owner.register(worker("a", 1)).await.unwrap();
        let start = Instant::now();
        let listed = handle.list::<Worker>(Query::all()).await.unwrap();
        assert!(listed.get(mine.key()).is_some() && start.elapsed() < ms(100), "{listed:?} {:?}", start.elapsed());
        let mut changes = view.changes();
        let first = changes.next().await.unwrap();
        assert_eq!(first.changes().len(), 1, "barrier: {barrier}: what the list had is gone from the load after it");
        assert!(first.freshness().is_live());
    }
}

/// A record that is decoded as any of several types: each is a slot of its own.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Typed<const N: usize> {
    pool: String,
}
impl<const N: usize> Record for Typed<N> {
    const KIND: &'static str = "worker";
    fn path(&self) -> Result<Path> {
        Path::new(Self::KIND, [&self.pool])
    }
}

/// So many records that showing them takes its turns.
fn fill(cluster: &Cluster, pool: &str, records: u64) {
    let path = Path::new("worker", [pool]).unwrap();
    let value = serde_json::to_vec(&worker(pool, 1)).unwrap();
    for n in 1..=records {
        cluster.inject(&Key::new(path.clone(), InstanceId(n)), value.clone());
    }
}

/// The narrow watch is released to a wide one, which is gone before the narrow one hears of it, and so is the one after.
#[tokio::test(start_paused = true)]
async fn a_watch_that_takes_back_what_was_on_its_way_serves_like_any_other() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    fill(&cluster, "a", 15_000);
    let narrow = handle.view::<Worker>(q("a")).await.unwrap();
    for scope in ["worker/", ""] {
        backend.plan(scope, Plan { hang: true, ..Plan::default() });
    }
    // Two wide watches, each held by a view of nothing.
    let opens = handle.view_with::<Worker>(Query::all(), lazy()).await.unwrap();
    let wide = handle.view_with::<Worker>(q("none"), lazy()).await.unwrap();
    drop(opens);
    let opens = handle.entries(Query::all(), lazy()).await.unwrap();
    let wider = handle.entries(Query::kind("none"), lazy()).await.unwrap();
    drop(opens);
    tokio::time::sleep(ms(100)).await;
    // The narrow one is busy with views that join it.
    macro_rules! join {
        ($($n:literal)*) => {
            [$({
                let handle = handle.clone();
                tokio::spawn(async move { handle.view_with::<Typed<$n>>(q("a"), lazy()).await.map(drop) })
            }),*]
        };
    }
    let joining = join!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    backend.plan("worker/", Plan::default());
    let turns = async || {
        for _ in 0..2 {
            tokio::task::yield_now().await;
        }
    };
    while !wide.freshness().is_live() {
        turns().await;
    }
    for _ in 0..10 {
        turns().await;
    }
    backend.plan("", Plan::default());
    while !(wider.freshness().is_live() && backend.hooks.open.load(Ordering::SeqCst) == 2) {
        turns().await;
    }
    assert!(joining.iter().any(|view| !view.is_finished()), "the narrow watch was to be busy all the time");
    drop((wide, wider));
    for view in joining {
        view.await.unwrap().unwrap();
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(narrow.freshness().is_live());
    let opened = backend.hooks.opened.load(Ordering::SeqCst);
    let listed = tokio::time::timeout(ms(500), handle.list::<Worker>(q("a"))).await;
    assert!(matches!(&listed, Ok(Ok(listed)) if listed.len() == 15_000), "a list waits for slots that have arrived");
    let _again = handle.view::<Worker>(q("a")).await.unwrap();
    assert_eq!(backend.hooks.opened.load(Ordering::SeqCst), opened, "there is a watch of this scope (CON 4)");
    cluster.delete(&Key::new(Path::new("worker", ["a"]).unwrap(), InstanceId(1)));
    narrow.reached(&Stamp::unordered()).await.unwrap();
    assert_eq!(narrow.load().len(), 14_999);
}

/// FLT 8: the streams of slots on their way to a wide watch that is out of touch hear that they are stale, too.
#[tokio::test(start_paused = true)]
async fn a_stream_on_its_way_to_a_stale_watch_is_told() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let (handle, owner) = (backend.handle().await, writing::handle_on(&cluster.connect()).await);
    let narrow = handle.view::<Worker>(q("a")).await.unwrap();
    let mut changes = narrow.changes();
    assert!(changes.next().await.unwrap().freshness().is_live());
    let (says, heard) = tokio::sync::mpsc::unbounded_channel();
    *backend.hooks.says.lock().unwrap() = Some(heard);
    says.send(WatchEvent::Interrupted(Error::new(ErrorKind::Unavailable, "a part is out of touch"))).unwrap();
    // Its snapshot is older than what the narrow watch shows, and it comes no further.
    backend.plan("worker/", Plan { eager: true, delay: Duration::from_secs(2), hold: true, ..Plan::default() });
    let _wide = handle.view_with::<Worker>(Query::all(), lazy()).await.unwrap();
    while backend.hooks.open.load(Ordering::SeqCst) < 2 {
        tokio::time::sleep(ms(1)).await;
    }
    let _mine = owner.register(worker("a", 1)).await.unwrap();
    assert!(changes.next().await.unwrap().freshness().is_live());
    let told = tokio::time::timeout(Duration::from_secs(3), changes.next()).await;
    assert!(!narrow.freshness().is_live(), "the wide watch was to be out of touch");
    assert!(told.is_ok_and(|batch| !batch.unwrap().freshness().is_live()), "the stream still takes it for live");
}

/// A shutdown at any moment of the move out of a wide watch that is refused.
#[tokio::test(start_paused = true)]
async fn views_that_leave_a_refused_watch_end_with_the_handle() {
    for turns in 0..40 {
        let backend = Scripted::new(&Cluster::new());
        let handle = backend.handle().await;
        backend.plan("worker/", Plan { hang: true, ..Plan::default() });
        let _wide = handle.view_with::<Worker>(Query::all(), lazy()).await.unwrap();
        let mut narrow = Vec::new();
        for pool in ["a", "b", "c"] {
            narrow.push(handle.view_with::<Worker>(q(pool), lazy()).await.unwrap());
        }
        tokio::time::sleep(ms(100)).await;
        let refusal = Error::new(ErrorKind::PermissionDenied, "no");
        let closing = tokio::spawn(async move {
            for _ in 0..turns {
                tokio::task::yield_now().await;
            }
            handle.shutdown(Duration::from_secs(5)).await
        });
        backend.plan("worker/", Plan { deny: Some(refusal), ..Plan::default() });
        closing.await.unwrap();
        for (n, view) in narrow.iter().enumerate() {
            let mut changes = view.changes();
            let ended =
                tokio::time::timeout(Duration::from_secs(10), async { while changes.next().await.is_some() {} });
            assert!(ended.await.is_ok(), "view {n}, shut down after {turns} turns, is pending for ever");
        }
    }
}

/// A stream that hears of its first state hears too that it is current, on whatever thread it is polled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_batch_of_a_watch_is_live() {
    const STREAMS: usize = 1_000;
    let backend = Scripted::new(&Cluster::new());
    let handle = backend.builder().executor(ExecutorKind::Dedicated).build().await.unwrap();
    backend.plan("worker/", Plan { hang: true, ..Plan::default() });
    let _wide = handle.view_with::<Worker>(Query::all(), lazy()).await.unwrap();
    let polled = Arc::new(AtomicUsize::new(0));
    let mut streams = tokio::task::JoinSet::new();
    for n in 0..STREAMS {
        let mut changes = handle.view_with::<Worker>(q(&format!("p{n}")), lazy()).await.unwrap().changes();
        let mut next = Box::pin(async move { changes.next().await.unwrap().freshness().as_str() });
        let (polled, mut first) = (Arc::clone(&polled), true);
        streams.spawn(std::future::poll_fn(move |context| {
            let answer = next.as_mut().poll(context);
            polled.fetch_add(usize::from(std::mem::take(&mut first)), Ordering::SeqCst);
            answer
        }));
    }
    // From here on each is polled only when it was woken.
    while polled.load(Ordering::SeqCst) < STREAMS {
        tokio::task::yield_now().await;
    }
    backend.plan("worker/", Plan::default());
    let told = streams.join_all().await;
    let syncing = told.iter().filter(|told| **told != "live").count();
    assert_eq!(syncing, 0, "of {STREAMS} streams");
}
