//! Control planes of the testbed: what works on them, and what can be done to them.

use std::time::Duration;

use discovery_testbed::{Cluster, ControlPlane, ControlPlaneOptions, Program, Result};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// A resource of the test's own, and one account that may look at pods.
const MANIFESTS: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: notes.testbed.example }
spec:
  group: testbed.example
  scope: Namespaced
  names: { kind: Note, plural: notes, singular: note }
  versions:
    - name: v1
      served: true
      storage: true
      schema: { openAPIV3Schema: { type: object } }
"#;

async fn cluster() -> Result<&'static Cluster> {
    Cluster::shared(|| ControlPlaneOptions { manifests: MANIFESTS.to_owned(), ..ControlPlaneOptions::default() }).await
}

fn pod(namespace: &str, name: &str, node: &str) -> String {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "namespace": namespace, "labels": { "app": "test" } },
        "spec": { "nodeName": node, "containers": [{ "name": "main", "image": "none" }] },
    })
    .to_string()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(90);
    while !holds().await {
        assert!(Instant::now() < deadline, "waited 90 s for: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Whom the endpoints of a Service lead to, by uid, and whether they are ready.
async fn endpoints(cluster: &Cluster, namespace: &str) -> Vec<(String, bool)> {
    let slices = cluster.kubectl_json(["get", "endpointslices", "--namespace", namespace]).await.expect("slices");
    let slices = slices["items"].as_array().expect("a list").iter();
    let endpoints = slices.filter_map(|slice| slice["endpoints"].as_array()).flatten();
    let told = |endpoint: &Value| {
        (endpoint["targetRef"]["uid"].as_str()?.to_owned(), endpoint["conditions"]["ready"].as_bool()?).into()
    };
    endpoints.filter_map(told).collect()
}

#[tokio::test]
async fn a_pod_is_an_endpoint_and_takes_what_it_owns_along() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("slices").await?;
    cluster.node("testbed-slices").await?;
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "test", "namespace": namespace },
        "spec": { "clusterIP": "None", "selector": { "app": "test" } },
    });
    cluster.apply(&service.to_string()).await?;
    cluster.apply(&pod(&namespace, "one", "testbed-slices")).await?;
    let uid = cluster.pod_uid(&namespace, "one").await?;
    for ready in [true, false] {
        cluster.report(&namespace, "one", ready).await?;
        until("the slice says so", async || endpoints(cluster, &namespace).await == [(uid.clone(), ready)]).await;
    }
    let owner = json!({ "apiVersion": "v1", "kind": "Pod", "name": "one", "uid": uid });
    let note = json!({
        "apiVersion": "testbed.example/v1",
        "kind": "Note",
        "metadata": { "name": "one", "namespace": namespace, "ownerReferences": [owner] },
    });
    cluster.apply(&note.to_string()).await?;
    cluster.kubectl(["delete", "pod", "one", "--namespace", &namespace, "--grace-period=0", "--force"]).await?;
    until("the garbage is collected", async || {
        let notes = cluster.kubectl(["get", "notes", "--namespace", &namespace, "--output=name"]).await;
        notes.is_ok_and(|notes| notes.is_empty())
    })
    .await;
    until("the slice is empty", async || endpoints(cluster, &namespace).await.is_empty()).await;
    cluster.kubectl(["delete", "namespace", &namespace, "--wait=false"]).await.map(drop)
}

#[tokio::test]
async fn a_pod_s_token_is_its_own() -> Result<()> {
    let cluster = cluster().await?;
    let namespace = cluster.namespace("tokens").await?;
    cluster.apply(&pod(&namespace, "one", "testbed-tokens")).await?;
    let uid = cluster.pod_uid(&namespace, "one").await?;
    let token = cluster.token_of_pod(&namespace, "default", "one", &uid).await?;
    let kubeconfig = cluster.save(&cluster.kubeconfig().with_token(&token))?;
    let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
    let me = cluster.kubectl_json(["auth", "whoami", &kubeconfig]).await?;
    let me = &me["status"]["userInfo"];
    assert_eq!(me["username"], format!("system:serviceaccount:{namespace}:default"));
    assert_eq!(me["extra"]["authentication.kubernetes.io/pod-uid"], json!([uid]));
    let refused = cluster.kubectl(["get", "pods", "--namespace", &namespace, &kubeconfig]).await;
    assert!(refused.expect_err("it has no role").to_string().contains("forbidden"));
    assert!(cluster.token_of_pod(&namespace, "default", "one", "another-uid").await.is_err());
    cluster.kubectl(["delete", "namespace", &namespace, "--wait=false"]).await.map(drop)
}

