//! The backend on a real control plane: the one that `KUBECONFIG` names, or else the testbed's.

mod alone;
mod container;
mod deep;
mod finalizers;
mod gateway;
mod incluster;
mod namespaces;
mod races;
mod slices;
#[path = "../support/mod.rs"]
mod support;
mod texts;
mod told;
mod unlisted;
mod unrecognised;

use std::time::Duration;

use discovery_core::{Discovery, Effect, ErrorKind, Path, Query, Record, Registration, Result, View};
use discovery_k8s::{GROUP, PLURAL, UNKNOWN_READINESS_VARIABLE, VERSION};
use http::HeaderValue;
use http::header::ACCEPT;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde::{Deserialize, Serialize};
use serde_json::json;
use support::cluster::{Cluster, Space, State, as_pod, discovery, testbed, until};

/// What the backend declares as `R`.
const RECOVERY: Duration = Duration::from_secs(10);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Item {
    place: String,
    n: u64,
}

impl Record for Item {
    const KIND: &'static str = "item";

    fn path(&self) -> Result<Path> {
        Path::new(Self::KIND, [&self.place])
    }
}

fn item(place: &str, n: u64) -> Item {
    Item { place: place.to_owned(), n }
}

/// A namespace on the control plane of all tests.
async fn space() -> Space {
    Cluster::shared().await.unwrap().space().await.unwrap()
}

