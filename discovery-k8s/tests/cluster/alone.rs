//! What takes a control plane of a test's own: it has no CRD, forgets its history, or writes down who asks what.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use discovery_core::{Query, Scope};
use discovery_deploy::{CRD, Mode, rbac};
use discovery_k8s::{GROUP, PLURAL, VERSION};
use discovery_testbed::{ControlPlane, ControlPlaneOptions};
use futures_util::future::try_join_all;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::cluster::{Cluster, Made, Space, as_pod, backend, discovery, until};
use crate::{Item, RECOVERY, item, listed, shows};

/// What who registers asks again and again.
const READ: &str = "get dynamoworkermetadatas";

pub(crate) async fn plane(manifests: &str, flags: &[String]) -> (ControlPlane, Space) {
    let options = ControlPlaneOptions {
        manifests: manifests.to_owned(),
        api_server_flags: flags.to_vec(),
        ..ControlPlaneOptions::default()
    };
    let plane = ControlPlane::start_with(options).await.unwrap();
    let space = Cluster::of(&plane).await.unwrap().space().await.unwrap();
    (plane, space)
}

#[tokio::test]
async fn the_crd_may_come_late() {
    let (plane, space) = plane("", &[]).await;
    let (one, two) = (space.ready_pod("one").await.unwrap(), space.ready_pod("two").await.unwrap());
    let (writer, reader) = (space.discovery(&one).await.unwrap(), space.discovery(&two).await.unwrap());
    let view = reader.view::<Item>(Query::all()).await.unwrap();
    assert!(view.freshness().is_live() && view.load().is_empty(), "{:?}", view.freshness());
    let (held, applied) = tokio::join!(writer.register(item("x", 1)), plane.apply(CRD));
    applied.unwrap();
    assert!(held.unwrap().state().is_registered());
    // The guard is gone, and with it the record; one that is kept arrives.
    let _kept = writer.register(item("y", 2)).await.unwrap();
    shows(&view, &[2]).await;
    for handle in [writer, reader] {
        handle.shutdown(Duration::from_secs(20)).await;
    }
}

