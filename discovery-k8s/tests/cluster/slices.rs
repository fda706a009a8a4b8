//! Endpoints in more than one slice, which the real EndpointSlice controller makes, changes and moves.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use discovery_core::{Query, View, ViewChange};
use discovery_k8s::DISCOVERY_LABEL;
use discovery_testbed::Network;
use futures_util::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::support::cluster::{Made, Space, State, discovery, testbed, until};
use crate::{Item, shows, space};

/// More than one slice holds, of which the controller puts a hundred endpoints into each.
const PODS: u64 = 130;
const SERVICE: &str = "many";
const NODE: &str = "slices";

/// A pod that is ready and has registered, of the Service.
async fn worker(space: &Space, n: u64) -> Made {
    let name = format!("many-{n}");
    let pod = json!({
        "metadata": { "name": name, "labels": { "app": SERVICE } },
        "spec": { "nodeName": NODE, "containers": [{ "name": "main", "image": "none" }], "automountServiceAccountToken": false },
    });
    let pod = serde_json::from_value(pod).expect("a pod");
    let made = space.pods().create(&PostParams::default(), &pod).await.unwrap();
    let made = Made { name, uid: made.metadata.uid.unwrap() };
    report(space, &made, n, true).await;
    space.leave(&made.name, Some(&made), &json!({ format!("x/{n:x}"): { "place": "x", "n": n } })).await.unwrap();
    made
}