async fn shows(view: &View<Item>, wanted: &[u64]) {
    let shown = || {
        let mut shown: Vec<u64> = view.load().iter().map(|record| record.n).collect();
        shown.sort_unstable();
        shown
    };
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while shown() != wanted {
        let late = tokio::time::Instant::now() >= deadline;
        assert!(!late, "{wanted:?} is not shown after a minute, but {:?}, {:?}", shown(), view.freshness());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A ready pod "one" that shows a record.
async fn one_shown(space: &Space) -> (Discovery, View<Item>, Registration<Item>) {
    let pod = space.ready_pod("one").await.unwrap();
    let owner = space.discovery(&pod).await.unwrap();
    let view = owner.view::<Item>(Query::all()).await.unwrap();
    let held = owner.register(item("x", 1)).await.unwrap();
    shows(&view, &[1]).await;
    (owner, view, held)
}

async fn listed(discovery: &Discovery) -> Vec<u64> {
    let mut listed: Vec<u64> =
        discovery.list::<Item>(Query::all()).await.unwrap().iter().map(|record| record.n).collect();
    listed.sort_unstable();
    listed
}

#[tokio::test]
async fn two_pods_find_each_other_while_they_are_ready() {
    let space = space().await;
    let (one, two) = (space.ready_pod("one").await.unwrap(), space.ready_pod("two").await.unwrap());
    let (writer, reader) = (space.discovery(&one).await.unwrap(), space.discovery(&two).await.unwrap());
    let view = reader.view::<Item>(Query::all()).await.unwrap();
    let (x, y) = tokio::join!(writer.register(item("x", 1)), writer.register(item("y", 2)));
    let (x, _y) = (x.unwrap(), y.unwrap());
    assert_eq!(listed(&reader).await, [1, 2], "beside an open view");
    assert_eq!(listed(&writer).await, [1, 2], "without one");
    shows(&view, &[1, 2]).await;
    let stored = space.resource("one").await.unwrap().unwrap();
    assert!(stored.metadata.generation.unwrap() <= 2, "few patches: {:?}", stored.metadata.generation);
    view.reached(&x.update(item("x", 3)).await.unwrap()).await.unwrap();
    assert_eq!(view.load().iter().map(|record| record.n).max(), Some(3), "reached and not shown");
    for state in [State::NotReady, State::Ready, State::Terminating] {
        space.set(&one, state).await.unwrap();
        shows(&view, if state == State::Ready { &[2, 3] } else { &[] }).await;
    }
    assert!(writer.shutdown(Duration::from_secs(20)).await.is_clean());
    assert!(space.resource("one").await.unwrap().is_none(), "records are left behind");
    assert!(reader.shutdown(Duration::from_secs(20)).await.is_clean());
}

#[tokio::test]
async fn what_others_delete_or_write_over_is_put_back() {
    let space = space().await;
    let (owner, view, held) = one_shown(&space).await;
    space.resources().delete("one", &DeleteParams::default()).await.unwrap();
    until("the resource is back", || async { space.resource("one").await.unwrap().is_some() }).await;
    shows(&view, &[1]).await;
    let entry = format!("x/{}", held.instance());
    let strange = json!({ "spec": { "data": { "item": { entry.as_str(): { "place": "x", "n": 9 }, "z/1": { "place": "z", "n": 8 } },
        "endpoints": { "what is this": {} } } } });
    let strangers = PatchParams { field_manager: Some("stranger".to_owned()), ..PatchParams::default() };
    space.resources().patch("one", &strangers, &Patch::Merge(&strange)).await.unwrap();
    let expected = json!({ "endpoints": {}, "model_cards": {}, "event_channels": {}, "event_sources": {},
        "item": { entry.as_str(): { "place": "x", "n": 1 } } });
    until("the data is right again", || async {
        space.resource("one").await.unwrap().is_some_and(|stored| stored.data["spec"]["data"] == expected)
    })
    .await;
    shows(&view, &[1]).await;
    owner.shutdown(Duration::from_secs(20)).await;
}

#[tokio::test]
async fn a_pod_s_next_incarnation_takes_its_name_and_the_first_one_is_dead() {
    let space = space().await;
    let old = space.ready_pod("one").await.unwrap();
    let first = space.discovery(&old).await.unwrap();
    let held = first.register(item("x", 1)).await.unwrap();
    let second = space.discovery(&old).await.unwrap();
    let error = second.register(item("y", 2)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("container"), "{error}");
    let new = space.ready_pod("one").await.unwrap();
    assert_ne!(old.uid, new.uid);
    let next = space.discovery(&new).await.unwrap();
    let view = next.view::<Item>(Query::all()).await.unwrap();
    shows(&view, &[]).await;
    let _kept = next.register(item("x", 2)).await.unwrap();
    shows(&view, &[2]).await;
    until("the dead pod's process knows", || async { !held.state().is_registered() }).await;
    assert_eq!(listed(&next).await, [2], "a late write of the dead pod's process");
    next.shutdown(Duration::from_secs(20)).await;
}

/// Its token is worth nothing any more: it is told no better than that. Its resource stays, as it does where the garbage
/// collector is slow.
#[tokio::test]
async fn the_process_of_a_deleted_pod_says_that_its_session_is_lost() {
    let space = space().await;
    let pod = space.ready_pod("one").await.unwrap();
    let owner = discovery(as_pod(testbed().await.unwrap(), &space, &pod).await).await.unwrap();
    let held = owner.register(item("x", 1)).await.unwrap();
    assert!(held.state().is_registered());
    let keep = |finalizers: serde_json::Value| json!({ "metadata": { "finalizers": finalizers } });
    let merge = PatchParams::default();
    space.resources().patch("one", &merge, &Patch::Merge(&keep(json!(["test.invalid/kept"])))).await.unwrap();
    space.delete_pod("one").await.unwrap();
    until("the dead pod's process knows", || async { !held.state().is_registered() }).await;
    let failed = owner.register(item("y", 2)).await;
    assert!(failed.is_err(), "{:?}", failed.map(|held| held.state()));
    owner.shutdown(Duration::from_secs(1)).await;
    space.resources().patch("one", &merge, &Patch::Merge(&keep(json!(null)))).await.unwrap();
    until("the dead pod's records are gone", || async { space.resource("one").await.unwrap().is_none() }).await;
}

/// The reference counts it as not ready, and the API says that it is to be read as ready.
#[tokio::test]
async fn a_slice_that_says_nothing_of_ready_is_read_as_the_reader_is_told() {
    let space = space().await;
    let one = space.ready_pod("one").await.unwrap();
    let owner = space.discovery(&one).await.unwrap();
    let lenient = space.environment(&one).with(UNKNOWN_READINESS_VARIABLE, "ready");
    let lenient = discovery(lenient).await.unwrap();
    let (strict_view, lenient_view) =
        (owner.view::<Item>(Query::all()).await.unwrap(), lenient.view::<Item>(Query::all()).await.unwrap());
    let _held = owner.register(item("x", 1)).await.unwrap();
    shows(&strict_view, &[1]).await;
    space.set(&one, State::Unknown).await.unwrap();
    let stored = space.slices().get("slice-one").await.unwrap();
    assert!(stored.endpoints[0].conditions.as_ref().is_none_or(|conditions| conditions.ready.is_none()));
    shows(&strict_view, &[]).await;
    assert_eq!(listed(&owner).await, [0_u64; 0]);
    assert_eq!(listed(&lenient).await, [1]);
    shows(&lenient_view, &[1]).await;
    for handle in [owner, lenient] {
        handle.shutdown(Duration::from_secs(20)).await;
    }
}

#[tokio::test]
async fn a_live_process_s_last_record_takes_the_resource_with_it() {
    let space = space().await;
    let one = space.ready_pod("one").await.unwrap();
    let owner = space.discovery(&one).await.unwrap();
    let (x, y) = tokio::join!(owner.register(item("x", 1)), owner.register(item("y", 2)));
    x.unwrap().deregister().await.unwrap();
    assert!(space.resource("one").await.unwrap().is_some(), "the other record is in it");
    y.unwrap().deregister().await.unwrap();
    assert!(space.resource("one").await.unwrap().is_none(), "an empty resource is left");
    let _again = owner.register(item("x", 3)).await.unwrap();
    assert_eq!(listed(&owner).await, [3]);
    owner.shutdown(Duration::from_secs(20)).await;
}

/// What the API server reads as YAML has names of a bounded length.
#[tokio::test]
async fn the_longest_name_is_taken_and_a_longer_one_refused_before_it_is_sent() {
    let space = space().await;
    let one = space.ready_pod("one").await.unwrap();
    let owner = space.discovery(&one).await.unwrap();
    let id = owner.instance_id().await.unwrap().to_string();
    // With a slash between them, in quotes.
    let longest = "x".repeat(1024 - 3 - id.len());
    let _held = owner.register(item(&longest, 1)).await.unwrap();
    assert_eq!(listed(&owner).await, [1]);
    let error = owner.register(item(&(longest + "x"), 2)).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::InvalidKey, Effect::None), "{error}");
    owner.shutdown(Duration::from_secs(20)).await;
}