/// Without its cache the API server answers watches from etcd, whose compaction ends them with a 410 inside the stream;
/// and it streams no lists.
#[tokio::test]
async fn a_history_that_etcd_has_forgotten_is_read_anew() {
    let (plane, space) = plane(CRD, &["--watch-cache=false".to_owned()]).await;
    let (one, two) = (space.ready_pod("one").await.unwrap(), space.ready_pod("two").await.unwrap());
    let (network, kubeconfig) = plane.proxy().await.unwrap();
    let kubeconfig = plane.save(&kubeconfig).unwrap();
    let writer = space.discovery(&one).await.unwrap();
    let reader = discovery(space.environment(&two).with("KUBECONFIG", kubeconfig)).await.unwrap();
    let view = reader.view::<Item>(Query::all()).await.unwrap();
    let gone = writer.register(item("x", 1)).await.unwrap();
    let kept = writer.register(item("y", 2)).await.unwrap();
    shows(&view, &[1, 2]).await;
    let version = space.resource("one").await.unwrap().unwrap().metadata.resource_version.unwrap();
    network.cut();
    until("the view is stale", || async { view.freshness().stale_for().is_some() }).await;
    gone.deregister().await.unwrap();
    kept.update(item("y", 3)).await.unwrap();
    space.delete_slice("slice-two").await.unwrap();
    plane.etcd().compact().await.unwrap();
    let watch = format!(
        "--raw=/apis/{GROUP}/{VERSION}/namespaces/{}/{PLURAL}?watch=true&timeoutSeconds=1&resourceVersion={version}",
        space.namespace
    );
    let answer = plane.kubectl(["get", &watch]).await.unwrap();
    assert!(answer.contains(r#""code":410"#), "the history is still there: {answer}");
    assert_eq!(view.load().len(), 2, "the last known set");
    network.heal();
    shows(&view, &[3]).await;
    until("the view is live", || async { view.freshness().is_live() }).await;
    for handle in [writer, reader] {
        handle.shutdown(Duration::from_secs(20)).await;
    }
}

/// A handle as a process in this pod would have it, under an account of the pod's name.
async fn as_account(plane: &ControlPlane, space: &Space, pod: &Made) -> discovery_core::Discovery {
    plane.apply(&rbac(Some(&space.namespace), Some(&pod.name), Mode::Pod)).await.unwrap();
    let token = plane.kubectl(["create", "token", &pod.name, "--namespace", &space.namespace]).await.unwrap();
    let kubeconfig = plane.save(&plane.kubeconfig().with_token(token.trim())).unwrap();
    discovery(space.environment(pod).with("KUBECONFIG", kubeconfig)).await.unwrap()
}

/// It refuses whatever is asked before it has read the roles, its readiness included, and takes no pod's token before it
/// has read the pods.
#[tokio::test]
async fn a_server_that_starts_is_not_believed_when_it_refuses() {
    let (plane, space) = plane(CRD, &[]).await;
    let one = space.ready_pod("one").await.unwrap();
    let reader = backend(as_pod(&plane, &space, &one).await).await.unwrap();
    let mut met = 0;
    for round in 0.. {
        if met > 0 && round >= 5 {
            break;
        }
        assert!(round < 20, "it has refused nothing");
        plane.api().kill().await.unwrap();
        plane.api().launch().unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        while let Err(error) = reader.list(&Scope::all()).await {
            assert!(error.is_temporary(), "{error}");
            met += usize::from(error.message().contains("is starting"));
            assert!(Instant::now() < deadline, "still: {error}");
            // The time in which it refuses is short: no back-off steps over it.
            sleep(Duration::from_millis(2)).await;
        }
        plane.wait().await.unwrap();
    }
    reader.close().await.unwrap();
}

/// What an account has asked for, and when the server had received each of these requests.
fn asked(log: &Path, account: &str) -> BTreeMap<String, Vec<Timestamp>> {
    let mut asked: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for line in fs::read_to_string(log).unwrap().lines() {
        let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
        let user = event["user"]["username"].as_str().unwrap_or_default();
        if user.ends_with(&format!(":{account}")) {
            let what = ["verb", "resource"].map(|name| event[name].as_str().or(event["objectRef"][name].as_str()));
            let received = event["requestReceivedTimestamp"].as_str().unwrap().parse().unwrap();
            asked.entry(what.map(Option::unwrap_or_default).join(" ")).or_default().push(received);
        }
    }
    asked
}

fn counts(asked: &BTreeMap<String, Vec<Timestamp>>) -> BTreeMap<&str, usize> {
    asked.iter().map(|(what, received)| (what.as_str(), received.len())).collect()
}

#[tokio::test]
async fn who_registers_asks_little_and_who_views_has_two_watches() {
    let files = tempfile::tempdir().unwrap();
    let (policy, log) = (files.path().join("policy"), files.path().join("log"));
    let rule = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["ResponseStarted", "ResponseComplete"],
        "rules": [{ "level": "Metadata" }],
    });
    fs::write(&policy, rule.to_string()).unwrap();
    let flags = [format!("--audit-policy-file={}", policy.display()), format!("--audit-log-path={}", log.display())];
    let (plane, space) = plane(CRD, &flags).await;
    let (one, two) = (space.ready_pod("one").await.unwrap(), space.ready_pod("two").await.unwrap());
    let (writer, reader) = (as_account(&plane, &space, &one).await, as_account(&plane, &space, &two).await);

    let held = try_join_all((0..20).map(|n| writer.register(item(&format!("x{n}"), n)))).await.unwrap();
    let all: Vec<u64> = (0..20).collect();
    let view = reader.view::<Item>(Query::all()).await.unwrap();
    shows(&view, &all).await;
    // What opening the session read, and the first look, which comes at any moment of its R.
    let first = 1 + asked(&log, "one")[READ].len();
    let gaps = || -> Vec<Duration> {
        let reads = &asked(&log, "one")[READ];
        let gap = |pair: &[Timestamp]| pair[1].duration_since(pair[0]).unsigned_abs();
        reads[first.min(reads.len() - 1)..].windows(2).map(gap).collect()
    };
    // One read in each R, more by what a repair takes alone. That is as little where the machine leaves the server its time.
    let is_one_in_r = |gap: &Duration| gap.mul_f64(1.05) >= RECOVERY;
    until("the resource is looked at once in each R, twice in a row", || async {
        gaps().windows(2).any(|two| two.iter().all(is_one_in_r))
    })
    .await;
    let (writes, reads) = (asked(&log, "one"), asked(&log, "two"));
    println!("registering: {:?}, reads of its own after {:?}; viewing: {:?}", counts(&writes), gaps(), counts(&reads));
    assert!(gaps().iter().all(|gap| *gap <= RECOVERY), "what others did is found too late: {:?}", gaps());
    assert_eq!(writes["patch dynamoworkermetadatas"].len(), 1, "{writes:?}");
    assert!(!writes.keys().any(|what| what.starts_with("watch") || what.starts_with("list")), "{writes:?}");
    let watches = [("watch dynamoworkermetadatas", 1), ("watch endpointslices", 1)];
    assert_eq!(counts(&reads), BTreeMap::from(watches), "a viewer's requests");
    // Whether a pod is gone that no slice speaks of any more is asked once.
    space.delete_slice("slice-one").await.unwrap();
    let began = Instant::now();
    shows(&view, &[]).await;
    println!("a pod whose slice is deleted leaves after {:?}", began.elapsed());
    let reads = asked(&log, "two");
    let with_one = [watches[0], watches[1], ("list endpointslices", 1)];
    assert_eq!(counts(&reads), BTreeMap::from(with_one), "a viewer's requests");
    let log = fs::read_to_string(&log).unwrap();
    let opened = log.lines().filter(|line| line.contains(":two\"") && line.contains("\"verb\":\"watch\""));
    for line in opened {
        assert!(line.contains("allowWatchBookmarks=true"), "a quiet watch would fall behind the history: {line}");
    }
    drop(held);
    for handle in [writer, reader] {
        handle.shutdown(Duration::from_secs(20)).await;
    }
}

