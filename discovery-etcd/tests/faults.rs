//! Watches and calls while the server or the network fails.

mod common;

use std::time::{Duration, Instant};

use common::*;
use discovery_core::backend::{Backend, Lineage, Watcher};
use discovery_core::{Discovery, ErrorKind, Scope};
use discovery_testbed::{Direction, Etcd, Proxy};
use futures_util::StreamExt;
use futures_util::future::join_all;

#[tokio::test]
async fn a_watch_resumes_where_it_was_and_repeats_nothing() {
    let etcd = Etcd::start().await.unwrap();
    let (owner, (network, reader)) = (backend(&etcd.endpoint()).await, backend_behind_a_network(&etcd).await);
    let session = session(&owner).await;
    put(&*session, &key(1), "1").await.unwrap();
    let mut fold = Fold::open(&reader, &endpoints(), None).await;
    put(&*session, &key(2), "1").await.unwrap();
    fold.until("a change", |fold| fold.entries.len() == 2).await;
    network.cut();
    let error = fold.failure("the cut").await;
    assert_eq!((error.kind(), error.is_temporary()), (ErrorKind::Unavailable, true), "{error}");
    put(&*session, &key(3), "1").await.unwrap();
    delete(&*session, &key(1)).await.unwrap();
    let refused = reader.watch(&endpoints(), fold.position.as_ref()).await.map(drop).unwrap_err();
    assert!(refused.is_temporary() && refused.to_string().contains(&network.address().to_string()), "{refused}");
    network.heal();
    let mut second = Fold::open(&reader, &endpoints(), fold.position.as_ref()).await;
    assert!(second.resumed && second.lineages.is_empty());
    second.until("what was missed", |fold| fold.batches.concat().len() == 2).await;
    assert_eq!(second.values(), desired([(key(3), "1")]));
}

#[tokio::test]
async fn a_compacted_history_is_followed_by_a_snapshot_of_the_same() {
    let etcd = Etcd::start().await.unwrap();
    let (owner, reader) = (backend(&etcd.endpoint()).await, backend(&etcd.endpoint()).await);
    let session = session(&owner).await;
    put(&*session, &key(1), "1").await.unwrap();
    let fold = Fold::open(&reader, &endpoints(), None).await;
    put(&*session, &key(2), "1").await.unwrap();
    etcd.compact().await.unwrap();
    let second = Fold::open(&reader, &endpoints(), fold.position.as_ref()).await;
    assert_eq!((second.resumed, second.lineages.as_slice()), (false, [Lineage::Same].as_slice()));
    assert_eq!(second.entries[&key(1)], fold.entries[&key(1)]);
    assert_eq!(second.entries.len(), 2);
}

#[tokio::test]
async fn a_watch_that_is_compacted_on_the_server_goes_on_with_a_snapshot() {
    let etcd = Etcd::start().await.unwrap();
    let (owner, reader) = (backend(&etcd.endpoint()).await, backend(&etcd.endpoint()).await);
    let session = session(&owner).await;
    put(&*session, &key(1), "1").await.unwrap();
    let token = reader.change_log().unwrap().now().await.unwrap();
    let mut fold = Fold::open(&reader, &endpoints(), None).await;
    // More than is under way to a watch that is not read, so that the server keeps the rest for later, and then has not got it.
    for value in 0..800 {
        put(&*session, &key(2), format!("{value:<20000}")).await.unwrap();
    }
    etcd.compact().await.unwrap();
    put(&*session, &key(2), "end").await.unwrap();
    fold.until("the end", |fold| fold.values().get(&key(2)).is_some_and(|value| value == "end")).await;
    assert_eq!(fold.values(), desired([(key(1), "1"), (key(2), "end")]));
    assert_eq!(fold.lineages, [Lineage::Unknown, Lineage::Same]);
    // The position is of a history that is no longer kept.
    let second = Fold::open(&reader, &endpoints(), Some(&token)).await;
    assert_eq!(second.values(), fold.values());
}

