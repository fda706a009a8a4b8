//! What people see of a real cluster in which something is wrong, and that the advice that they get mends it.

#[path = "../common/mod.rs"]
mod common;
mod doctor;
mod space;

use discovery_testbed::{Cluster, ControlPlaneOptions};
use rustix::process::Signal;
use serde_json::{Value, json};
use space::{LABEL, Space, until};

async fn space(prefix: &str) -> Space {
    let manifests = [include_str!("../../../deploy/crd.yaml"), include_str!("../../../deploy/admission.yaml")];
    let options = || ControlPlaneOptions { manifests: manifests.join("---\n"), ..ControlPlaneOptions::default() };
    Space::new(Cluster::shared(options).await.unwrap(), prefix).await
}

/// A resource as somebody else might have written it.
fn resource(name: &str, owner: &str, uid: &str) -> Value {
    json!({
        "apiVersion": "nvidia.com/v1alpha1", "kind": "DynamoWorkerMetadata",
        "metadata": { "name": name, "ownerReferences": [{ "apiVersion": "v1", "kind": "Pod", "name": owner, "uid": uid }] },
        "spec": { "data": { "cache": { format!("{name}/2a"): { "n": 1 } } } },
    })
}

const REGISTER: [&str; 5] = ["register", "endpoint", "a/b/c", "--tcp", "h:1"];

#[tokio::test]
async fn a_pod_is_discovered_while_it_is_ready_and_gone_with_its_end() {
    let space = space("cli").await;
    space.service("web").await;
    let uid = space.pod("web-0", "web", true).await;
    assert_eq!(
        space.until_explained("web-0", &["no-resource"]).await.split('`').nth(1).unwrap(),
        format!("kubectl -n {} logs web-0", space.namespace)
    );
    let mut worker = space.in_pod("web-0", &uid, &REGISTER).await;
    let instance = worker.line();
    assert_eq!(space.until_explained("web-0", &[]).await, "");
    let listed: Vec<Value> = serde_json::from_str(&space.run(&["list", "--output", "json"]).stdout).unwrap();
    assert_eq!((listed.len(), &listed[0]["instance_id"]), (1, &json!(instance)));

    let watch = space.start_as(space.cluster.kubeconfig_path().to_owned(), &["watch", "--output", "json"], &[]);
    let until_said = |change: &str| while watch.json()["change"] != change {};
    until_said("synced");
    space.cluster.report(&space.namespace, "web-0", false).await.unwrap();
    until_said("removed");
    let advice = space.until_explained("web-0", &["not-ready"]).await;
    assert!(advice.contains("describe pod web-0"), "{advice}");
    space.cluster.report(&space.namespace, "web-0", true).await.unwrap();
    until_said("added");
    worker.signal(Signal::TERM);
    until_said("removed");
    assert_eq!(worker.wait().code(), Some(0));
    space.until_explained("web-0", &["no-resource"]).await;
}

