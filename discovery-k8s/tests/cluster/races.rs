//! Writes of the own resource between which somebody else's comes, or which arrive when nobody waits for them any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use discovery_core::Query;
use discovery_deploy::CRD;
use futures_util::FutureExt;
use http::Method;
use http::header::CONTENT_TYPE;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::alone::plane;
use crate::gateway::Gateway;
use crate::support::cluster::{discovery, until};
use crate::{Item, item, shows};

/// NVIDIA's own CRD does not mark the data as one value: managers then own leaves of it, and an apply leaves in what
/// another has put there.
#[tokio::test]
async fn what_another_manager_put_there_is_taken_out_though_somebody_writes_meanwhile() {
    let granular = CRD.replace("x-kubernetes-map-type: atomic", "");
    assert_ne!(granular, CRD);
    let (_plane, space) = plane(&granular, &[]).await;
    let pod = space.ready_pod("one").await.unwrap();
    let repairs = Arc::new(AtomicUsize::new(0));
    let gateway = Gateway::start(&space, {
        let (repairs, resources) = (Arc::clone(&repairs), space.resources());
        move |request| {
            let is_repair =
                request.headers().get(CONTENT_TYPE).is_some_and(|sort| sort == "application/json-patch+json");
            if request.method() != Method::PATCH || !is_repair || repairs.fetch_add(1, Ordering::Relaxed) > 0 {
                return async {}.boxed();
            }
            let resources = resources.clone();
            async move {
                let label = json!({ "metadata": { "labels": { "seen-by": "somebody" } } });
                resources.patch("one", &PatchParams::default(), &Patch::Merge(&label)).await.unwrap();
            }
            .boxed()
        }
    })
    .await;
    let owner = discovery(gateway.environment(&space, &pod)).await.unwrap();
    let view = owner.view::<Item>(Query::all()).await.unwrap();
    let held = owner.register(item("x", 1)).await.unwrap();
    let strange = json!({
        "apiVersion": "nvidia.com/v1alpha1", "kind": "DynamoWorkerMetadata", "metadata": { "name": "one" },
        "spec": { "data": { "item": { "z/1": { "place": "z", "n": 8 } } } },
    });
    space.resources().patch("one", &PatchParams::apply("stranger"), &Patch::Apply(&strange)).await.unwrap();
    held.update(item("x", 3)).await.unwrap();
    shows(&view, &[3]).await;
    assert!(held.state().is_registered(), "{:?}", held.state());
    assert!(repairs.load(Ordering::Relaxed) > 1, "nothing came in between");
    let expected = json!({ "endpoints": {}, "model_cards": {}, "event_channels": {}, "event_sources": {},
        "item": { format!("x/{}", held.instance()): { "place": "x", "n": 3 } } });
    until("the stranger's record is gone", || async {
        space.resource("one").await.unwrap().is_some_and(|stored| stored.data["spec"]["data"] == expected)
    })
    .await;
    assert!(owner.shutdown(Duration::from_secs(20)).await.is_clean());
}
