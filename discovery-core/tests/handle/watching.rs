//! Views and streams.

use std::time::Duration;

use bytes::Bytes;
use discovery_core::{ErrorKind, Freshness, Key, Path, Query, ViewChange, ViewOptions};
use discovery_memory::Cluster;

use crate::{Worker, builder, handle, worker};

fn key(pool: &str, instance: u64) -> Key {
    Key::new(Path::new("worker", [pool]).expect("a path"), discovery_core::InstanceId(instance))
}

#[tokio::test(start_paused = true)]
async fn predicates_turn_updates_into_arrivals_and_departures() {
    let cluster = Cluster::new();
    let owner = handle(&cluster.connect()).await;
    let view = owner.view::<Worker>(Query::all()).await.expect("a view");
    let idle = view.filter(|worker| worker.load < 10);
    let mut changes = idle.changes();
    changes.next().await.expect("the first batch");
    let mine = owner.register(worker("a", 1)).await.expect("registered");
    assert!(matches!(changes.next().await.expect("a batch").changes(), [ViewChange::Added(_)]));
    mine.update(worker("a", 50)).await.expect("updated");
    assert!(matches!(changes.next().await.expect("a batch").changes(), [ViewChange::Removed(w)] if w.load == 1));
    assert!(idle.load().is_empty() && view.load().len() == 1);
    mine.update(worker("a", 60)).await.expect("updated");
    mine.update(worker("a", 2)).await.expect("updated");
    assert!(matches!(changes.next().await.expect("a batch").changes(), [ViewChange::Added(w)] if w.load == 2));
    let own = owner.view::<Worker>(Query::all().instance(mine.instance())).await.expect("a view");
    assert_eq!(own.load().len(), 1);
    let others = owner.view::<Worker>(Query::all().instance(discovery_core::InstanceId(1))).await.expect("a view");
    assert_eq!(others.load().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_reader_shows_what_the_view_shows() {
    let cluster = Cluster::new();
    let owner = handle(&cluster.connect()).await;
    let view = owner.view::<Worker>(Query::all()).await.expect("a view");
    let (mut all, mut idle) = (view.reader(), view.filter(|worker| worker.load < 10).reader());
    assert!(all.load().is_empty());
    let mine = owner.register(worker("a", 1)).await.expect("registered");
    for load in [1, 50, 60, 2] {
        let stamp = mine.update(worker("a", load)).await.expect("updated");
        view.reached(&stamp).await.expect("reached");
        assert_eq!(all.load().version(), view.load().version());
        assert_eq!(all.load().nth(0).expect("the worker").load, load);
        assert_eq!(idle.load().len(), usize::from(load < 10));
    }
    let kept = all.load().clone();
    let stamp = mine.update(worker("a", 3)).await.expect("updated");
    view.reached(&stamp).await.expect("reached");
    assert_eq!((kept.nth(0).expect("the old one").load, all.load().nth(0).expect("the new one").load), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_sleeps_wakes_to_the_newest_state_and_a_bounded_one_to_a_reset() {
    let cluster = Cluster::new();
    let owner = handle(&cluster.connect()).await;
    let view = owner.view::<Worker>(Query::all()).await.expect("a view");
    let mut patient = view.changes();
    let mut bounded = view.changes_bounded(100);
    patient.next().await.expect("the first batch");
    bounded.next().await.expect("the first batch");
    let mine = owner.register(worker("a", 0)).await.expect("registered");
    let mut stamp = mine.stamp();
    for load in 1..500 {
        stamp = mine.update(worker("a", load)).await.expect("updated");
    }
    view.reached(&stamp).await.expect("reached");
    let batch = patient.next().await.expect("a batch");
    assert!(matches!(batch.changes(), [ViewChange::Added(w)] if w.load == 499) && !batch.is_reset(), "{batch:?}");
    let batch = bounded.next().await.expect("a batch");
    assert!(matches!(batch.changes(), [ViewChange::Added(w)] if w.load == 499) && batch.is_reset(), "{batch:?}");
}

#[tokio::test(start_paused = true)]
async fn an_undecodable_update_keeps_the_last_good_value_for_later_views_too() {
    let cluster = Cluster::new();
    let watcher = handle(&cluster.connect()).await;
    cluster.inject(&key("a", 7), Bytes::from_static(br#"{"pool":"a","load":1}"#));
    cluster.inject(&key("b", 7), Bytes::from_static(b"no json at all"));
    let view = watcher.view::<Worker>(Query::all()).await.expect("a view");
    assert_eq!(view.load().len(), 1);
    assert_eq!(view.undecodable().len(), 1);
    let mut changes = view.changes();
    changes.next().await.expect("the first batch");
    cluster.inject(&key("a", 7), Bytes::from_static(br#"{"pool":"a","load":"many"}"#));
    cluster.inject(&key("c", 7), Bytes::from_static(br#"{"pool":"c","load":3}"#));
    let batch = changes.next().await.expect("a batch");
    assert!(matches!(batch.changes(), [ViewChange::Added(w)] if w.pool == "c"), "{batch:?}");
    assert_eq!(view.load().get(&key("a", 7)).expect("the last good value").load, 1);
    let told = view.undecodable();
    assert!(told.iter().any(|one| one.key == key("a", 7) && one.last_good_shown), "{told:?}");
    let later = watcher.view::<Worker>(Query::path(["a"])).await.expect("a later view");
    assert_eq!(later.load().get(&key("a", 7)).expect("the last good value").load, 1);
    cluster.inject(&key("a", 7), Bytes::from_static(br#"{"pool":"a","load":2}"#));
    let batch = changes.next().await.expect("a batch");
    assert!(matches!(batch.changes(), [ViewChange::Updated { new, .. }] if new.load == 2), "{batch:?}");
    let raw = watcher.entries(Query::kind("worker"), ViewOptions::default()).await.expect("undecoded records");
    assert_eq!(raw.load().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_lost_store_is_hidden_for_the_grace_that_was_asked_for() {
    let cluster = Cluster::new();
    let owner = handle(&cluster.connect()).await;
    let watcher = builder(&cluster.connect()).resync_grace(Duration::from_secs(30)).build().await.expect("a handle");
    let plain = handle(&cluster.connect()).await;
    let mine = owner.register(worker("a", 1)).await.expect("registered");
    cluster.inject(&key("never-back", 7), Bytes::from_static(br#"{"pool":"never-back","load":1}"#));
    let view = watcher.view::<Worker>(Query::all()).await.expect("a view");
    let exposed = plain.view::<Worker>(Query::all()).await.expect("a view");
    let (mut sheltered, mut open) = (view.changes(), exposed.changes());
    assert_eq!(sheltered.next().await.expect("the first batch").changes().len(), 2);
    open.next().await.expect("the first batch");
    cluster.lose_data();
    let batch = open.next().await.expect("a batch");
    assert_eq!(batch.changes().len(), 2, "without grace they are seen to leave");
    assert_eq!(view.load().len(), 2, "with grace they are not");
    mine.wait_for(|state| !state.is_registered()).await;
    mine.wait_for(|state| state.is_registered()).await;
    let batch = sheltered.next().await.expect("the one that nobody put back");
    assert!(matches!(batch.changes(), [ViewChange::Removed(w)] if w.pool == "never-back"), "{batch:?}");
    assert_eq!(view.load().len(), 1);
    mine.update(worker("a", 2)).await.expect("updated");
    let batch = sheltered.next().await.expect("a batch");
    assert!(matches!(batch.changes(), [ViewChange::Updated { .. }]), "the same incarnation: {batch:?}");
}

#[tokio::test(start_paused = true)]
async fn opening_with_the_store_down_is_the_callers_choice() {
    let cluster = Cluster::new();
    let watcher = handle(&cluster.connect()).await;
    cluster.outage();
    let fast = watcher.view_with::<Worker>(Query::all(), ViewOptions::default().fail_fast()).await;
    assert_eq!(fast.expect_err("fails fast").kind(), ErrorKind::Unavailable);
    let patient =
        watcher.view_with::<Worker>(Query::all(), ViewOptions::default().deadline(Duration::from_secs(2))).await;
    let error = patient.expect_err("not in time");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    let lazy = watcher.view_with::<Worker>(Query::all(), ViewOptions::default().lazy()).await.expect("a lazy view");
    assert!(matches!(lazy.freshness(), Freshness::Syncing) && !lazy.load().is_synced());
    cluster.restore();
    lazy.synced(Duration::from_secs(10)).await.expect("live");
    assert!(lazy.load().is_synced() && lazy.freshness().is_live());
    cluster.outage();
    while !matches!(lazy.freshness(), Freshness::Stale { .. }) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let stale = watcher.view_with::<Worker>(Query::all(), ViewOptions::default().allow_stale()).await;
    assert!(stale.expect("a stale set is a set").load().is_synced());
    let wrong = watcher.view::<Worker>(Query::kind("endpoint")).await;
    assert_eq!(wrong.expect_err("another kind").kind(), ErrorKind::InvalidQuery);
}

#[tokio::test(start_paused = true)]
async fn views_come_and_go_without_leaving_watches() {
    let cluster = Cluster::new();
    let backend = cluster.connect();
    let owner = handle(&backend).await;
    for round in 0..200 {
        let views =
            tokio::join!(owner.view::<Worker>(Query::all()), owner.view::<Worker>(Query::path([format!("p{round}")])));
        assert!(views.0.is_ok() && views.1.is_ok());
    }
    let limit = tokio::time::Instant::now() + Duration::from_secs(5);
    while cluster.counters().open_watches > 0 {
        assert!(tokio::time::Instant::now() < limit, "{:?}", cluster.counters());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[cfg(feature = "tower")]
#[tokio::test(start_paused = true)]
async fn a_tower_balancer_follows_a_view() {
    use futures_util::StreamExt;
    use tower::discover::Change;

    let cluster = Cluster::new();
    let owner = handle(&cluster.connect()).await;
    let mine = owner.register(worker("a", 1)).await.expect("registered");
    let view = owner.view::<Worker>(Query::all()).await.expect("a view");
    let mut discover = view.discover(|record| record.load);
    assert!(matches!(discover.next().await, Some(Ok(Change::Insert(key, 1))) if key == *mine.key()));
    mine.update(worker("a", 2)).await.expect("updated");
    assert!(matches!(discover.next().await, Some(Ok(Change::Insert(key, 2))) if key == *mine.key()));
    mine.deregister().await.expect("deregistered");
    assert!(matches!(discover.next().await, Some(Ok(Change::Remove(key))) if key == *mine.key()));

    let service = |record: &discovery_core::Registered<Worker>| {
        let load = record.load;
        tower::service_fn(move |(): ()| async move { Ok::<_, std::convert::Infallible>(load) })
    };
    let _mine = owner.register(worker("b", 9)).await.expect("registered");
    let with_load = view.discover(move |record| tower::load::Constant::new(service(record), 1));
    let balancer = tower::balance::p2c::Balance::new(with_load);
    assert_eq!(tower::ServiceExt::oneshot(balancer, ()).await.expect("routed"), 9);
}
