use super::*;

fn q(pool: &str) -> Query {
    Query::path([pool])
}

#[tokio::test(start_paused = true)]
async fn a_list_is_complete_while_a_wider_view_opens() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    let _mine = handle.register(worker("a", 1)).await.unwrap();
    let view = handle.view::<Worker>(q("a")).await.unwrap();
    assert_eq!(view.load().len(), 1);
    backend.plan("worker/", Plan { delay: Duration::from_secs(2), ..Plan::default() });
    *backend.hooks.barrier_delay.lock().unwrap() = ms(100);
    let (list, _wide) = tokio::join!(handle.list::<Worker>(q("a")), async {
        tokio::time::sleep(ms(10)).await;
        handle.view::<Worker>(Query::all()).await.unwrap()
    });
    assert_eq!(list.unwrap().len(), 1, "the record is there all the time");
}

#[tokio::test(start_paused = true)]
async fn a_denied_wide_view_leaves_the_narrow_ones_alone() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    let view = handle.view::<Worker>(q("a")).await.unwrap();
    backend.plan("worker/", Plan { deny: Some(Error::new(ErrorKind::PermissionDenied, "no")), ..Plan::default() });
    let error = handle.view::<Worker>(Query::all()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(view.freshness().is_live());
    let again = handle.view::<Worker>(q("a")).await;
    let listed = handle.list::<Worker>(q("a")).await;
    assert!(again.is_ok() && listed.is_ok(), "view: {:?}; list: {:?}", again.err(), listed.err());
}

#[tokio::test(start_paused = true)]
async fn a_denied_wide_view_leaves_no_watch_behind() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    let view = handle.view::<Worker>(q("a")).await.unwrap();
    backend.plan("worker/", Plan { deny: Some(Error::new(ErrorKind::PermissionDenied, "no")), ..Plan::default() });
    handle.view::<Worker>(Query::all()).await.unwrap_err();
    drop(view);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let before = backend.hooks.opened.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let after = backend.hooks.opened.load(Ordering::SeqCst);
    assert_eq!(backend.hooks.open.load(Ordering::SeqCst), 0, "no view is left, no watch should be");
    assert_eq!(before, after, "nobody needs the wide watch, and it is tried again for ever");
}

/// It opens the parent, which this identity may not read.
#[tokio::test(start_paused = true)]
async fn the_seventeenth_sibling_needs_no_permission_for_the_parent() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    backend.plan("worker/", Plan { deny: Some(Error::new(ErrorKind::PermissionDenied, "no")), ..Plan::default() });
    let mut views = Vec::new();
    for n in 0..17 {
        match handle.view::<Worker>(q(&format!("p{n}"))).await {
            Ok(view) => views.push(view),
            Err(error) => panic!("view {n}: {error}"),
        }
    }
}

/// It waits on a feed that is released meanwhile.
#[tokio::test(start_paused = true)]
async fn reached_answers_across_a_merge() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    let view = handle.view::<Worker>(q("a")).await.unwrap();
    tokio::time::sleep(ms(500)).await;
    backend.plan("worker/a/", Plan { hold: true, ..Plan::default() });
    let mine = handle.register(worker("a", 1)).await.unwrap();
    let stamp = mine.stamp();
    let (reached, wide) = tokio::join!(view.reached(&stamp), async {
        tokio::time::sleep(ms(10)).await;
        handle.view::<Worker>(Query::all()).await.unwrap()
    });
    assert_eq!((wide.load().len(), view.load().len()), (1, 1), "both show it");
    reached.unwrap();
}

/// The same for a list.
#[tokio::test(start_paused = true)]
async fn a_list_answers_across_a_merge() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    let view = handle.view::<Worker>(q("a")).await.unwrap();
    tokio::time::sleep(ms(500)).await;
    backend.plan("worker/a/", Plan { hold: true, ..Plan::default() });
    let _mine = handle.register(worker("a", 1)).await.unwrap();
    let (listed, wide) = tokio::join!(handle.list::<Worker>(q("a")), async {
        tokio::time::sleep(ms(10)).await;
        handle.view::<Worker>(Query::all()).await.unwrap()
    });
    assert_eq!((wide.load().len(), view.load().len()), (1, 1), "both show it");
    assert_eq!(listed.unwrap().len(), 1);
}