#[tokio::test]
async fn a_wiped_store_is_another_history_however_far_it_has_come() {
    let etcd = Etcd::start().await.unwrap();
    let (owner, reader) = (backend(&etcd.endpoint()).await, backend(&etcd.endpoint()).await);
    let first = session(&owner).await;
    put(&*first, &key(1), "1").await.unwrap();
    let mut fold = Fold::open(&reader, &endpoints(), None).await;
    put(&*first, &key(1), "2").await.unwrap();
    fold.until("the update", |fold| fold.batches.len() == 1).await;
    let before = fold.position.clone();
    etcd.wipe().await.unwrap();
    fold.failure("the end of the server").await;
    let open = async |after| Fold::open(&reader, &endpoints(), after).await;
    // Less far than before.
    let empty = open(before.as_ref()).await;
    assert_eq!((empty.lineages.as_slice(), empty.entries.len()), ([Lineage::Reset].as_slice(), 0));
    // As far as before, with the same keys at the same revisions.
    assert_eq!(within("a loss", first.renew()).await.unwrap_err().kind(), ErrorKind::SessionLost);
    let second = session_again(&owner, first.id()).await;
    for value in ["1", "2"] {
        put(&*second, &key(1), value).await.unwrap();
    }
    let same = open(before.as_ref()).await;
    assert_eq!(same.lineages, [Lineage::Reset]);
    assert_eq!(same.values(), fold.values());
    assert_ne!(same.entries[&key(1)].incarnation, fold.entries[&key(1)].incarnation);
    // Further than before.
    for value in 0..20 {
        put(&*second, &key(2), value.to_string()).await.unwrap();
    }
    let further = open(before.as_ref()).await;
    assert_eq!((further.lineages.as_slice(), further.entries.len()), ([Lineage::Reset].as_slice(), 2));
    // From there on it goes on as usual.
    let resumed = open(further.position.as_ref()).await;
    assert!(resumed.resumed);
}

/// A store goes back to a backup, and then further than a watch had come, which holds a record from before the backup. Whoever
/// goes on from there shows what is there now. `known`: whether the handle sees the store while it is still behind.
async fn a_store_that_went_back_and_has_come_further_is_shown_as_it_is(known: bool) {
    let etcd = Etcd::start().await.unwrap();
    let reader = backend(&etcd.endpoint()).await;
    let connect = || etcd_client::Client::connect([etcd.endpoint()], None);
    let mut client = connect().await.unwrap();
    for id in 1..=2 {
        client.put(stored(id), "1", None).await.unwrap();
    }
    etcd.kill().await.unwrap();
    let backup = tempfile::tempdir().unwrap();
    copy(&etcd.data(), backup.path());
    etcd.restart().await.unwrap();
    let mut fold = Fold::open(&reader, &endpoints(), None).await;
    let mut client = connect().await.unwrap();
    // What is lost is of no concern to the watch, which comes as far all the same.
    for _ in 0..10 {
        client.put("elsewhere", "", None).await.unwrap();
    }
    let barrier = reader.barrier(&endpoints()).await.unwrap().unwrap();
    fold.until("the lost revisions", |fold| reader.reached(fold.position.as_ref().unwrap(), &barrier)).await;
    let before = fold.position.clone();
    let incarnation = fold.entries[&key(2)].incarnation;
    etcd.kill().await.unwrap();
    std::fs::remove_dir_all(etcd.data()).unwrap();
    copy(backup.path(), &etcd.data());
    etcd.restart().await.unwrap();
    let mut wanted = vec![(key(1), "1"), (key(2), "1"), (key(3), "1")];
    if known {
        until("the loss to be seen", || async { reader.barrier(&endpoints()).await.is_ok() }).await;
    }
    let mut client = connect().await.unwrap();
    client.put(stored(3), "1", None).await.unwrap();
    if known {
        // As many as there were.
        client.delete(stored(1), None).await.unwrap();
        wanted.remove(0);
    }
    for _ in 0..20 {
        client.put("elsewhere", "", None).await.unwrap();
    }
    let after = Fold::open(&reader, &endpoints(), before.as_ref()).await;
    assert!(!after.resumed, "{:?}", after.values());
    assert_eq!(after.values(), desired(wanted));
    let lineage = if known { Lineage::Same } else { Lineage::Reset };
    assert_eq!(
        (after.lineages.as_slice(), known),
        ([lineage].as_slice(), after.entries[&key(2)].incarnation == incarnation)
    );
    // From there on it goes on as usual.
    assert!(Fold::open(&reader, &endpoints(), after.position.as_ref()).await.resumed);
}