#[tokio::test]
async fn what_is_wrong_with_services_and_slices_is_told_and_the_advice_mends_it() {
    let space = space("slices").await;
    let uid = space.pod("web-0", "web", true).await;
    space.apply(resource("web-0", "web-0", &uid)).await;
    space.until_explained("web-0", &["no-service"]).await;

    space.service("other").await;
    let advice = space.until_explained("web-0", &["selects-others"]).await;
    assert!(advice.contains("selector of other"), "{advice}");

    space.service("web").await;
    space.until_explained("web-0", &[]).await;
    space.kubectl(&["label", "service", "web", &format!("{LABEL}-")]).await;
    let advice = space.until_explained("web-0", &["service-without-label"]).await;
    space.obey(&advice).await;
    space.until_explained("web-0", &[]).await;

    space.kubectl(&["patch", "service", "web", "--patch", r#"{"spec":{"publishNotReadyAddresses":true}}"#]).await;
    space.cluster.report(&space.namespace, "web-0", false).await.unwrap();
    let advice = space.until_explained("web-0", &["publishes-not-ready"]).await;
    let doctor = space.run(&["doctor"]);
    assert!(doctor.stdout.contains("poor   pods          publishes-not-ready:"), "{doctor:?}");
    space.obey(&advice).await;
    space.until_explained("web-0", &["not-ready"]).await;
}

#[tokio::test]
async fn what_is_wrong_with_resources_is_told_and_the_advice_mends_it() {
    let space = space("resources").await;
    space.service("web").await;
    let uid = space.pod("web-0", "web", true).await;
    space.apply(resource("web-0", "web-0", "00000000-0000-0000-0000-000000000000")).await;
    // The collector takes a uid that nobody has for a dead pod's, and removes what it owned.
    until("the garbage collector takes it away", async || {
        space.kubectl(&["get", "dwm", "--output=name"]).await.is_empty()
    })
    .await
    .unwrap();
    let other = space.pod("web-1", "web", false).await;
    space.apply(resource("web-0", "web-1", &other)).await;
    let advice = space.until_explained("web-0", &["another-owner"]).await;
    assert!(advice.contains("check its POD_NAME"), "{advice}");
    space.obey(&advice).await;
    space.until_explained("web-0", &["no-resource"]).await;

    let mut owned = resource("web-0", "web-0", &uid);
    owned["spec"]["data"] = json!({ "endpoints": {}, "cache": null });
    space.apply(owned.clone()).await;
    space.until_explained("web-0", &["no-entries"]).await;
    owned["spec"]["data"] = json!({ "endpoints": { "a/b/c/2a": { "n": 1 }, "nonsense": {} } });
    space.apply(owned).await;
    let told = ["unreadable-entries", "undecodable"];
    space.until_explained("web-0", &told).await;
    let doctor = space.run(&["doctor"]);
    assert!(told.iter().all(|name| doctor.stdout.contains(name)), "{doctor:?}");
}

#[tokio::test]
async fn everything_that_takes_part_is_in_one_table() {
    let space = space("all").await;
    space.service("web").await;
    for (name, ready) in [("web-0", true), ("web-1", false), ("web-2", true)] {
        let uid = space.pod(name, "web", ready).await;
        if name != "web-2" {
            space.apply(resource(name, name, &uid)).await;
        }
    }
    space.pod("idle", "none", true).await;
    // Nobody owns it, so that nobody collects it.
    let mut orphan = resource("gone", "gone", "x");
    orphan["metadata"]["ownerReferences"] = json!([]);
    space.apply(orphan).await;
    space.until_explained("web-0", &[]).await;
    space.until_explained("web-1", &["not-ready"]).await;
    let ended = space.run(&["explain", "--all"]);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(1), "discovery: explain: 3 of 4 are not discovered\n"));
    for row in ["web-0 yes 1", "web-1 NO 0 ready", "web-2 NO 0 resource", "gone NO 0 pod"] {
        let has = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ").contains(row);
        assert!(ended.stdout.lines().any(has), "{row}: {ended:?}");
    }
    assert!(!ended.stdout.contains("idle") && ended.stdout.contains("docs/kubernetes.md#no-owner"), "{ended:?}");
    let doctor = space.run(&["doctor"]);
    for told in [
        "1 discovered of 4 that take part",
        "no-such-pod",
        "no-resource",
        "DynamoWorkerMetadata as `discovery crd`",
        "a pod writes its own",
    ] {
        assert!(doctor.stdout.contains(told), "{told}: {doctor:?}");
    }
    // In container mode it is the pods' own label that counts.
    let containers = [("DYN_KUBE_DISCOVERY_MODE", "container")];
    let ended = space.run_with(&["explain", "web-0"], &containers);
    assert!(ended.stdout.contains("pod-without-label"), "{ended:?}");
    space.kubectl(&["label", "pod", "web-0", &format!("{LABEL}=true")]).await;
    let ended = space.run_with(&["explain", "web-0"], &containers);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("web-0/main in namespace") && ended.stdout.contains("discovered, 1 record"),
        "{ended:?}"
    );
}