#[tokio::test]
async fn a_client_behind_a_proxy_is_cut_off_alone() -> Result<()> {
    let cluster = cluster().await?;
    let (proxy, through) = cluster.proxy().await?;
    let kubeconfig = format!("--kubeconfig={}", cluster.save(&through)?.display());
    let ask = async || cluster.kubectl(["get", "namespaces", "--request-timeout=20s", &kubeconfig]).await;
    assert!(ask().await?.contains("kube-system"));
    proxy.cut();
    assert!(ask().await.is_err());
    cluster.kubectl(["get", "namespaces"]).await?;
    proxy.heal();
    ask().await.map(drop)
}

/// Every event of a watch that starts after `version`, in a second.
async fn watched(plane: &ControlPlane, version: &str) -> Result<String> {
    let path =
        format!("--raw=/api/v1/namespaces/default/configmaps?watch=true&timeoutSeconds=1&resourceVersion={version}");
    plane.kubectl(["get", &path]).await
}

#[tokio::test]
async fn an_api_server_can_be_broken_in_many_ways_and_its_history_lost() -> Result<()> {
    let plane = ControlPlane::start().await?;
    plane.kubectl(["create", "configmap", "kept", "--from-literal=a=1"]).await?;
    let page = plane.kubectl(["get", "--raw=/api/v1/namespaces/default/configmaps?limit=1"]).await?;
    let page: Value = serde_json::from_str(&page).expect("a list");
    let version = page["metadata"]["resourceVersion"].as_str().expect("a version").to_owned();
    let rest = page["metadata"]["continue"].as_str().expect("there are two").to_owned();
    plane.kubectl(["create", "configmap", "later"]).await?;
    assert!(watched(&plane, &version).await?.contains(r#""name":"later""#));

    let ask = async || plane.kubectl(["get", "configmap", "kept", "--request-timeout=2s"]).await;
    plane.api().pause()?;
    assert!(ask().await.is_err());
    plane.api().resume()?;
    plane.wait().await?;
    let before = plane.api().pid();
    plane.api().kill().await?;
    assert!(ask().await.is_err() && plane.api().pid().is_none());
    plane.restart_api().await?;
    assert_ne!(plane.api().pid(), before);
    ask().await?;

    plane.forget().await?;
    let old = watched(&plane, &version).await?;
    assert!(old.contains(r#""code":410"#), "{old}");
    let rest = format!("--raw=/api/v1/namespaces/default/configmaps?limit=1&continue={rest}");
    let rest = plane.kubectl(["get", &rest]).await.expect_err("the rest of a list that is forgotten").to_string();
    assert!(rest.contains("Expired") || rest.contains("too old"), "{rest}");
    ask().await?;
    // Controllers go on where the API comes back.
    plane.namespace("after").await.map(drop)
}

#[tokio::test]
async fn without_the_admission_of_service_accounts_a_pod_has_none() -> Result<()> {
    let options = ControlPlaneOptions { service_accounts: false, ..ControlPlaneOptions::default() };
    let plane = ControlPlane::start_with(options).await?;
    plane.apply(&pod("default", "one", "testbed")).await?;
    let read = plane.kubectl_json(["get", "pod", "one", "--namespace=default"]).await?;
    assert_eq!((&read["spec"]["serviceAccountName"], &read["spec"]["volumes"]), (&Value::Null, &Value::Null));
    Ok(())
}

#[tokio::test]
async fn an_api_server_that_cannot_start_says_why() {
    let options =
        ControlPlaneOptions { api_server_flags: vec!["--no-such-flag".to_owned()], ..ControlPlaneOptions::default() };
    let error = ControlPlane::start_with(options).await.expect_err("refused").to_string();
    assert!(error.starts_with("kube-apiserver ended before it was ready\nthe end of its log:\n"), "{error}");
    assert!(error.contains("no-such-flag"), "{error}");
    assert!(Program::KubeApiserver.command().is_ok());
}
