//! Three members, of which some fail.

mod common;

use std::time::{Duration, Instant};

use common::*;
use discovery_core::backend::{Backend, Change, Registrar, SessionRequest, Watcher};
use discovery_testbed::EtcdCluster;
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