async fn report(space: &Space, pod: &Made, n: u64, ready: bool) {
    let address = format!("10.9.{}.{}", n / 250, n % 250 + 1);
    let status = json!({ "status": {
        "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
        "conditions": [{ "type": "Ready", "status": if ready { "True" } else { "False" } }],
    } });
    space.pods().patch_status(&pod.name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
}

fn services(space: &Space) -> Api<Service> {
    Api::namespaced(space.cluster.client.clone(), &space.namespace)
}

/// The controller's slices.
async fn slices(space: &Space) -> Vec<EndpointSlice> {
    let of = ListParams::default().labels(&format!("kubernetes.io/service-name={SERVICE}"));
    space.slices().list(&of).await.unwrap().items
}

fn port(slice: &EndpointSlice) -> Option<i32> {
    slice.ports.iter().flatten().find_map(|port| port.port)
}

/// The numbers of all records that ever left a view.
fn leavers(view: &View<Item>) -> Arc<Mutex<BTreeSet<u64>>> {
    let left = Arc::new(Mutex::new(BTreeSet::new()));
    let (mut changes, told) = (view.changes(), Arc::clone(&left));
    tokio::spawn(async move {
        while let Some(batch) = changes.next().await {
            let gone = batch.changes().iter().filter_map(|change| match change {
                ViewChange::Removed(record) => Some(record.n),
                _ => None,
            });
            told.lock().unwrap_or_else(PoisonError::into_inner).extend(gone);
        }
    });
    left
}

/// Pods leave and cease to be ready, and a Service's new port has the controller deal out all endpoints anew: it writes one
/// slice after the other, and who is taken out of one may stand in another only after that (KEY 7).
#[tokio::test]
async fn no_ready_pod_leaves_a_view_while_the_controller_deals_endpoints_out_anew() {
    let space = space().await;
    testbed().await.unwrap().node(NODE).await.unwrap();
    let service = serde_json::from_value(json!({
        "metadata": { "name": SERVICE, "labels": { DISCOVERY_LABEL: "true" } },
        "spec": { "clusterIP": "None", "selector": { "app": SERVICE }, "ports": [{ "port": 1 }] },
    }));
    services(&space).create(&PostParams::default(), &service.unwrap()).await.unwrap();
    let pods: Vec<Made> = stream::iter(0..PODS).map(|n| worker(&space, n)).buffered(8).collect().await;
    let reader = space.discovery(&space.pod("reader").await.unwrap()).await.unwrap();
    let view = reader.view::<Item>(Query::all()).await.unwrap();
    let all: Vec<u64> = (0..PODS).collect();
    shows(&view, &all).await;
    let left = leavers(&view);
    let has_left = || left.lock().unwrap_or_else(PoisonError::into_inner).clone();
    assert!(slices(&space).await.len() > 1, "they are all in one slice");

    let deal = async |number: i32| {
        let ports = json!({ "spec": { "ports": [{ "port": number }] } });
        services(&space).patch(SERVICE, &PatchParams::default(), &Patch::Merge(&ports)).await.unwrap();
        until("every slice has the new port", || async {
            slices(&space).await.iter().all(|slice| port(slice) == Some(number))
        })
        .await;
    };
    for number in 2..10 {
        deal(number).await;
        shows(&view, &all).await;
        assert_eq!(has_left(), BTreeSet::new(), "ready pods left when port {number} came");
    }

    // Half of those in each slice go, and some are not ready: those and no others leave.
    let (gone, rest): (Vec<u64>, Vec<u64>) = all.iter().partition(|n| *n % 2 == 0);
    let (unready, kept) = rest.split_at(5);
    let leave = gone.iter().map(|n| space.delete_pod(&pods[*n as usize].name));
    stream::iter(leave).buffer_unordered(8).try_collect::<()>().await.unwrap();
    for n in unready {
        report(&space, &pods[*n as usize], *n, false).await;
    }
    shows(&view, kept).await;
    // There is room for all that are left in one slice.
    deal(10).await;
    shows(&view, kept).await;
    let expected: BTreeSet<u64> = gone.iter().chain(unready).copied().collect();
    assert_eq!(has_left(), expected, "who left, and who was to");

    // Somebody deletes the slices: the controller makes them anew.
    for slice in slices(&space).await {
        let name = slice.metadata.name.unwrap();
        space.slices().delete(&name, &DeleteParams::default()).await.unwrap();
        until("the slice is made anew", || async {
            let held: usize = slices(&space).await.iter().map(|slice| slice.endpoints.len()).sum();
            held == rest.len()
        })
        .await;
    }
    shows(&view, kept).await;
    reader.shutdown(std::time::Duration::from_secs(20)).await;
}

/// Packets get lost without a word once the first of a move's two writes was heard: nobody knows that the second is missed.
#[tokio::test]
async fn no_ready_pod_leaves_a_view_whose_connection_dies_in_the_middle_of_a_move() {
    let space = space().await;
    let (one, two) = (space.pod("one").await.unwrap(), space.pod("two").await.unwrap());
    for (n, pod) in [(1, &one), (2, &two)] {
        space.leave(&pod.name, Some(pod), &json!({ format!("x/{n:x}"): { "place": "x", "n": n } })).await.unwrap();
    }
    space.slice("a", &[(&one, State::Ready), (&two, State::Ready)]).await.unwrap();
    let cluster = testbed().await.unwrap();
    let network = Network::to([cluster.kubeconfig().address().await.unwrap()]).unwrap();
    let kubeconfig = cluster.save(&cluster.kubeconfig().through(&network.proxies()[0]).unwrap()).unwrap();
    let environment = space.environment(&space.pod("reader").await.unwrap()).with("KUBECONFIG", kubeconfig);
    let reader = discovery(environment).await.unwrap();
    let view = reader.view::<Item>(Query::all()).await.unwrap();
    shows(&view, &[1, 2]).await;
    let left = leavers(&view);
    let mut changes = view.changes();
    for (from, to) in [("a", "b"), ("b", "a"), ("a", "b")] {
        let is_heard = async {
            while view.load().len() > 1 {
                changes.next().await.unwrap();
            }
        };
        // The other pod shows that this write was heard.
        let taken_out = async { space.slice(from, &[(&two, State::NotReady)]).await };
        tokio::join!(is_heard, taken_out).1.unwrap();
        network.change(|way| way.stalled = true);
        space.slice(to, &[(&one, State::Ready), (&two, State::Ready)]).await.unwrap();
        space.slice(from, &[]).await.unwrap();
        until("the view is stale", || async { view.freshness().stale_for().is_some() }).await;
        network.change(|way| way.stalled = false);
        until("the view is live", || async { view.freshness().is_live() }).await;
        shows(&view, &[1, 2]).await;
        assert_eq!(*left.lock().unwrap_or_else(PoisonError::into_inner), BTreeSet::from([2]), "who left");
    }
    reader.shutdown(std::time::Duration::from_secs(20)).await;
}