/// What `kubectl get dwm` prints, and with `--output=wide` what has a priority.
#[tokio::test]
async fn the_api_server_s_table_says_whose_each_resource_is() {
    let space = space().await;
    let (one, two) = (space.ready_pod("one").await.unwrap(), space.pod("two").await.unwrap());
    let owner = space.discovery(&one).await.unwrap();
    let _held = owner.register(item("x", 1)).await.unwrap();
    space.leave("two-engine", Some(&two), &json!({ "y/1": { "place": "y", "n": 2 } })).await.unwrap();
    let path = format!("/apis/{GROUP}/{VERSION}/namespaces/{}/{PLURAL}", space.namespace);
    let mut request = kube::core::Request::new(path).list(&ListParams::default()).unwrap();
    let table = HeaderValue::from_static("application/json;as=Table;v=v1;g=meta.k8s.io");
    request.headers_mut().insert(ACCEPT, table);
    let table: serde_json::Value = space.cluster.client.request(request).await.unwrap();
    let columns = table["columnDefinitions"].as_array().unwrap().iter();
    let columns: Vec<_> = columns.map(|column| (column["name"].as_str().unwrap(), &column["priority"])).collect();
    let (always, wide) = (json!(0), json!(1));
    assert_eq!(columns, [("Name", &always), ("Pod", &always), ("Pod UID", &wide), ("Age", &always)], "{table:#}");
    let rows = table["rows"].as_array().unwrap().iter();
    let rows: Vec<_> = rows.map(|row| row["cells"].as_array().unwrap().clone()).collect();
    let expected = [("one", "one", &one.uid), ("two-engine", "two", &two.uid)];
    assert_eq!(rows.len(), expected.len(), "{table:#}");
    for (cells, (name, pod, uid)) in rows.iter().zip(expected) {
        assert_eq!(cells[..3], [json!(name), json!(pod), json!(uid)], "{table:#}");
        // `<unknown>` or `<invalid>` where there is no such time.
        assert!(cells[3].as_str().unwrap().ends_with('s'), "{table:#}");
    }
    owner.shutdown(Duration::from_secs(20)).await;
}