#[tokio::test]
async fn a_store_that_was_seen_to_go_back_is_read_anew_however_far_it_has_come() {
    a_store_that_went_back_and_has_come_further_is_shown_as_it_is(true).await;
}

#[tokio::test]
async fn a_store_that_went_back_unseen_is_told_by_how_much_it_holds() {
    a_store_that_went_back_and_has_come_further_is_shown_as_it_is(false).await;
}

#[tokio::test]
async fn what_stood_before_a_loss_has_reached_nothing_that_came_after_it() {
    let etcd = Etcd::start().await.unwrap();
    let (owner, reader) = (backend(&etcd.endpoint()).await, backend(&etcd.endpoint()).await);
    let first = session(&owner).await;
    for value in 0..20 {
        put(&*first, &key(1), value.to_string()).await.unwrap();
    }
    let fold = Fold::open(&reader, &endpoints(), None).await;
    let before = fold.position.clone().unwrap();
    let barrier = reader.barrier(&endpoints()).await.unwrap().unwrap();
    assert!(reader.reached(&before, &barrier));
    etcd.wipe().await.unwrap();
    assert_eq!(within("a loss", first.renew()).await.unwrap_err().kind(), ErrorKind::SessionLost);
    let second = session_again(&owner, first.id()).await;
    let stamp = put(&*second, &key(1), "new").await.unwrap();
    // The revisions of the new history are below those of the first.
    until("the barrier to be told", || async { reader.barrier(&endpoints()).await.is_ok() }).await;
    let barrier = reader.barrier(&endpoints()).await.unwrap().unwrap();
    assert!(!reader.reached(&before, &barrier), "a list would show what was before");
    assert!(!owner.reached(&before, stamp.position.as_ref().unwrap()));
    let mut after = Fold::open(&reader, &endpoints(), Some(&before)).await;
    assert_eq!(after.lineages, [Lineage::Reset]);
    after.until("the barrier", |fold| reader.reached(fold.position.as_ref().unwrap(), &barrier)).await;
}

#[tokio::test]
async fn a_frozen_server_is_found_in_time() {
    let etcd = Etcd::start().await.unwrap();
    let (owner, reader) = (backend(&etcd.endpoint()).await, backend(&etcd.endpoint()).await);
    let session = session(&owner).await;
    put(&*session, &key(1), "1").await.unwrap();
    let mut fold = Fold::open(&reader, &endpoints(), None).await;
    let mut other = Fold::open(&reader, &endpoints(), None).await;
    etcd.pause().unwrap();
    let start = Instant::now();
    let error = fold.failure("silence").await;
    other.failure("silence").await;
    assert!(start.elapsed() < reader.bounds().recovery, "{:?}: {error}", start.elapsed());
    assert!(error.is_temporary(), "{error}");
    let start = Instant::now();
    assert!(session.renew().await.unwrap_err().is_temporary());
    assert!(reader.list(&endpoints()).await.unwrap_err().is_temporary());
    assert!(start.elapsed() < DEADLINE);
    etcd.resume().unwrap();
    until("the server to answer", || async { reader.list(&endpoints()).await.is_ok() }).await;
    let second = Fold::open(&reader, &endpoints(), fold.position.as_ref()).await;
    assert!(second.resumed);
}

