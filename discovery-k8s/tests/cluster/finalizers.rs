//! Resources that somebody's finalizer holds.

use std::time::Duration;

use discovery_core::ErrorKind;
use discovery_core::backend::SessionRequest;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::cluster::{Space, backend, until};
use crate::{item, listed, one_shown, shows, space};

const FINALIZER: &str = "test.invalid/kept";

async fn hold(space: &Space, finalizers: Value) {
    let patch = json!({ "metadata": { "finalizers": finalizers } });
    space.resources().patch("one", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

#[tokio::test]
async fn what_is_withdrawn_goes_though_a_finalizer_holds_the_resource() {
    let space = space().await;
    let (owner, view, held) = one_shown(&space).await;
    hold(&space, json!([FINALIZER])).await;
    held.deregister().await.unwrap();
    assert_eq!(listed(&owner).await, [0_u64; 0]);
    shows(&view, &[]).await;
    let stored = space.resource("one").await.unwrap().unwrap();
    assert!(stored.metadata.deletion_timestamp.is_some());

    let held = owner.register(item("y", 2)).await.unwrap();
    assert_eq!(listed(&owner).await, [2]);
    hold(&space, json!(null)).await;
    until("it is there anew", || async {
        let stored = space.resource("one").await.unwrap();
        stored.is_some_and(|stored| stored.metadata.deletion_timestamp.is_none())
    })
    .await;
    held.wait_for(discovery_core::RegistrationState::is_registered).await;
    assert_eq!(listed(&owner).await, [2]);
    hold(&space, json!([FINALIZER])).await;
    assert!(owner.shutdown(Duration::from_secs(20)).await.is_clean());
    let stored = space.resource("one").await.unwrap().unwrap();
    assert_eq!(stored.data["spec"]["data"].get("item"), None, "a handle that is closed leaves nothing");
    hold(&space, json!(null)).await;
}

#[tokio::test]
async fn who_holds_an_earlier_pod_s_resource_is_told() {
    let space = space().await;
    let one = space.ready_pod("one").await.unwrap();
    // Without an owner: the garbage collector, which would remove a dead pod's at the same moment, leaves it alone.
    space.leave("one", None, &json!({ "x/1": { "place": "x", "n": 9 } })).await.unwrap();
    hold(&space, json!([FINALIZER])).await;
    let backend = backend(space.environment(&one)).await.unwrap();
    let error = backend.open(&SessionRequest::new(None, None)).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let patch = format!("`kubectl -n {} patch dynamoworkermetadatas one --type=merge", space.namespace);
    assert!(error.message().contains(FINALIZER) && error.message().contains(&patch), "{error}");
    hold(&space, json!(null)).await;
    until("it is gone", || async { space.resource("one").await.unwrap().is_none() }).await;
    backend.open(&SessionRequest::new(None, None)).await.unwrap().close().await.unwrap();
}
