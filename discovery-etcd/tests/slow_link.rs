//! What goes on though the network carries it slowly.

mod common;

use std::time::{Duration, Instant};

use common::*;
use discovery_core::backend::{Backend, Registrar, SessionRequest, WatchEvent, Watcher};
use discovery_core::{Discovery, Effect, Scope};
use discovery_dynamo::Endpoint;
use discovery_testbed::{Direction, Etcd, Proxy};
use futures_util::StreamExt;
use tokio::time::timeout;

/// The server tells a watch what it missed in one message, and nothing of it is there before all of it is.
#[tokio::test]
async fn a_backlog_that_takes_long_to_arrive_is_read_in_the_place_of_being_followed() {
    const WRITES: u64 = 400;
    let etcd = Etcd::start().await.unwrap();
    let (owner, (network, reader)) = (backend(&etcd.endpoint()).await, backend_behind_a_network(&etcd).await);
    let session = session(&owner).await;
    put(&*session, &key(1), "1").await.unwrap();
    let mut fold = Fold::open(&reader, &endpoints(), None).await;
    network.cut();
    fold.failure("the cut").await;
    let value = format!("\"{}\"", "x".repeat(20_000));
    for id in 2..=WRITES {
        put(&*session, &key(id), &value).await.unwrap();
    }
    network.heal();
    network.limit(Direction::ToClient, 1 << 20);
    within("what was missed", async {
        while fold.entries.len() < WRITES as usize {
            while !fold.reopen(&reader, &endpoints()).await {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            while fold.entries.len() < WRITES as usize && fold.step().await.is_ok() {}
        }
    })
    .await;
    assert_eq!(fold.lineages.len(), 2, "{:?}", fold.lineages);
}

/// The core gives up on a watch that tells nothing for a while, and opens it anew: a part that takes longer, wherever in the
/// set it is, would be asked for for ever.
#[tokio::test]
async fn a_set_is_read_though_a_later_part_of_it_took_too_long() {
    const RECORDS: u64 = 24;
    const SIZE: usize = 100_000;
    // The fewest records that a page has elsewhere take longer than that.
    let (patience, bandwidth) = (Duration::from_secs(4), 300_000);
    let etcd = Etcd::start().await.unwrap();
    let mut client = etcd_client::Client::connect([etcd.endpoint()], None).await.unwrap();
    for id in 1..=RECORDS {
        let key = format!("v1/instances/bulk/backend/generate/{id:x}");
        client.put(key, format!("\"{}\"", "x".repeat(SIZE)), None).await.unwrap();
    }
    let (network, reader) = backend_behind_a_network(&etcd).await;
    network.limit(Direction::ToClient, bandwidth);
    let scope = Scope::new("endpoint", ["bulk"]).unwrap();
    let whole = async || {
        let mut watch = timeout(patience, reader.watch(&scope, None)).await.ok()?.unwrap();
        let mut records = 0;
        loop {
            match timeout(patience, watch.next()).await.ok()?.expect("an event").unwrap() {
                WatchEvent::SnapshotChunk(entries) => records += entries.len() as u64,
                WatchEvent::SnapshotEnd(_) => return Some(records),
                _ => {}
            }
        }
    };
    let begun = Instant::now();
    let read = loop {
        if let Some(read) = whole().await {
            break read;
        }
        assert!(begun.elapsed() < DEADLINE, "the same page is asked for again and again");
    };
    assert_eq!(read, RECORDS);
}

#[tokio::test]
async fn the_largest_values_are_written_over_a_slow_link() {
    let etcd = Etcd::start().await.unwrap();
    let (network, owner) = backend_behind_a_network(&etcd).await;
    let session = owner.open(&SessionRequest::new(Some(DEADLINE), None)).await.unwrap();
    let value = vec![b'1'; owner.bounds().max_value];
    network.limit(Direction::ToServer, 400_000);
    put(&*session, &key(1), &value).await.unwrap();
    // Two together are more than a publish has time for: what is not sent says so, and had no effect.
    let written = publish(&*session, (2..=3).map(|id| put_of(&key(id), &value)).collect(), false).await;
    written[0].as_ref().unwrap();
    let put_off = written[1].as_ref().unwrap_err();
    assert!(put_off.is_temporary() && put_off.effect() == Effect::None, "{put_off}");
}

/// What was answered before the core gives up on a publish has not to be written again.
#[tokio::test]
async fn what_takes_longer_than_a_publish_may_is_written_in_several() {
    let etcd = Etcd::start().await.unwrap();
    let network = Proxy::to_port(etcd.port()).unwrap();
    let building = Discovery::builder().environment(environment(&behind([&network]))).backend("etcd");
    // Not what it takes, but what a machine that does other things, too, makes of it.
    let handle = building.ttl(DEADLINE).operation_timeout(Duration::from_secs(25)).build().await.unwrap();
    handle.health().await.unwrap();
    handle.instance_id().await.unwrap();
    network.limit(Direction::ToServer, 400_000);
    // Little less than the largest value.
    let address = "x".repeat((1 << 20) - 1_000);
    let endpoint = |name: &str| Endpoint::new("dynamo", "backend", name).tcp(&address);
    let registering = [endpoint("first"), endpoint("second"), endpoint("third")].map(|it| handle.register(it));
    let registrations = futures_util::future::join_all(registering).await;
    let registered: Vec<_> = registrations.iter().map(|registration| registration.as_ref().map(drop)).collect();
    assert!(registered.iter().all(Result::is_ok), "{registered:?}");
    network.limit(Direction::ToServer, 100_000_000);
    handle.shutdown(Duration::from_secs(5)).await;
}