#[tokio::test]
async fn without_permission_each_command_says_what_to_grant() {
    let space = space("poor").await;
    let uid = space.pod("web-0", "web", true).await;
    let token = space.cluster.token_of_pod(&space.namespace, "discovery-worker", "web-0", &uid).await.unwrap();
    let poor = space.cluster.save(&space.cluster.kubeconfig().with_token(&token)).unwrap();
    space.kubectl(&["delete", "rolebinding", "discovery-worker"]).await;
    let identity = [("POD_NAME", "web-0"), ("POD_UID", uid.as_str()), ("POD_NAMESPACE", space.namespace.as_str())];
    let run = |arguments: &[&str]| space.start_as(poor.clone(), arguments, &identity).ended();
    // The API server's own view of roles follows in a moment.
    until("the role is gone", async || run(&["list"]).code == Some(1)).await.unwrap();
    run(&["list"]).assert_fails(1, "apply what `discovery rbac` prints");
    run(&REGISTER).assert_fails(1, "apply what `discovery rbac` prints");
    run(&["explain", "web-0"]).assert_fails(1, "not allowed to");
    let doctor = run(&["doctor"]);
    assert_eq!(doctor.code, Some(1), "{doctor:?}");
    for purpose in ["WRONG  registering", "WRONG  discovering"] {
        let line = doctor.stdout.lines().find(|line| line.starts_with(purpose)).unwrap_or_else(|| panic!("{doctor:?}"));
        let advice = format!("`discovery rbac --namespace {} | kubectl apply -f -`", space.namespace);
        assert!(line.contains(&advice), "{line}");
    }
    let rbac = space.place.run(&["rbac", "--namespace", &space.namespace]);
    space.cluster.apply(&rbac.stdout).await.unwrap();
    until("the role is back", async || run(&["doctor"]).code == Some(0)).await.unwrap();
    let seen = run(&["explain", "web-0"]);
    assert!(seen.stdout.contains("?       service   "), "{seen:?}");
}

#[tokio::test]
async fn a_second_process_of_a_pod_and_a_stranger_s_pod_are_refused() {
    let space = space("twice").await;
    space.service("web").await;
    let uid = space.pod("web-0", "web", true).await;
    let other = space.pod("web-1", "web", true).await;
    let first = space.in_pod("web-0", &uid, &REGISTER).await;
    first.line();
    space.in_pod("web-0", &uid, &REGISTER).await.ended().assert_fails(1, "DYN_KUBE_DISCOVERY_MODE=container");
    // As web-1, with the token of web-0.
    let token = space.cluster.token_of_pod(&space.namespace, "discovery-worker", "web-0", &uid).await.unwrap();
    let stranger = space.cluster.save(&space.cluster.kubeconfig().with_token(&token)).unwrap();
    let (kubeconfig, namespace) =
        (format!("--kubeconfig={}", stranger.display()), format!("--namespace={}", space.namespace));
    let object = resource("web-1", "web-1", &other).to_string();
    until("the policy is in force", async || {
        let dry = ["create", "--dry-run=server", "--filename=-", &kubeconfig, &namespace];
        space.cluster.kubectl_with(dry, &object).await.is_err()
    })
    .await
    .unwrap();
    let identity = [("POD_NAME", "web-1"), ("POD_UID", other.as_str()), ("POD_NAMESPACE", space.namespace.as_str())];
    let ended = space.start_as(stranger, &REGISTER, &identity).ended();
    ended.assert_fails(1, "an admission policy forbids");
    assert!(ended.stderr.contains("check POD_NAME, POD_UID and the policy"), "{ended:?}");
    space.until_explained("web-1", &["no-resource"]).await;
    space.until_explained("web-0", &[]).await;
}
