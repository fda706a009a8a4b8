//! Values that nest more deeply than an answer that holds them can be read.

use std::time::Duration;

use discovery_core::{Effect, ErrorKind, Path, Query, Record, Result};
use discovery_deploy::CRD;
use discovery_k8s::{Cluster, Link};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::alone::plane;
use crate::support::cluster::{Space, until};
use crate::{Item, item, listed, shows, space};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Deep {
    value: Value,
}

impl Record for Deep {
    const KIND: &'static str = "item";

    fn path(&self) -> Result<Path> {
        Path::new(Self::KIND, ["deep"])
    }
}

/// Objects, each in another: a definition that is managed leaf by leaf tells of each of them once more.
fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!({ "a": inner }))
}

async fn hides_only_itself(space: &Space) {
    let (one, evil) = (space.ready_pod("one").await.unwrap(), space.ready_pod("evil").await.unwrap());
    let owner = space.discovery(&one).await.unwrap();
    let view = owner.view::<Item>(Query::all()).await.unwrap();
    let _held = owner.register(item("x", 1)).await.unwrap();
    shows(&view, &[1]).await;
    let items = json!({ "deep/1": nested(200), "shallow/1": { "place": "shallow", "n": 7 } });
    space.leave_unread("evil", Some(&evil), &items).await.unwrap();
    let _next = owner.register(item("y", 2)).await.unwrap();
    shows(&view, &[1, 2, 7]).await;
    assert_eq!(listed(&owner).await, [1, 2, 7], "beside an open view");
    let reader = space.discovery(&one).await.unwrap();
    assert_eq!(listed(&reader).await, [1, 2, 7], "without one");
    let newer = reader.view::<Item>(Query::all()).await.unwrap();
    shows(&newer, &[1, 2, 7]).await;
    for view in [&view, &newer] {
        assert!(view.freshness().is_live(), "{:?}", view.freshness());
    }

    let survey = Cluster::connect(&space.environment(&one)).await.unwrap().survey(None).await;
    let explained = survey.explain_all(|_, value| {
        let decoded = serde_json::from_slice::<Value>(value);
        decoded.map(drop).map_err(|error| discovery_core::Error::new(ErrorKind::InvalidValue, error.to_string()))
    });
    let of = |pod: &str| explained.iter().find(|explained| explained.pod == pod).unwrap();
    assert_eq!(of("one").records.len(), 2, "{:?}", of("one"));
    assert_eq!(of("evil").records.len(), 1, "{:?}", of("evil"));
    let told = of("evil").steps.iter().find(|step| step.link == Link::Decoded).unwrap();
    assert!(told.text.contains("recursion limit"), "{told:?}");
    for handle in [owner, reader] {
        handle.shutdown(Duration::from_secs(20)).await;
    }
}

#[tokio::test]
async fn a_value_that_nests_too_deeply_hides_only_itself() {
    hides_only_itself(&space().await).await;
}

#[tokio::test]
async fn nor_does_it_where_each_leaf_is_managed() {
    let (_plane, space) = plane(&CRD.replace("x-kubernetes-map-type: atomic", ""), &[]).await;
    hides_only_itself(&space).await;
}

/// Somebody else writes into the resource of a process that lives.
#[tokio::test]
async fn a_resource_with_such_a_value_is_set_right_and_removed() {
    let space = space().await;
    let one = space.ready_pod("one").await.unwrap();
    let entry = json!({ "deep/1": nested(200) });
    space.leave_unread("one", Some(&one), &entry).await.unwrap();
    let owner = space.discovery(&one).await.unwrap();
    let held = owner.register(item("x", 1)).await.unwrap();
    assert_eq!(listed(&owner).await, [1]);
    let stored = space.resource("one").await.unwrap().unwrap();
    assert_eq!(stored.data["spec"]["data"]["item"].as_object().unwrap().len(), 1, "{stored:?}");
    held.deregister().await.unwrap();
    assert!(space.resource("one").await.unwrap().is_none(), "an empty resource is left");
    owner.shutdown(Duration::from_secs(20)).await;

    space.leave_unread("one", None, &entry).await.unwrap();
    let owner = space.discovery(&one).await.unwrap();
    let _held = owner.register(item("x", 2)).await.unwrap();
    assert_eq!(listed(&owner).await, [2]);
    assert!(owner.shutdown(Duration::from_secs(20)).await.is_clean());
}

#[tokio::test]
async fn the_deepest_value_is_read_by_everybody_and_a_deeper_one_refused() {
    let (_plane, space) = plane(&CRD.replace("x-kubernetes-map-type: atomic", ""), &[]).await;
    let one = space.ready_pod("one").await.unwrap();
    let owner = space.discovery(&one).await.unwrap();
    let view = owner.view::<Deep>(Query::all()).await.unwrap();
    // With the record's own object.
    let deepest = Deep { value: nested(discovery_dynamo::layout::MAX_KUBERNETES_DEPTH - 1) };
    let held = owner.register(deepest.clone()).await.unwrap();
    until("it is shown", || async { view.load().iter().any(|record| **record == deepest) }).await;
    // As kube reads them: so does NVIDIA Dynamo.
    let listed = space.resources().list(&kube::api::ListParams::default()).await.unwrap();
    assert_eq!(listed.items.len(), 1);
    space.resources().list_metadata(&kube::api::ListParams::default()).await.unwrap();
    for deeper in [nested(discovery_dynamo::layout::MAX_KUBERNETES_DEPTH), nested(500)] {
        let error = held.update(Deep { value: deeper }).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::InvalidValue, Effect::None), "{error}");
        assert!(error.to_string().contains("levels"), "{error}");
    }
    assert!(view.load().iter().any(|record| **record == deepest), "what was stored is gone");
    owner.shutdown(Duration::from_secs(20)).await;
}