/// Without a barrier, a list wants a snapshot of its own; the one that is under way is for those before it.
#[tokio::test(start_paused = true)]
async fn lists_that_keep_coming_share_snapshots() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    let _mine = handle.register(worker("a", 1)).await.unwrap();
    let _view = handle.view::<Worker>(Query::all()).await.unwrap();
    *backend.hooks.no_barrier.lock().unwrap() = true;
    backend.plan("worker/", Plan { delay: ms(50), ..Plan::default() });
    let mut lists = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let handle = handle.clone();
        lists.spawn(async move { handle.list::<Worker>(Query::all()).await.map(|list| list.len()) });
        tokio::time::sleep(ms(40)).await;
    }
    let mut failed = 0;
    while let Some(list) = lists.join_next().await {
        failed += usize::from(list.unwrap().is_err());
    }
    assert_eq!(failed, 0, "of 500 lists, one each 40 ms, where a snapshot takes 50 ms");
}

/// The narrow watch was further than the wide one ever comes.
#[tokio::test(start_paused = true)]
async fn an_adopted_view_goes_on_after_data_loss() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    let other = Scripted::new(&cluster);
    let owner = other.handle().await;
    for n in 0..30 {
        let _ = owner.register(worker("a", n)).await.unwrap();
    }
    let view = handle.view::<Worker>(q("a")).await.unwrap();
    tokio::time::sleep(ms(500)).await;
    *backend.hooks.by_revision.lock().unwrap() = true;
    // The narrow watch is out of touch; the store loses its data; a wider view is opened.
    backend.plan("worker/a/", Plan { hold: true, ..Plan::default() });
    cluster.lose_data();
    let _wide = handle.view::<Worker>(Query::all()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let kept = owner.register(worker("a", 777)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(kept.state().is_registered());
    assert!(view.freshness().is_live());
    let shown: Vec<_> = view.load().iter().map(|w| w.load).collect();
    assert_eq!(shown, [777], "live, and a minute behind");
}

/// ORD 8: a list, then a load of a view whose narrow feed is being merged.
#[tokio::test(start_paused = true)]
async fn a_load_after_a_list_never_goes_back_during_a_merge() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    let owner = Scripted::new(&cluster).handle().await;
    let mut views = Vec::new();
    for n in 0..10 {
        views.push(handle.view::<Worker>(q(&format!("p{n}"))).await.unwrap());
        tokio::time::sleep(ms(500)).await;
        backend.plan(&format!("worker/p{n}/"), Plan { hold: true, ..Plan::default() });
    }
    backend.plan("worker/", Plan { delay: ms(100), ..Plan::default() });
    let lazy = handle.view_with::<Worker>(Query::all(), ViewOptions::default().lazy()).await.unwrap();
    let _x = owner.register(worker("p9", 1)).await.unwrap();
    // In a task of its own: the runtime polls the test's own future once in 61 polls only.
    let (listed, loaded) = tokio::spawn(async move {
        let listed = handle.list::<Worker>(q("p9")).await.unwrap().len();
        (listed, views[9].load().len())
    })
    .await
    .unwrap();
    drop(lazy);
    assert!(loaded >= listed, "the list had {listed}, the load after it {loaded}");
}

/// FLT 14: the last good value for a later, wider view.
#[tokio::test(start_paused = true)]
async fn a_wider_view_shows_the_last_good_value_too() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    let key = Key::new(Path::new("worker", ["a"]).unwrap(), InstanceId(1));
    cluster.inject(&key, &b"{\"pool\":\"a\",\"load\":1}"[..]);
    let view = handle.view::<Worker>(q("a")).await.unwrap();
    cluster.inject(&key, &b"garbage"[..]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(view.load().len(), 1);
    let wide = handle.view::<Worker>(Query::all()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!((view.load().len(), wide.load().len()), (1, 1));
}

/// CON 7.
#[tokio::test(start_paused = true)]
async fn never_more_watches_than_allowed() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    *backend.hooks.max_watches.lock().unwrap() = 2;
    for scope in ["worker/", "", "other/"] {
        backend.plan(scope, Plan { delay: Duration::from_secs(1), ..Plan::default() });
    }
    let handle = backend.handle().await;
    let lazy = || ViewOptions::default().lazy();
    let mut views = vec![handle.entries(Query::kind("worker").segment("a"), lazy()).await.unwrap()];
    views[0].synced(Duration::from_secs(1)).await.unwrap();
    views.push(handle.entries(Query::kind("worker").segment("b"), lazy()).await.unwrap());
    views.push(handle.entries(Query::kind("other").segment("c"), lazy()).await.unwrap());
    for view in &views {
        view.synced(Duration::from_secs(20)).await.unwrap();
    }
    assert!(backend.hooks.most.load(Ordering::SeqCst) <= 2, "{} watches", backend.hooks.most.load(Ordering::SeqCst));
}