#[tokio::test]
async fn a_half_open_connection_is_found_in_time() {
    let etcd = Etcd::start().await.unwrap();
    let deaf_and_dumb: fn(&Proxy) = Proxy::stall;
    let dumb: fn(&Proxy) = |network| network.stall_only(Direction::ToServer);
    let deaf: fn(&Proxy) = |network| network.stall_only(Direction::ToClient);
    join_all([deaf_and_dumb, dumb, deaf].map(async |harm| {
        let (network, reader) = backend_behind_a_network(&etcd).await;
        let mut fold = Fold::open(&reader, &endpoints(), None).await;
        harm(&network);
        let start = Instant::now();
        fold.failure("silence").await;
        assert!(start.elapsed() < reader.bounds().recovery, "{:?}", start.elapsed());
    }))
    .await;
}

#[tokio::test]
async fn a_half_open_connection_that_was_idle_is_left_by_the_call_that_finds_it() {
    let etcd = Etcd::start().await.unwrap();
    let networks = [Proxy::to_port(etcd.port()).unwrap(), Proxy::to_port(etcd.port()).unwrap()];
    let reader = with_first(&behind(&networks)).await;
    reader.barrier(&endpoints()).await.unwrap();
    assert_eq!(networks.each_ref().map(Proxy::connections), [1, 0]);
    networks[0].stall();
    let start = Instant::now();
    reader.barrier(&endpoints()).await.unwrap();
    assert!(start.elapsed() < reader.bounds().recovery, "{:?}", start.elapsed());
    assert_eq!(networks.each_ref().map(Proxy::connections), [1, 1]);
}

#[tokio::test]
async fn many_watches_of_a_handle_share_one_connection() {
    let etcd = Etcd::start().await.unwrap();
    let (network, handle) = backend_behind_a_network(&etcd).await;
    let session = session(&handle).await;
    put(&*session, &key(1), "1").await.unwrap();
    assert_eq!(network.connections(), 1, "what is written and renewed");
    listed(&handle, &endpoints()).await;
    assert_eq!(network.connections(), 2, "what is read");
    let scopes = (0..8).map(|number| Scope::new("endpoint", [format!("namespace-{number}")]).unwrap());
    let mut folds = Vec::new();
    for scope in scopes {
        folds.push(Fold::open(&handle, &scope, None).await);
    }
    for fold in &mut folds {
        within("a sign of life", fold.step()).await.unwrap();
    }
    assert_eq!(network.connections(), 3, "what is watched");
}

#[tokio::test]
async fn a_quiet_watch_gives_signs_of_life() {
    let etcd = Etcd::start().await.unwrap();
    let reader = backend(&etcd.endpoint()).await;
    let mut fold = Fold::open(&reader, &endpoints(), None).await;
    let silence = reader.bounds().silence.unwrap();
    for _ in 0..3 {
        let start = Instant::now();
        within("a sign of life", fold.step()).await.unwrap();
        assert!(start.elapsed() < silence / 2, "{:?}", start.elapsed());
    }
    assert!(fold.batches.is_empty());
}

#[tokio::test]
async fn a_watch_that_began_after_a_loss_keeps_its_records_when_the_loss_is_proven() {
    let etcd = Etcd::start().await.unwrap();
    let (owner, reader) = (backend(&etcd.endpoint()).await, backend(&etcd.endpoint()).await);
    let first = session(&owner).await;
    put(&*first, &key(1), "1").await.unwrap();
    let mut before = Fold::open(&reader, &endpoints(), None).await;
    etcd.wipe().await.unwrap();
    before.failure("the end of the server").await;
    assert_eq!(within("a loss", first.renew()).await.unwrap_err().kind(), ErrorKind::SessionLost);
    let second = session_again(&owner, first.id()).await;
    // Further than the reader has seen: by its revision the store is as it was.
    for value in 0..20 {
        put(&*second, &key(2), value.to_string()).await.unwrap();
    }
    let mut after = Fold::open(&reader, &endpoints(), None).await;
    let proof = Fold::open(&reader, &endpoints(), before.position.as_ref()).await;
    assert_eq!(proof.lineages, [Lineage::Reset]);
    let shown = after.entries[&key(2)].clone();
    for _ in 0..2 {
        within("a sign of life", after.step()).await.unwrap();
    }
    put(&*second, &key(2), "new").await.unwrap();
    after.until("the news", |after| after.values().get(&key(2)).is_some_and(|value| value == "new")).await;
    assert_eq!(after.lineages, [Lineage::Unknown], "it began with what came after the loss");
    assert_eq!(after.entries[&key(2)].incarnation, shown.incarnation);
}

