//! Reading a set while the network is slow, or dies with half of the answer.

mod common;

use std::time::{Duration, Instant};

use common::*;
use discovery_core::Scope;
use discovery_core::backend::{Backend, WatchEvent, Watcher};
use discovery_testbed::{Direction, Etcd, Proxy};
use futures_util::StreamExt;
use futures_util::future::join_all;

/// How many records there are, and how large each is. Together less than what a server sends before the client has to take
/// it: all of it is ahead of what the server says later on the same connection.
const RECORDS: u64 = 100;
const SIZE: usize = 15_000;
const TOGETHER: u64 = RECORDS * SIZE as u64;

fn bulk() -> Scope {
    Scope::new("endpoint", ["bulk"]).unwrap()
}

/// A server with all of it.
async fn filled() -> Etcd {
    let etcd = Etcd::start().await.unwrap();
    let mut client = etcd_client::Client::connect([etcd.endpoint()], None).await.unwrap();
    for id in 1..=RECORDS {
        let key = format!("v1/instances/bulk/backend/generate/{id:x}");
        client.put(key, format!("\"{}\"", "x".repeat(SIZE)), None).await.unwrap();
    }
    etcd
}

/// Waits until the server has sent more than so much since this call.
async fn sent(network: &Proxy, bytes: u64) {
    let before = network.received(Direction::ToClient);
    until("the answer to be on its way", || async { network.received(Direction::ToClient) - before > bytes }).await;
}

#[tokio::test]
async fn a_page_whose_connection_is_half_open_half_way_is_asked_for_anew_in_time() {
    let etcd = filled().await;
    let deaf: fn(&Proxy) = |network| network.stall_only(Direction::ToClient);
    join_all([Proxy::stall, deaf].map(async |harm| {
        let (network, reader) = backend_behind_a_network(&etcd).await;
        network.limit(Direction::ToClient, TOGETHER / 10);
        let scope = bulk();
        let mut reading = std::pin::pin!(reader.list(&scope));
        tokio::select! {
            read = &mut reading => panic!("read at once: {:?}", read.map(|(entries, _)| entries.len())),
            () = sent(&network, TOGETHER / 5) => {}
        }
        let (start, connections) = (Instant::now(), network.connections());
        harm(&network);
        tokio::select! {
            read = &mut reading => panic!("nothing came: {:?}", read.map(|(entries, _)| entries.len())),
            () = until("the connection to be left", || async { network.connections() > connections }) => {}
        }
        assert!(start.elapsed() < reader.bounds().recovery, "{:?}", start.elapsed());
        network.heal();
        assert_eq!(within("what is read", reading).await.unwrap().0.len() as u64, RECORDS);
    }))
    .await;
}

#[tokio::test]
async fn a_page_on_a_slow_link_is_waited_for() {
    let etcd = filled().await;
    let (network, reader) = backend_behind_a_network(&etcd).await;
    // Some at a time, with pauses between them: an answer to anything else is behind all of it.
    network.limit(Direction::ToClient, TOGETHER / 15);
    let (entries, _) = within("what is read", reader.list(&bulk())).await.unwrap();
    assert_eq!((entries.len() as u64, network.connections()), (RECORDS, 1));
}

/// The core gives the opening of a watch a while, and then opens it anew.
#[tokio::test]
async fn a_page_that_nobody_could_wait_for_is_asked_for_in_parts_by_the_next_read() {
    let etcd = filled().await;
    let (network, reader) = backend_behind_a_network(&etcd).await;
    let scope = bulk();
    // So that all of it takes twenty seconds.
    network.limit(Direction::ToClient, TOGETHER / 20);
    let first_part = async || {
        let mut watch = reader.watch(&scope, None).await.unwrap();
        while !matches!(watch.next().await.expect("an event").unwrap(), WatchEvent::SnapshotChunk(_)) {}
    };
    let mut tries = 1;
    while tokio::time::timeout(Duration::from_secs(6), first_part()).await.is_err() {
        tries += 1;
        assert!(tries < 4, "the same page is asked for again and again");
    }
    assert!(tries > 1, "the first try was to take too long");
}

#[tokio::test]
async fn a_half_open_connection_that_was_idle_holds_up_no_read_of_a_set() {
    let etcd = Etcd::start().await.unwrap();
    let networks = [Proxy::to_port(etcd.port()).unwrap(), Proxy::to_port(etcd.port()).unwrap()];
    let list = behind(&networks);
    let (reader, watcher) = (with_first(&list).await, with_first(&list).await);
    for handle in [&reader, &watcher] {
        listed(handle, &endpoints()).await;
    }
    assert_eq!(networks.each_ref().map(Proxy::connections), [2, 0]);
    // Between two reads there may be anything.
    tokio::time::sleep(reader.bounds().recovery).await;
    networks[0].stall();
    let (scope, start) = (endpoints(), Instant::now());
    tokio::join!(listed(&reader, &scope), Fold::open(&watcher, &scope, None));
    assert!(start.elapsed() < reader.bounds().recovery, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_bulk_read_delays_no_watch() {
    let etcd = filled().await;
    let (owner, (network, reader)) = (backend(&etcd.endpoint()).await, backend_behind_a_network(&etcd).await);
    let session = session(&owner).await;
    put(&*session, &key(1), "1").await.unwrap();
    let mut fold = Fold::open(&reader, &endpoints(), None).await;
    // So that the read takes five seconds.
    network.limit(Direction::ToClient, TOGETHER / 5);
    let scope = bulk();
    let mut reading = std::pin::pin!(reader.list(&scope));
    tokio::select! {
        biased;
        read = &mut reading => panic!("read at once: {:?}", read.map(|(entries, _)| entries.len())),
        () = sent(&network, TOGETHER) => {}
    }
    put(&*session, &key(1), "2").await.unwrap();
    tokio::select! {
        biased;
        read = &mut reading => panic!("the change waits behind what is read: {:?}", read.map(|(entries, _)| entries.len())),
        () = fold.until("the change", |fold| fold.values()[&key(1)] == "2") => {}
    }
    assert_eq!(within("what is read", reading).await.unwrap().0.len() as u64, RECORDS);
}

#[tokio::test]
async fn a_slow_call_makes_nobody_else_connect_anew_where_there_is_one_member() {
    let etcd = Etcd::start().await.unwrap();
    let (network, handle) = backend_behind_a_network(&etcd).await;
    let session = session(&handle).await;
    within("a renewal", session.renew()).await.unwrap();
    listed(&handle, &endpoints()).await;
    assert_eq!(network.connections(), 2, "what is written and renewed, and what is read");
    // A connection over which nothing comes is asked for a sign of life, and gets two seconds.
    network.delay_only(Direction::ToClient, Duration::from_secs(5));
    {
        let scope = endpoints();
        let mut slow = std::pin::pin!(handle.list(&scope));
        let left = until("the slow connection to be left", || async { network.connections() > 2 });
        tokio::select! {
            read = &mut slow => panic!("read at once: {:?}", read.map(|(entries, _)| entries.len())),
            () = left => {}
        }
    }
    network.heal();
    let connections = network.connections();
    for _ in 0..3 {
        within("a renewal", session.renew()).await.unwrap();
    }
    assert_eq!(network.connections(), connections, "renewals go on over the connection that they had");
}
