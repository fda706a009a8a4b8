//! Reads that a handle answers while its store hiccups or the handle ends.
use super::*;

/// "How long registering, listing and the like may take, retries included."
#[tokio::test(start_paused = true)]
async fn a_temporary_failure_of_a_read_is_tried_again() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.builder().operation_timeout(Duration::from_secs(2)).build().await.unwrap();
    let mine = handle.register(worker("a", 1)).await.unwrap();
    let hiccup = || Some(Error::new(ErrorKind::Unavailable, "hiccup"));
    let heal = async || {
        tokio::time::sleep(ms(300)).await;
        *backend.hooks.list_fails.lock().unwrap() = None;
        *backend.hooks.barrier_fails.lock().unwrap() = None;
    };
    *backend.hooks.list_fails.lock().unwrap() = hiccup();
    let (listed, ()) = tokio::join!(handle.list::<Worker>(Query::all()), heal());
    assert_eq!(listed.unwrap().len(), 1, "read from the store");
    let view = handle.view::<Worker>(Query::all()).await.unwrap();
    *backend.hooks.barrier_fails.lock().unwrap() = hiccup();
    let (listed, ()) = tokio::join!(handle.list::<Worker>(Query::all()), heal());
    assert_eq!(listed.unwrap().len(), 1, "read from a view's watch");
    for stamp in [Stamp::unordered(), mine.stamp()] {
        *backend.hooks.barrier_fails.lock().unwrap() = hiccup();
        let (reached, ()) = tokio::join!(view.reached(&stamp), heal());
        reached.unwrap();
    }
    // An outage that lasts is told as what it is, and what waiting cannot mend at once.
    for (kind, within) in [(ErrorKind::Unavailable, ms(2_000)), (ErrorKind::PermissionDenied, ms(10))] {
        *backend.hooks.barrier_fails.lock().unwrap() = Some(Error::new(kind, "still"));
        let start = Instant::now();
        assert_eq!(handle.list::<Worker>(Query::all()).await.unwrap_err().kind(), kind);
        assert_eq!(view.reached(&Stamp::unordered()).await.unwrap_err().kind(), kind);
        assert!(start.elapsed() <= within * 2, "{kind} after {:?}", start.elapsed());
    }
}

/// Such a consumer has no runtime of its own, and the store has something to wait for.
#[test]
fn a_history_is_read_from_any_runtime() {
    let cluster = Cluster::new();
    let backend = cluster.connect();
    reading::futures_executor_block_on(async {
        let handle = Discovery::builder().with_backend(Arc::new(backend)).build().await.unwrap();
        let _mine = handle.register(worker("a", 1)).await.unwrap();
        let token = handle.change_token().await.unwrap();
        let mut changes = handle.changes_since(Query::all(), &token).await.unwrap();
        let (committed, registered) = futures_util::future::join(changes.next(), handle.register(worker("b", 1))).await;
        assert_eq!(committed.unwrap().unwrap().changes.len(), 1);
        registered.unwrap();
    });
}

/// Also one that nobody polls.
#[tokio::test(start_paused = true)]
async fn a_history_ends_with_its_handle() {
    let cluster = Cluster::new();
    let handle = writing::handle_on(&cluster.connect()).await;
    let token = handle.change_token().await.unwrap();
    let mut polled = handle.changes_since(Query::all(), &token).await.unwrap();
    let _idle = handle.changes_since(Query::all(), &token).await.unwrap();
    let waiting = tokio::spawn(async move { polled.next().await });
    tokio::time::sleep(ms(100)).await;
    assert_eq!(cluster.counters().open_change_logs, 2);
    let report = handle.shutdown(Duration::from_secs(5)).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(cluster.counters().open_change_logs, 0);
    assert!(waiting.await.unwrap().is_none());
}

/// The stream is made from the handle, which lives as long.
#[tokio::test(start_paused = true)]
async fn a_history_keeps_its_handle_and_is_read_as_it_is_polled() {
    let cluster = Cluster::new();
    let handle = writing::handle_on(&cluster.connect()).await;
    let token = handle.change_token().await.unwrap();
    let mut changes = handle.changes_since(Query::all(), &token).await.unwrap();
    drop(handle);
    let key = |n| Key::new(Path::new("worker", ["a"]).unwrap(), InstanceId(n));
    for n in 0..5 {
        cluster.inject(&key(n), &b"{}"[..]);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    // What it has not read when history goes is lost, and it says so.
    cluster.compact();
    let mut read = 0;
    let error = loop {
        match changes.next().await.expect("no end without a word") {
            Ok(_) => read += 1,
            Err(error) => break error,
        }
    };
    assert!(read <= 1 && error.kind() == ErrorKind::Expired, "{read} read ahead, then {error}");
    assert!(changes.next().await.is_none());
    drop(changes);
    let gone = cluster.wait_until(|cluster| cluster.counters().open_change_logs == 0);
    tokio::time::timeout(Duration::from_secs(1), gone).await.unwrap();
}

/// Waiting mends no setting.
#[tokio::test(start_paused = true)]
async fn a_view_on_a_store_that_is_set_up_wrongly_fails_at_once_and_a_live_one_stays() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    let live = handle.view::<Worker>(Query::all().segment("a")).await.unwrap();
    let wrong = Error::new(ErrorKind::InvalidConfig, "a file stands there");
    backend.plan("worker/", Plan { deny: Some(wrong), ..Plan::default() });
    let start = Instant::now();
    let error = handle.view::<Worker>(Query::all()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
    assert!(start.elapsed() < ms(1_000), "after {:?}", start.elapsed());
    assert!(live.freshness().is_live());
}