#[tokio::test]
async fn a_dead_endpoint_is_passed_over() {
    let etcd = Etcd::start().await.unwrap();
    let dead = Etcd::start().await.unwrap();
    let endpoints_list = format!("{},{}", dead.endpoint(), etcd.endpoint());
    dead.kill().await.unwrap();
    // Wherever each of them begins.
    for _ in 0..8 {
        let backend = backend(&endpoints_list).await;
        let session = session(&backend).await;
        put(&*session, &key(1), "1").await.unwrap();
        session.renew().await.unwrap();
        assert_eq!(Fold::open(&backend, &endpoints(), None).await.entries.len(), 1);
        assert_eq!(listed(&backend, &endpoints()).await.len(), 1);
        session.close().await.unwrap();
    }
}

#[tokio::test]
async fn nothing_that_answers_is_an_error_that_names_every_endpoint() {
    let (one, two) = (Etcd::start().await.unwrap(), Etcd::start().await.unwrap());
    one.kill().await.unwrap();
    two.kill().await.unwrap();
    let list = format!("{},{}", one.endpoint(), two.endpoint());
    let backend = backend(&list).await;
    for error in [
        backend.list(&endpoints()).await.map(drop).unwrap_err(),
        backend.watch(&endpoints(), None).await.map(drop).unwrap_err(),
        backend.health().await.map(drop).unwrap_err(),
        backend.barrier(&endpoints()).await.map(drop).unwrap_err(),
    ] {
        let text = error.to_string();
        assert!(error.is_temporary() && error.kind() == ErrorKind::Unavailable, "{text}");
        assert!(text.contains(&one.endpoint()) && text.contains(&two.endpoint()), "{text}");
        assert!(text.starts_with("etcd: ") && !text.contains('\n'), "{text}");
    }
    let startup = environment(&list).with("ETCD_STARTUP_CONNECT_TIMEOUT_SECONDS", "1");
    let start = Instant::now();
    let error = connect(startup.clone()).await.unwrap_err();
    assert!(error.is_temporary() && start.elapsed() >= Duration::from_millis(900), "{error}");
    one.launch().unwrap();
    one.wait().await.unwrap();
    connect(startup).await.unwrap();
}

#[tokio::test]
async fn a_start_up_time_that_is_set_outlasts_the_handles_own_patience() {
    let etcd = Etcd::start().await.unwrap();
    let network = Proxy::to_port(etcd.port()).unwrap();
    network.cut();
    let environment = environment(&behind([&network])).with("ETCD_STARTUP_CONNECT_TIMEOUT_SECONDS", "50");
    let patience = Duration::from_millis(300);
    let building = Discovery::builder().environment(environment).backend("etcd").connect_timeout(patience).build();
    let mut building = std::pin::pin!(building);
    let early = tokio::time::timeout(patience * 5, &mut building).await.map(|built| built.map(drop));
    assert!(early.is_err(), "it waits for the store: {early:?}");
    network.heal();
    within("the store", building).await.unwrap();
}