/// The wide feed of a merge is itself merged before it has synced.
#[tokio::test(start_paused = true)]
async fn a_merge_of_a_merge_ends_in_one_watch() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    let a = handle.view::<Worker>(q("a")).await.unwrap();
    backend.plan("worker/", Plan { hang: true, ..Plan::default() });
    let kind = handle.view_with::<Worker>(Query::all(), ViewOptions::default().lazy()).await.unwrap();
    let all = handle.entries(Query::all(), ViewOptions::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(kind.freshness().is_live());
    let with_views = backend.hooks.open.load(Ordering::SeqCst);
    drop((a, kind, all));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let without = backend.hooks.open.load(Ordering::SeqCst);
    assert_eq!((with_views, without), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_view_is_stale_after_shutdown() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    let view = handle.view::<Worker>(Query::all()).await.unwrap();
    handle.shutdown(Duration::from_secs(5)).await;
    assert!(view.ended().is_some());
    assert!(!view.freshness().is_live(), "nobody keeps it current any more");
}

#[tokio::test(start_paused = true)]
async fn a_grace_may_be_endless() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.builder().resync_grace(Duration::MAX).build().await.unwrap();
    handle.view::<Worker>(Query::all()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_list_on_a_refused_feed_is_typed() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    backend.plan("worker/", Plan { deny: Some(Error::new(ErrorKind::Unsupported, "no")), ..Plan::default() });
    let handle = backend.handle().await;
    let _lazy = handle.view_with::<Worker>(Query::all(), ViewOptions::default().lazy()).await.unwrap();
    tokio::time::sleep(ms(500)).await;
    match handle.list::<Worker>(Query::all()).await {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}"),
    }
}

#[tokio::test(start_paused = true)]
async fn close_comes_after_the_last_watch_and_once() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    let _view = handle.view::<Worker>(Query::all()).await.unwrap();
    handle.shutdown(Duration::from_secs(5)).await;
    handle.shutdown(Duration::from_secs(5)).await;
    let closes = backend.hooks.closes.lock().unwrap().clone();
    assert_eq!(closes, [0], "open watches at each close");
}

#[test]
fn shutdown_needs_no_runtime() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    futures_executor_block_on(async {
        let handle = backend.builder().executor(ExecutorKind::Dedicated).build().await.unwrap();
        handle.shutdown(Duration::from_secs(5)).await;
    });
}

pub(crate) fn futures_executor_block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

/// FLT 13: each opening answers a snapshot, a sign of life and an error.
#[tokio::test(start_paused = true)]
async fn a_flapping_watch_is_asked_less_and_less_often() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    backend.plan("worker/", Plan { flap: true, ..Plan::default() });
    let handle = backend.handle().await;
    let _view = handle.view_with::<Worker>(Query::all(), ViewOptions::default().lazy()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let opened = backend.hooks.opened.load(Ordering::SeqCst);
    assert!(opened < 300, "{opened} openings in a minute, the cap is one in 500 ms");
}

/// WAT 3: silence is not emptiness.
#[tokio::test(start_paused = true)]
async fn a_sign_of_life_before_the_snapshot_is_no_empty_set() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    let _mine = handle.register(worker("a", 1)).await.unwrap();
    backend.plan("worker/", Plan { early: true, ..Plan::default() });
    let _lazy = handle.view_with::<Worker>(Query::all(), ViewOptions::default().lazy()).await.unwrap();
    tokio::time::sleep(ms(100)).await;
    let view = handle.view_with::<Worker>(q("a"), ViewOptions::default()).await;
    if let Ok(view) = view {
        assert_eq!(view.load().len(), 1, "{:?} and empty", view.freshness());
    }
}

