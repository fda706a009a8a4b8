//! Writes of the own resource between which somebody else's comes, or which arrive when nobody waits for them any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use discovery_core::Query;
use discovery_deploy::{ADMISSION, CRD};
use discovery_k8s::{GROUP, KIND, PLURAL, VERSION};
use futures_util::FutureExt;
use http::Method;
use http::header::CONTENT_TYPE;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::{mpsc, watch};

use crate::alone::plane;
use crate::gateway::Gateway;
use crate::support::client::connect;
use crate::support::cluster::{as_pod, discovery, until};
use crate::{Item, item, listed, shows, space};

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
        move |request, answer| {
            let is_repair =
                request.headers().get(CONTENT_TYPE).is_some_and(|sort| sort == "application/json-patch+json");
            if !is_repair || repairs.fetch_add(1, Ordering::Relaxed) > 0 {
                return answer;
            }
            let resources = resources.clone();
            async move {
                let label = json!({ "metadata": { "labels": { "seen-by": "somebody" } } });
                resources.patch("one", &PatchParams::default(), &Patch::Merge(&label)).await.unwrap();
                answer.await
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

/// A first write may stand in a connection for longer than anybody waits for it.
#[tokio::test]
async fn a_first_write_that_arrives_late_brings_nothing_back() {
    let space = space().await;
    let reader = space.discovery(&space.pod("reader").await.unwrap()).await.unwrap();
    for (name, ends) in [("goes-on", false), ("ends", true)] {
        let pod = space.ready_pod(name).await.unwrap();
        let (release, released) = watch::channel(false);
        let (answered, mut answers) = mpsc::channel(1);
        let first = AtomicBool::new(true);
        let gateway = Gateway::start(&space, move |request, answer| {
            if request.method() != Method::PATCH || !first.swap(false, Ordering::Relaxed) {
                return answer;
            }
            let (mut released, answered) = (released.clone(), answered.clone());
            async move {
                released.wait_for(|released| *released).await.unwrap();
                let answer = answer.await;
                answered.send(answer.status()).await.unwrap();
                answer
            }
            .boxed()
        })
        .await;
        let owner = discovery(gateway.environment(&space, &pod)).await.unwrap();
        let held = owner.register(item("x", 1)).await.unwrap();
        assert_eq!(listed(&reader).await, [1], "its second write");
        held.deregister().await.unwrap();
        assert_eq!(listed(&reader).await, [0_u64; 0]);
        if ends {
            assert!(owner.shutdown(Duration::from_secs(20)).await.is_clean());
        }
        release.send_replace(true);
        let late = answers.recv().await.unwrap();
        assert_eq!(listed(&reader).await, [0_u64; 0], "{name}: what was withdrawn is back, by a write that got {late}");
        owner.shutdown(Duration::from_secs(20)).await;
        assert_eq!(listed(&reader).await, [0_u64; 0]);
    }
    reader.shutdown(Duration::from_secs(20)).await;
}

/// An apply leaves it in, and the policy lets nobody write what belongs to others besides. It would outlive its pod, too.
#[tokio::test]
async fn an_owner_that_somebody_added_is_taken_out() {
    let (plane, space) = plane(&format!("{CRD}---\n{ADMISSION}"), &[]).await;
    let pod = space.ready_pod("one").await.unwrap();
    let environment = as_pod(&plane, &space, &pod).await;
    let own: Client = connect(environment.path("KUBECONFIG").unwrap()).await.unwrap();
    let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, KIND), PLURAL);
    let own: Api<DynamicObject> = Api::namespaced_with(own, &space.namespace, &kind);
    let foreign: DynamicObject = serde_json::from_value(json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": KIND, "metadata": { "name": "foreign" }, "spec": { "data": {} },
    }))
    .unwrap();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    until("the policy is in force", || async {
        own.create(&dry, &foreign).await.is_err_and(|error| error.to_string().contains("discovery-own-metadata"))
    })
    .await;
    let owner = discovery(environment).await.unwrap();
    let held = owner.register(item("x", 1)).await.unwrap();
    let owners = || async {
        let stored = space.resource("one").await.unwrap().unwrap();
        stored.metadata.owner_references.unwrap_or_default()
    };
    // One that lives: the garbage collector takes out those that do not.
    let accounts: Api<ServiceAccount> = Api::namespaced(space.cluster.client.clone(), &space.namespace);
    let account = accounts.get("default").await.unwrap();
    let mut both = owners().await;
    both.push(OwnerReference {
        api_version: "v1".to_owned(),
        kind: "ServiceAccount".to_owned(),
        name: "default".to_owned(),
        uid: account.metadata.uid.unwrap(),
        ..OwnerReference::default()
    });
    let added = json!({ "metadata": { "ownerReferences": both } });
    space.resources().patch("one", &PatchParams::default(), &Patch::Merge(&added)).await.unwrap();
    held.update(item("x", 2)).await.unwrap();
    until("its only owner is the pod", || async {
        owners().await.iter().map(|owner| owner.uid.as_str()).collect::<Vec<_>>() == [pod.uid.as_str()]
    })
    .await;
    assert!(held.state().is_registered());
    assert!(owner.shutdown(Duration::from_secs(20)).await.is_clean());
}
