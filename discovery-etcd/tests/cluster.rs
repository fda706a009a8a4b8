//! Three members, of which some fail.

mod common;

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::*;
use discovery_core::backend::{Backend, Change, Desired, Registrar, SessionRequest, Watcher};
use discovery_core::{Discovery, Key, Query, View, ViewChange, ViewOptions};
use discovery_testbed::{Etcd, EtcdCluster, Network};
use futures_util::future::join_all;

/// Follows `scope` through failures until `wanted`, as the core does, and answers everything that was removed meanwhile.
async fn follow(backend: &discovery_etcd::EtcdBackend, fold: &mut Fold, wanted: impl Fn(&Fold) -> bool) -> Vec<Change> {
    let mut removed = Vec::new();
    within("the watch to go on", async {
        while !wanted(fold) {
            let seen = fold.batches.len();
            if fold.step().await.is_err() {
                while !fold.reopen(backend, &endpoints()).await {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            let new = fold.batches.iter().skip(seen).flatten();
            removed.extend(new.filter(|change| matches!(change, Change::Delete(_))).cloned());
        }
    })
    .await;
    removed
}

#[tokio::test]
async fn the_loss_of_the_leader_removes_nobody_and_the_watch_goes_on() {
    let cluster = EtcdCluster::start().await.unwrap();
    let (owner, reader) = (backend(&cluster.endpoints()).await, backend(&cluster.endpoints()).await);
    assert!(owner.capabilities().cluster);
    let session = owner.open(&SessionRequest::new(Some(Duration::from_secs(20)), None)).await.unwrap();
    put(&*session, &key(1), "1").await.unwrap();
    let mut fold = Fold::open(&reader, &endpoints(), None).await;

    // Handed over, then killed, wherever the clients are.
    let leader = cluster.leader().await.unwrap();
    cluster.move_leader((leader + 1) % 3).await.unwrap();
    put(&*session, &key(1), "2").await.unwrap();
    let removed = follow(&reader, &mut fold, |fold| fold.values().get(&key(1)).is_some_and(|value| value == "2")).await;
    assert!(removed.is_empty(), "{removed:?}");

    let leader = cluster.leader().await.unwrap();
    cluster.members()[leader].kill().await.unwrap();
    let start = Instant::now();
    until("a renewal", || async { session.renew().await.is_ok() }).await;
    until("a write", || async { put(&*session, &key(1), "3").await.is_ok() }).await;
    let written = start.elapsed();
    let removed = follow(&reader, &mut fold, |fold| fold.values().get(&key(1)).is_some_and(|value| value == "3")).await;
    assert!(removed.is_empty(), "{removed:?}");
    assert!(written < Duration::from_secs(20), "{written:?}");
    assert_eq!(listed(&reader, &endpoints()).await, desired([(key(1), "3")]));
    cluster.launch().unwrap();
    cluster.wait().await.unwrap();
}

#[tokio::test]
async fn a_member_without_a_majority_is_left_and_found_again() {
    let cluster = EtcdCluster::start().await.unwrap();
    let backend = backend(&cluster.endpoints()).await;
    let session = session(&backend).await;
    put(&*session, &key(1), "1").await.unwrap();
    let mut folds = Vec::new();
    for member in cluster.members() {
        let reader = common::backend(&member.endpoint()).await;
        let fold = Fold::open(&reader, &endpoints(), None).await;
        folds.push((reader, fold));
    }
    for member in &cluster.members()[1..] {
        member.pause().unwrap();
    }
    // One member answers, and knows no more than before: no watch of it may claim to be in step.
    let start = Instant::now();
    let failures = join_all(folds.iter_mut().map(async |(reader, fold)| {
        let error = fold.failure("the majority to be missed").await;
        assert!(error.is_temporary(), "{error}");
        assert!(start.elapsed() < reader.bounds().recovery, "{:?}: {error}", start.elapsed());
    }));
    failures.await;
    assert!(backend.list(&endpoints()).await.is_err());
    for member in &cluster.members()[1..] {
        member.resume().unwrap();
    }
    until("the cluster to answer", || async { backend.list(&endpoints()).await.is_ok() }).await;
    for (reader, fold) in &mut folds {
        within("the watch to go on", async {
            while !fold.reopen(reader, &endpoints()).await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
    }
}

fn what<T>(change: &ViewChange<T>) -> &'static str {
    match change {
        ViewChange::Added(_) => "added",
        ViewChange::Updated { .. } => "updated",
        ViewChange::Removed(_) => "removed",
    }
}

/// A view of a handle's that has needed this member alone. A handle begins with any of them.
async fn on_one_member(cluster: &EtcdCluster, member: usize) -> (Network, Discovery, View<Bytes>) {
    let servers = || cluster.members().iter().map(|member| (Ipv4Addr::LOCALHOST, member.port()).into());
    loop {
        let network = Network::to(servers()).unwrap();
        let environment = environment(&behind(network.proxies()));
        let reader = Discovery::builder().environment(environment).backend("etcd").build().await.unwrap();
        let query = Query::kind("endpoint").segment("dynamo");
        let view = reader.entries(query, ViewOptions::default()).await.unwrap();
        let used = network.proxies().iter().map(|proxy| proxy.connections() > 0);
        if used.enumerate().all(|(index, used)| used == (index == member)) {
            return (network, reader, view);
        }
        drop(view);
        reader.shutdown(Duration::from_secs(10)).await;
    }
}

/// One member, on which a view's watch is, no longer hears of what the others do: the view leaves it or says that it is
/// stale, and then shows what the others have, as if nothing had been.
async fn a_member_that_lags_is_left(
    cluster: EtcdCluster,
    lag: impl Fn(&EtcdCluster, usize),
    catch_up: impl Fn(&EtcdCluster, usize),
) {
    let lagging = (cluster.leader().await.unwrap() + 1) % 3;
    let others = cluster.members().iter().enumerate().filter(|(index, _)| *index != lagging);
    let others = others.map(|(_, member)| member.endpoint()).collect::<Vec<_>>().join(",");
    let (owner, mortal) = (backend(&others).await, backend(&others).await);
    let session = owner.open(&SessionRequest::new(Some(Duration::from_secs(300)), None)).await.unwrap();
    let dying = mortal.open(&SessionRequest::new(Some(Duration::from_secs(300)), None)).await.unwrap();
    put(&*session, &key(1), "1").await.unwrap();
    put(&*dying, &key(2), "1").await.unwrap();
    let (_network, reader, view) = within("a view on one member", on_one_member(&cluster, lagging)).await;
    let shown = || {
        let shown = view.load();
        shown.iter().map(|record| (record.key().clone(), record.value().clone())).collect::<Desired>()
    };
    assert_eq!(shown(), desired([(key(1), "1"), (key(2), "1")]));
    let mut changes = view.changes();
    let told = Arc::<Mutex<Vec<(&str, Key)>>>::default();
    let tells = Arc::clone(&told);
    let telling = tokio::spawn(async move {
        while let Some(batch) = changes.next().await {
            let changes = batch.changes().iter().map(|change| (what(change), change.key().clone()));
            tells.lock().unwrap().extend(changes);
        }
    });
    let recovery = reader.bounds().recovery;

    lag(&cluster, lagging);
    let start = Instant::now();
    // What the others say to each other begins anew as well: on a busy machine they may choose a leader.
    until("a farewell", || async { dying.close().await.is_ok() }).await;
    until("a write", || async { put(&*session, &key(1), "2").await.is_ok() }).await;
    until("another", || async { put(&*session, &key(3), "1").await.is_ok() }).await;
    let written = start.elapsed();
    let truth = desired([(key(1), "2"), (key(3), "1")]);
    until("the lag to be noticed", || async { !view.freshness().is_live() || shown() == truth }).await;
    let noticed = start.elapsed();
    until("the truth", || async { view.freshness().is_live() && shown() == truth }).await;
    let right = start.elapsed();
    println!("written after {written:?}, noticed after {noticed:?}, right after {right:?}");
    // The writes are part of what is waited for, and the lag may be noticed before them.
    assert!(noticed < recovery + written, "noticed after {noticed:?}, written after {written:?}");
    // The multiple that the contract's cases allow.
    assert!(right < noticed + recovery * 2, "right after {right:?}, noticed after {noticed:?}");
    // A stream that is not looked at meanwhile would tell nothing of a record that came and went.
    until("the record to be told", || async { told.lock().unwrap().contains(&("added", key(3))) }).await;
    // It goes on elsewhere, and stays there when the member is back.
    delete(&*session, &key(3)).await.unwrap();
    let stamp = put(&*session, &key(1), "3").await.unwrap();
    within("what follows", view.reached(&stamp)).await.unwrap();
    catch_up(&cluster, lagging);
    cluster.wait().await.unwrap();
    let stamp = put(&*session, &key(1), "4").await.unwrap();
    within("what follows the member's return", view.reached(&stamp)).await.unwrap();
    assert_eq!(shown(), desired([(key(1), "4")]));
    // Who lived never left, and who died never came back.
    reader.shutdown(Duration::from_secs(10)).await;
    within("the end of the stream", telling).await.unwrap();
    let told = told.lock().unwrap();
    let of = |id| told.iter().filter(move |(_, of)| *of == key(id)).map(|(what, _)| *what).collect::<Vec<_>>();
    assert_eq!(of(1).iter().filter(|what| **what != "updated").count(), 1, "{told:?}");
    assert_eq!((of(2), of(3)), (vec!["added", "removed"], vec!["added", "removed"]), "{told:?}");
}

#[tokio::test]
async fn a_member_that_is_stopped_while_others_go_on_is_left() {
    let cluster = EtcdCluster::start().await.unwrap();
    let (stop, go_on) = (Etcd::pause, Etcd::resume);
    a_member_that_lags_is_left(
        cluster,
        |cluster, index| stop(&cluster.members()[index]).unwrap(),
        |cluster, index| go_on(&cluster.members()[index]).unwrap(),
    )
    .await;
}

#[tokio::test]
async fn a_member_that_others_cannot_reach_is_left_though_it_answers() {
    let cluster = EtcdCluster::start_divisible().await.unwrap();
    let isolate = |cluster: &EtcdCluster, index| cluster.isolate(index).unwrap();
    a_member_that_lags_is_left(cluster, isolate, |cluster, _| cluster.rejoin()).await;
}

#[tokio::test]
async fn what_a_member_without_a_majority_has_stored_verifies_nothing() {
    let cluster = EtcdCluster::start().await.unwrap();
    let backend = backend(&cluster.members()[0].endpoint()).await;
    let session = backend.open(&SessionRequest::new(Some(Duration::from_secs(60)), None)).await.unwrap();
    put(&*session, &key(1), "1").await.unwrap();
    let wanted = desired([(key(1), "1")]);
    assert!(session.verify(&wanted).await.unwrap().is_empty());
    for member in &cluster.members()[1..] {
        member.pause().unwrap();
    }
    let verified = session.verify(&wanted).await;
    assert!(verified.as_ref().is_err_and(discovery_core::Error::is_temporary), "{verified:?}");
    for member in &cluster.members()[1..] {
        member.resume().unwrap();
    }
    until("the cluster to answer", || async { session.verify(&wanted).await.is_ok() }).await;
}

/// Its connections live, and the server's transport answers each request's bytes at once: its reads alone get no answer.
#[tokio::test]
async fn a_member_that_has_lost_its_leader_holds_up_no_read_of_a_set() {
    let cluster = EtcdCluster::start_divisible().await.unwrap();
    let cut_off = (cluster.leader().await.unwrap() + 1) % 3;
    let mut members: Vec<_> = cluster.members().iter().map(Etcd::endpoint).collect();
    members.swap(0, cut_off);
    let reader = with_first(&members.join(",")).await;
    within("a list", reader.list(&endpoints())).await.unwrap();
    // The connection for sets alone, so that no other call finds out first.
    cluster.isolate(cut_off).unwrap();
    let start = Instant::now();
    within("a list", reader.list(&endpoints())).await.unwrap();
    assert!(start.elapsed() < reader.bounds().recovery, "{:?}", start.elapsed());
}