/// Its watches go on, and what it would have to ask is not allowed any more: it keeps the pod, and says that it may be wrong.
#[tokio::test]
async fn a_view_that_may_not_ask_whether_a_pod_is_gone_is_stale_until_it_may() {
    let (plane, space) = plane(CRD, &[]).await;
    let (one, two) = (space.ready_pod("one").await.unwrap(), space.ready_pod("two").await.unwrap());
    let (writer, reader) = (space.discovery(&one).await.unwrap(), as_account(&plane, &space, &two).await);
    let view = reader.view::<Item>(Query::all()).await.unwrap();
    let held = writer.register(item("x", 1)).await.unwrap();
    shows(&view, &[1]).await;
    let allowed = rbac(Some(&space.namespace), Some("two"), Mode::Pod);
    let slices = "resources: [endpointslices]\n    verbs: [";
    assert!(allowed.contains(&format!("{slices}list, watch]")), "{allowed}");
    plane.apply(&allowed.replace(&format!("{slices}list, watch]"), &format!("{slices}watch]"))).await.unwrap();
    let account = format!("--as=system:serviceaccount:{}:two", space.namespace);
    let asks = ["auth", "can-i", "list", "endpointslices.discovery.k8s.io", "--namespace", &space.namespace, &account];
    until("it may not list the slices", || async { plane.kubectl(asks).await.is_err() }).await;
    space.delete_slice("slice-one").await.unwrap();
    until("the view is stale", || async { !view.freshness().is_live() }).await;
    let freshness = format!("{:?}", view.freshness());
    assert!(freshness.contains("PermissionDenied") && freshness.contains("not allowed to list"), "{freshness}");
    assert_eq!(view.load().len(), 1, "nothing proves that it is gone");
    plane.apply(&allowed).await.unwrap();
    shows(&view, &[]).await;
    until("the view is live", || async { view.freshness().is_live() }).await;
    drop(held);
    for handle in [writer, reader] {
        handle.shutdown(Duration::from_secs(20)).await;
    }
}

/// Nothing but time is measured here, and on a control plane that does nothing else.
#[tokio::test]
async fn what_others_delete_is_back_within_r() {
    let (_plane, space) = plane(CRD, &[]).await;
    let one = space.ready_pod("one").await.unwrap();
    let owner = space.discovery(&one).await.unwrap();
    let _held = owner.register(item("x", 1)).await.unwrap();
    let limit = RECOVERY + Duration::from_secs(2);
    for round in 0..3 {
        space.resources().delete("one", &DeleteParams::default()).await.unwrap();
        let began = Instant::now();
        until("the resource is back", || async { space.resource("one").await.unwrap().is_some() }).await;
        let took = began.elapsed();
        println!("what others deleted is back after {took:?}");
        assert!(took <= limit, "round {round}: {took:?}");
    }
    owner.shutdown(Duration::from_secs(20)).await;
}

/// Its history begins anew below what views have seen, and a watch from a version to come is told nothing (FLT 10).
#[tokio::test]
async fn views_follow_a_store_that_was_restored_from_a_backup() {
    let (plane, space) = plane(CRD, &[]).await;
    let (one, two) = (space.ready_pod("one").await.unwrap(), space.ready_pod("two").await.unwrap());
    let (writer, reader) = (space.discovery(&one).await.unwrap(), space.discovery(&two).await.unwrap());
    let view = reader.view::<Item>(Query::all()).await.unwrap();
    let x = writer.register(item("x", 1)).await.unwrap();
    shows(&view, &[1]).await;
    let backup = tempfile::tempdir().unwrap();
    plane.api().kill().await.unwrap();
    plane.etcd().stop().await.unwrap();
    copy(&plane.etcd().data(), backup.path());
    plane.etcd().restart().await.unwrap();
    plane.restart_api().await.unwrap();
    let y = reader.register(item("y", 2)).await.unwrap();
    // Far ahead of all that is written after the backup is back.
    for n in 0..500 {
        let label = json!({ "metadata": { "labels": { "n": n.to_string() } } });
        space.pods().patch("two", &PatchParams::default(), &Patch::Merge(&label)).await.unwrap();
    }
    shows(&view, &[1, 2]).await;
    assert_eq!(listed(&reader).await, [1, 2]);

    plane.api().kill().await.unwrap();
    plane.etcd().stop().await.unwrap();
    fs::remove_dir_all(plane.etcd().data()).unwrap();
    copy(backup.path(), &plane.etcd().data());
    plane.etcd().restart().await.unwrap();
    plane.restart_api().await.unwrap();
    until("the lost record is back", || async { space.resource("two").await.unwrap().is_some() }).await;
    until("the view is live", || async { view.freshness().is_live() }).await;
    shows(&view, &[1, 2]).await;
    x.update(item("x", 3)).await.unwrap();
    shows(&view, &[2, 3]).await;
    assert_eq!(listed(&reader).await, [2, 3]);
    y.deregister().await.unwrap();
    shows(&view, &[3]).await;
    for handle in [writer, reader] {
        handle.shutdown(Duration::from_secs(20)).await;
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}
