//! What goes on though the network carries it slowly.

mod common;

use std::time::Duration;

use common::*;
use discovery_testbed::{Direction, Etcd};

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
