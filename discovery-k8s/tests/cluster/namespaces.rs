//! Several namespaces in one view, and names that stand for one instance in two of them.

use std::time::Duration;

use discovery_core::Query;
use discovery_k8s::NAMESPACES_VARIABLE;

use crate::support::cluster::{State, discovery, until};
use crate::{Item, item, listed, shows, space};

#[tokio::test]
async fn the_namespaces_that_are_named_are_watched_and_no_others() {
    let (here, there, elsewhere) = (space().await, space().await, space().await);
    let mut writers = Vec::new();
    let mut held = Vec::new();
    let mut pods = Vec::new();
    for (space, name, n) in [(&here, "one", 1), (&there, "two", 2), (&elsewhere, "three", 3)] {
        let pod = space.ready_pod(name).await.unwrap();
        let writer = space.discovery(&pod).await.unwrap();
        held.push(writer.register(item("x", n)).await.unwrap());
        writers.push(writer);
        pods.push(pod);
    }
    let both = format!("{},{}", here.namespace, there.namespace);
    let reader = discovery(here.environment(&pods[0]).with(NAMESPACES_VARIABLE, both)).await.unwrap();
    let view = reader.view::<Item>(Query::all()).await.unwrap();
    shows(&view, &[1, 2]).await;
    assert_eq!(listed(&reader).await, [1, 2]);
    there.set(&pods[1], State::NotReady).await.unwrap();
    shows(&view, &[1]).await;
    there.set(&pods[1], State::Ready).await.unwrap();
    shows(&view, &[1, 2]).await;
    // Every namespace of the cluster; other tests have theirs.
    let cluster = discovery(here.environment(&pods[0]).with(NAMESPACES_VARIABLE, "*")).await.unwrap();
    let ours: Vec<_> = held.iter().map(|held| held.instance()).collect();
    let wide = cluster.view::<Item>(Query::all()).await.unwrap();
    // In each of them pods have these names: whose id collides meanwhile is not shown.
    until("the pod of a namespace that is not named", async || {
        wide.load().iter().any(|record| ours[2] == record.key().instance() && record.n == 3)
    })
    .await;
    for handle in writers.into_iter().chain([reader, cluster]) {
        handle.shutdown(Duration::from_secs(20)).await;
    }
}

#[tokio::test]
async fn ids_that_collide_hide_both_until_one_of_them_goes() {
    let (here, there) = (space().await, space().await);
    let (one, other) = (here.ready_pod("same").await.unwrap(), there.ready_pod("same").await.unwrap());
    let (first, second) = (here.discovery(&one).await.unwrap(), there.discovery(&other).await.unwrap());
    let both = format!("{},{}", here.namespace, there.namespace);
    let reader = discovery(here.environment(&one).with(NAMESPACES_VARIABLE, both)).await.unwrap();
    let view = reader.view::<Item>(Query::all()).await.unwrap();
    let a = first.register(item("x", 1)).await.unwrap();
    shows(&view, &[1]).await;
    // Of another place: it is the owners that collide, not their keys.
    let b = second.register(item("y", 2)).await.unwrap();
    assert_eq!(a.instance(), b.instance());
    shows(&view, &[]).await;
    assert_eq!(listed(&reader).await, [0_u64; 0]);
    // Who watches one of the namespaces has no collision.
    assert_eq!((listed(&first).await, listed(&second).await), (vec![1], vec![2]));
    there.set(&other, State::NotReady).await.unwrap();
    shows(&view, &[1]).await;
    there.set(&other, State::Ready).await.unwrap();
    shows(&view, &[]).await;
    assert!(first.shutdown(Duration::from_secs(20)).await.is_clean());
    shows(&view, &[2]).await;
    for handle in [second, reader] {
        handle.shutdown(Duration::from_secs(20)).await;
    }
}

/// The API server allows a hundred streams on a connection, and a watch holds one for as long as it is open.
#[tokio::test]
async fn more_namespaces_are_watched_than_a_connection_has_room_for() {
    let space = space().await;
    let pod = space.ready_pod("one").await.unwrap();
    let others = (0..70).map(|n| format!("no-such-namespace-{n}"));
    let names = others.chain([space.namespace.clone()]).collect::<Vec<_>>().join(",");
    let owner = discovery(space.environment(&pod).with(NAMESPACES_VARIABLE, names)).await.unwrap();
    let view = tokio::time::timeout(Duration::from_secs(60), owner.view::<Item>(Query::all())).await;
    let view = view.expect("a view that opens").unwrap();
    let _held = owner.register(item("x", 1)).await.unwrap();
    shows(&view, &[1]).await;
    assert_eq!(listed(&owner).await, [1]);
    assert!(owner.shutdown(Duration::from_secs(20)).await.is_clean());
}