#[tokio::test]
async fn a_long_backlog_is_no_silence() {
    // etcd tells a watch that is behind a thousand revisions in each tenth of a second.
    const BACKLOG: usize = 40_000;
    let etcd = Etcd::start().await.unwrap();
    let (owner, reader) = (backend(&etcd.endpoint()).await, backend(&etcd.endpoint()).await);
    let session = session(&owner).await;
    put(&*session, &key(1), "1").await.unwrap();
    let fold = Fold::open(&reader, &endpoints(), None).await;
    let log = reader.change_log().unwrap();
    let token = log.now().await.unwrap();
    let client = etcd_client::Client::connect([etcd.endpoint()], None).await.unwrap();
    let writes = (1..=BACKLOG).map(|number| {
        let mut client = client.clone();
        async move { client.put(stored(2), number.to_string(), None).await.unwrap() }
    });
    let written = futures_util::stream::iter(writes).buffer_unordered(64).collect::<Vec<_>>();
    within("the backlog", written).await;
    let mut second = Fold::open(&reader, &endpoints(), fold.position.as_ref()).await;
    assert!(second.resumed);
    second.until("the backlog", |fold| fold.batches.iter().map(Vec::len).sum::<usize>() == BACKLOG).await;
    let told = log.changes_since(&endpoints(), &token).await.unwrap();
    let told = within("the log", told.take(BACKLOG).collect::<Vec<_>>()).await;
    assert!(told.iter().all(Result::is_ok), "{:?}", told.last());
}

#[tokio::test]
async fn a_backlog_of_many_megabytes_is_told_though_it_comes_in_one_message() {
    // Together more than the 4 MiB that a client takes where it is told nothing else.
    const WRITES: u64 = 400;
    let etcd = Etcd::start().await.unwrap();
    let (owner, reader) = (backend(&etcd.endpoint()).await, backend(&etcd.endpoint()).await);
    let session = session(&owner).await;
    put(&*session, &key(1), "1").await.unwrap();
    let fold = Fold::open(&reader, &endpoints(), None).await;
    let value = format!("\"{}\"", "x".repeat(20_000));
    for id in 2..2 + WRITES {
        put(&*session, &key(id), &value).await.unwrap();
    }
    let mut second = Fold::open(&reader, &endpoints(), fold.position.as_ref()).await;
    second.until("the backlog", |fold| fold.entries.len() == WRITES as usize).await;
    assert!(second.resumed && second.lineages.is_empty(), "followed, not read anew");
}

#[tokio::test]
async fn a_watch_sees_what_comes_after_a_restart_of_the_server() {
    let etcd = Etcd::start().await.unwrap();
    let (owner, reader) = (backend(&etcd.endpoint()).await, backend(&etcd.endpoint()).await);
    let session = session(&owner).await;
    put(&*session, &key(1), "1").await.unwrap();
    let mut fold = Fold::open(&reader, &endpoints(), None).await;
    etcd.kill().await.unwrap();
    fold.failure("the end of the server").await;
    etcd.restart().await.unwrap();
    until("the session to go on", || async { session.renew().await.is_ok() }).await;
    put(&*session, &key(2), "1").await.unwrap();
    let mut second = Fold::open(&reader, &endpoints(), fold.position.as_ref()).await;
    second.until("what was missed", |fold| fold.entries.contains_key(&key(2))).await;
    assert!(second.resumed);
    assert_eq!(second.values(), desired([(key(2), "1")]));
}

#[tokio::test]
async fn a_full_store_is_a_temporary_error_that_says_what_to_do() {
    let options = discovery_testbed::EtcdOptions { quota: Some(2 << 20), ..Default::default() };
    let etcd = Etcd::start_with(options).await.unwrap();
    let backend = backend(&etcd.endpoint()).await;
    let session = session(&backend).await;
    let value = vec![b'1'; 200_000];
    let mut full = None;
    for id in 0..100 {
        if let Err(error) = put(&*session, &key(id), &value).await {
            full = Some(error);
            break;
        }
    }
    let error = full.expect("two megabytes are full sooner");
    // etcd does what crosses the quota, and answers as if it had not.
    assert!(error.is_temporary() && error.effect() == discovery_core::Effect::Unknown, "{error:?}");
    assert!(error.to_string().contains("defragment"), "{error}");
    let health = backend.health().await.unwrap();
    assert!(health.detail.contains("NOSPACE"), "{}", health.detail);
    // Renewals, reads and withdrawals go on.
    session.renew().await.unwrap();
    assert!(listed(&backend, &endpoints()).await.contains_key(&key(0)));
    delete(&*session, &key(0)).await.unwrap();
    assert!(!listed(&backend, &endpoints()).await.contains_key(&key(0)));
}