#[tokio::test(start_paused = true)]
async fn reached_answers_once_the_adopted_view_shows_it() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    let owner = Scripted::new(&cluster).handle().await;
    let path = Path::new("worker", ["a"]).unwrap();
    for n in 1..20_000 {
        cluster.inject(&Key::new(path.clone(), InstanceId(n)), &b"{\"pool\":\"a\",\"load\":1}"[..]);
    }
    let view = handle.view::<Worker>(q("a")).await.unwrap();
    tokio::time::sleep(ms(500)).await;
    backend.plan("worker/a/", Plan { hold: true, ..Plan::default() });
    let mine = owner.register(worker("a", 2)).await.unwrap();
    let stamp = mine.stamp();
    let _lazy = handle.view_with::<Worker>(Query::all(), ViewOptions::default().lazy()).await.unwrap();
    for _ in 0..10_000 {
        let mut reached = Box::pin(view.reached(&stamp));
        for _ in 0..20 {
            if let std::task::Poll::Ready(outcome) = futures_util::poll!(&mut reached) {
                outcome.unwrap();
                assert!(view.load().get(mine.key()).is_some(), "reached, and not shown");
                return;
            }
            tokio::task::yield_now().await;
        }
    }
    panic!("never reached");
}

/// A record that was gone in a snapshot comes back undecodable: the value of the dead one must not be shown.
#[tokio::test(start_paused = true)]
async fn a_last_good_value_goes_with_its_record() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    backend.plan("worker/", Plan { flat: true, ..Plan::default() });
    let handle = backend.handle().await;
    let key = Key::new(Path::new("worker", ["a"]).unwrap(), InstanceId(1));
    cluster.inject(&key, &b"{\"pool\":\"a\",\"load\":1}"[..]);
    let view = handle.view::<Worker>(Query::all()).await.unwrap();
    cluster.inject(&key, &b"garbage"[..]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(view.load().len(), 1, "last good");
    backend.inner.link().cut();
    tokio::time::sleep(Duration::from_secs(1)).await;
    cluster.delete(&key);
    cluster.compact();
    backend.inner.link().heal();
    view.synced(Duration::from_secs(5)).await.unwrap();
    assert_eq!(view.load().len(), 0, "gone");
    cluster.inject(&key, &b"other garbage"[..]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(
        view.load().len(),
        0,
        "a new record that nobody can read: {:?}",
        view.load().nth(0).map(|w| w.value().clone())
    );
}

/// They joined the wide watch while nobody knew that it would be refused.
#[tokio::test(start_paused = true)]
async fn a_narrow_view_leaves_a_wide_watch_that_is_refused() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    let handle = backend.handle().await;
    for error in [ErrorKind::PermissionDenied, ErrorKind::Unsupported] {
        backend.plan("worker/", Plan { hang: true, ..Plan::default() });
        let wide = handle.view_with::<Worker>(Query::all(), ViewOptions::default().lazy()).await.unwrap();
        let narrow = handle.view_with::<Worker>(q("a"), ViewOptions::default().lazy()).await.unwrap();
        tokio::time::sleep(ms(100)).await;
        backend.plan("worker/", Plan { deny: Some(Error::new(error, "no")), ..Plan::default() });
        narrow.synced(Duration::from_secs(5)).await.unwrap();
        assert!(narrow.ended().is_none() && !wide.freshness().is_live());
        let listed = handle.list::<Worker>(q("a")).await.unwrap();
        assert!(listed.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_panics_is_opened_again() {
    let cluster = Cluster::new();
    let backend = Scripted::new(&cluster);
    backend.plan("worker/", Plan { panic: true, ..Plan::default() });
    let handle = backend.handle().await;
    let _mine = handle.register(worker("a", 1)).await.unwrap();
    let failed = handle.view_with::<Worker>(Query::all(), ViewOptions::default().fail_fast()).await.unwrap_err();
    assert_eq!(failed.kind(), ErrorKind::Internal);
    let view = handle.view_with::<Worker>(Query::all(), ViewOptions::default().lazy()).await.unwrap();
    backend.plan("worker/", Plan::default());
    view.synced(Duration::from_secs(30)).await.unwrap();
    assert_eq!(view.load().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_key_of_another_kind_is_an_invalid_query() {
    let cluster = Cluster::new();
    let handle = Scripted::new(&cluster).handle().await;
    let key = Key::new(Path::new("other", ["a"]).unwrap(), InstanceId(1));
    assert_eq!(handle.get::<Worker>(&key).await.unwrap_err().kind(), ErrorKind::InvalidQuery);
}

#[tokio::test(start_paused = true)]
async fn a_resumed_watch_is_live_once_it_has_what_it_missed() {
    let cluster = Cluster::new();
    let scripted = Scripted::new(&cluster);
    let (reader, writer) = (scripted.handle().await, Scripted::new(&cluster).handle().await);
    let held = writer.register(worker("a", 1)).await.unwrap();
    let view = reader.view::<Worker>(q("a")).await.unwrap();
    scripted.inner.link().cut();
    while view.freshness().is_live() {
        tokio::time::sleep(ms(10)).await;
    }
    held.update(worker("a", 2)).await.unwrap();
    // The watch resumes, and what it missed is on its way.
    scripted.plan("worker/a/", Plan { hold: true, ..Plan::default() });
    scripted.inner.link().heal();
    let joining =
        tokio::spawn(async move { reader.view::<Worker>(q("a")).await.unwrap().load().iter().next().unwrap().load });
    tokio::time::sleep(ms(3_000)).await;
    assert!(
        !view.freshness().is_live(),
        "live, and {:?} is shown",
        view.load().iter().next().map(|worker| worker.load)
    );
    scripted.plan("worker/a/", Plan::default());
    assert_eq!(joining.await.unwrap(), 2, "who joined saw a state from before the gap");
    assert!(view.freshness().is_live());
}

/// A store of several parts, of which one is out of touch and the others go on.
#[tokio::test(start_paused = true)]
async fn an_interrupted_watch_is_stale_whatever_else_it_says() {
    let cluster = Cluster::new();
    let scripted = Scripted::new(&cluster);
    let (says, heard) = tokio::sync::mpsc::unbounded_channel();
    *scripted.hooks.says.lock().unwrap() = Some(heard);
    let (reader, writer) = (scripted.handle().await, Scripted::new(&cluster).handle().await);
    let view = reader.view::<Worker>(q("a")).await.unwrap();
    let cause = || Error::new(ErrorKind::PermissionDenied, "a part is out of touch");
    let say = async |event| {
        says.send(event).unwrap();
        tokio::time::sleep(ms(1)).await;
    };
    let stale =
        || matches!(view.freshness(), Freshness::Stale { cause, .. } if cause.kind() == ErrorKind::PermissionDenied);
    say(WatchEvent::Interrupted(cause())).await;
    assert!(stale());
    let held = writer.register(worker("a", 1)).await.unwrap();
    view.reached(&held.stamp()).await.unwrap();
    assert_eq!(view.load().len(), 1, "what the others say is shown");
    assert!(stale(), "a change of another part made it {:?}", view.freshness());
    let (entries, position) = scripted.inner.list(&Scope::all()).await.unwrap();
    say(WatchEvent::Progress(position.clone())).await;
    assert!(stale(), "a sign of life of another part made it {:?}", view.freshness());
    say(WatchEvent::Recovered).await;
    assert!(view.freshness().is_live());

    // A whole snapshot that began later says as much as `Recovered`.
    let [start, chunk, end] = WatchEvent::snapshot(Lineage::Same, entries, position);
    say(WatchEvent::Interrupted(cause())).await;
    for event in [start.clone(), chunk.clone()] {
        say(event).await;
        assert!(stale());
    }
    say(end.clone()).await;
    assert!(view.freshness().is_live());
    // One that was interrupted itself does not.
    for event in [start, WatchEvent::Interrupted(cause()), chunk, end] {
        say(event).await;
    }
    assert!(stale());
    say(WatchEvent::Recovered).await;
    assert!(view.freshness().is_live());
}

/// So a view's first state may be stale already.
#[tokio::test(start_paused = true)]
async fn a_watch_that_is_interrupted_in_its_first_snapshot_begins_stale() {
    let cluster = Cluster::new();
    let scripted = Scripted::new(&cluster);
    let (says, heard) = tokio::sync::mpsc::unbounded_channel();
    *scripted.hooks.says.lock().unwrap() = Some(heard);
    says.send(WatchEvent::Interrupted(Error::new(ErrorKind::Unavailable, "a part is out of touch"))).unwrap();
    let reader = scripted.handle().await;
    let lazy = reader.view_with::<Worker>(q("a"), ViewOptions::default().lazy()).await.unwrap();
    tokio::time::sleep(ms(1)).await;
    assert!(matches!(lazy.freshness(), Freshness::Stale { .. }), "it is {:?}", lazy.freshness());
    says.send(WatchEvent::Recovered).unwrap();
    lazy.synced(ms(10)).await.unwrap();
}