#[tokio::test]
async fn moving_between_slices_is_no_change_and_two_uids_hide_both() {
    let space = space().await;
    let (one, other) = (space.ready_pod("one").await.unwrap(), space.pod("other").await.unwrap());
    let owner = space.discovery(&one).await.unwrap();
    let view = owner.view::<Item>(Query::all()).await.unwrap();
    let _held = owner.register(item("x", 1)).await.unwrap();
    shows(&view, &[1]).await;
    let before = view.load().version();
    space.slice("elsewhere", &[(&one, State::Ready)]).await.unwrap();
    space.delete_slice("slice-one").await.unwrap();
    assert_eq!(listed(&owner).await, [1]);
    assert_eq!(view.load().version(), before, "moving made a change");
    let impostor = support::cluster::Made { name: one.name.clone(), uid: other.uid };
    space.slice("impostor", &[(&impostor, State::Ready)]).await.unwrap();
    shows(&view, &[]).await;
    space.delete_slice("impostor").await.unwrap();
    shows(&view, &[1]).await;
    owner.shutdown(Duration::from_secs(20)).await;
}

#[tokio::test]
async fn what_stands_under_the_own_name_is_removed_unless_its_pod_lives() {
    let space = space().await;
    let (one, other) = (space.ready_pod("one").await.unwrap(), space.pod("other").await.unwrap());
    let entry = json!({ "x/1": { "place": "x", "n": 9 } });
    let stale = space.leave("one", None, &entry).await.unwrap();
    let owner = space.discovery(&one).await.unwrap();
    let view = owner.view::<Item>(Query::all()).await.unwrap();
    let held = owner.register(item("x", 1)).await.unwrap();
    shows(&view, &[1]).await;
    let stored = space.resource("one").await.unwrap().unwrap();
    assert_ne!(stored.metadata.uid, stale.metadata.uid, "the resource of nobody was taken over");
    assert!(held.state().is_registered());
    assert!(owner.shutdown(Duration::from_secs(20)).await.is_clean());

    let dead = space.pod("dead").await.unwrap();
    space.delete_pod("dead").await.unwrap();
    let stale = space.leave("one", Some(&dead), &entry).await.unwrap();
    let owner = space.discovery(&one).await.unwrap();
    let _held = owner.register(item("x", 1)).await.unwrap();
    let stored = space.resource("one").await.unwrap().unwrap();
    assert_ne!(stored.metadata.uid, stale.metadata.uid, "a dead pod's resource was taken over");
    assert!(owner.shutdown(Duration::from_secs(20)).await.is_clean());

    let living = space.leave("one", Some(&other), &entry).await.unwrap();
    let owner = space.discovery(&one).await.unwrap();
    let error = owner.register(item("x", 1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("other"), "{error}");
    owner.shutdown(Duration::from_secs(20)).await;
    let stored = space.resource("one").await.unwrap().unwrap();
    assert_eq!(stored.metadata.resource_version, living.metadata.resource_version, "another pod's was touched");
}
