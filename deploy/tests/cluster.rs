//! The manifests on a real API: they apply as they are, and a pod can do with them what it needs and no more.

mod manifests;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use discovery_deploy::{ADMISSION, CRD, Mode, rbac};
use discovery_testbed::{Cluster, ControlPlaneOptions, Result};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

const ACCOUNT: &str = discovery_deploy::SERVICE_ACCOUNT;
const NODE: &str = "discovery-deploy";

async fn cluster() -> &'static Cluster {
    let options =
        || ControlPlaneOptions { manifests: format!("{CRD}---\n{ADMISSION}"), ..ControlPlaneOptions::default() };
    Cluster::shared(options).await.unwrap()
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !holds().await {
        assert!(Instant::now() < deadline, "waited two minutes for: {what}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// A namespace with what `rbac` says, and pods in it.
struct Space {
    cluster: &'static Cluster,
    namespace: String,
}

/// A pod, and kubectl with the token that it has.
struct Pod<'a> {
    space: &'a Space,
    name: String,
    uid: String,
    kubeconfig: String,
}

impl Space {
    async fn new(prefix: &str, mode: Mode) -> Self {
        let cluster = cluster().await;
        let namespace = cluster.namespace(prefix).await.unwrap();
        cluster.apply(&rbac(Some(&namespace), None, mode)).await.unwrap();
        Self { cluster, namespace }
    }

    async fn pod(&self, name: &str) -> Pod<'_> {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": self.namespace },
            "spec": { "nodeName": NODE, "serviceAccountName": ACCOUNT, "containers": [{ "name": "main", "image": "none" }] },
        });
        self.cluster.apply(&pod.to_string()).await.unwrap();
        let uid = self.cluster.pod_uid(&self.namespace, name).await.unwrap();
        let token = self.cluster.token_of_pod(&self.namespace, ACCOUNT, name, &uid).await.unwrap();
        let kubeconfig = self.cluster.save(&self.cluster.kubeconfig().with_token(&token)).unwrap();
        Pod { space: self, name: name.to_owned(), uid, kubeconfig: format!("--kubeconfig={}", kubeconfig.display()) }
    }

    /// Kubectl with a token of an account that no pod has.
    async fn unbound(&self, account: &str) -> Pod<'_> {
        let token = self.cluster.kubectl(["create", "token", account, "--namespace", &self.namespace]).await.unwrap();
        let kubeconfig = self.cluster.save(&self.cluster.kubeconfig().with_token(token.trim())).unwrap();
        let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
        Pod { space: self, name: String::new(), uid: String::new(), kubeconfig }
    }

    async fn resources(&self) -> String {
        self.cluster.kubectl(["get", "dwm", "--output=name", "--namespace", &self.namespace]).await.unwrap()
    }
}

impl Pod<'_> {
    async fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String> {
        let own = [self.kubeconfig.as_str(), "--namespace", &self.space.namespace];
        self.space.cluster.kubectl_with([&own, arguments].concat(), input).await
    }

    /// Applies as processes do: server-side, as their field manager, with force.
    async fn apply(&self, resource: &Value, dry: bool) -> Result<String> {
        let apply = ["apply", "--server-side", "--field-manager=dynamo-worker", "--force-conflicts", "--filename=-"];
        let apply: Vec<&str> = apply.into_iter().chain(dry.then_some("--dry-run=server")).collect();
        self.kubectl(&apply, &resource.to_string()).await
    }

    fn owner(&self) -> Value {
        json!({ "apiVersion": "v1", "kind": "Pod", "name": self.name, "uid": self.uid })
    }

    /// What it may do in its namespace, as `verb group/resource`.
    async fn rules(&self) -> BTreeSet<String> {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview",
            "spec": { "namespace": self.space.namespace },
        });
        let answer = self
            .kubectl(&["create", "--validate=false", "--output=json", "--filename=-"], &review.to_string())
            .await
            .unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let texts = |rule: &Value, field: &str| -> Vec<String> {
            rule[field].as_array().into_iter().flatten().filter_map(|text| Some(text.as_str()?.to_owned())).collect()
        };
        let mut rules = BTreeSet::new();
        for rule in answer["status"]["resourceRules"].as_array().unwrap() {
            for group in texts(rule, "apiGroups") {
                for resource in texts(rule, "resources") {
                    rules.extend(texts(rule, "verbs").iter().map(|verb| format!("{verb} {group}/{resource}")));
                }
            }
        }
        rules
    }

    /// The policy takes effect some time after it was applied.
    async fn until_held(&self) {
        let stranger = json!({ "apiVersion": "v1", "kind": "Pod", "name": "stranger", "uid": "x" });
        until("the policy is in force", async || {
            self.apply(&resource(&self.name, std::slice::from_ref(&stranger)), true).await.is_err()
        })
        .await;
    }
}

fn resource(name: &str, owners: &[Value]) -> Value {
    json!({
        "apiVersion": "nvidia.com/v1alpha1", "kind": "DynamoWorkerMetadata",
        "metadata": { "name": name, "ownerReferences": owners },
        "spec": { "data": { "endpoints": {}, "model_cards": {}, "event_channels": {}, "event_sources": {} } },
    })
}

/// The refusal of what is forbidden: by the policy with 403, and with a reason that says whose it is.
#[track_caller]
fn refused(answer: Result<String>, reason: &str) {
    let text = answer.expect_err(reason).to_string();
    assert!(text.contains("(Forbidden)") || text.contains("is forbidden"), "{text}");
    assert!(text.contains("discovery-own-metadata") && text.contains(reason), "{reason}: {text}");
}

#[tokio::test]
async fn the_manifests_apply_as_they_are_and_the_example_s_pods_become_endpoints() {
    let cluster = cluster().await;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (all, example) = (directory.display().to_string(), directory.join("example").display().to_string());
    cluster.kubectl(["apply", "--server-side", "--validate=strict", "--kustomize", &all]).await.unwrap();
    cluster.kubectl(["apply", "--validate=strict", "--kustomize", &example]).await.unwrap();
    cluster.node(NODE).await.unwrap();
    let selector = ["--selector=app.kubernetes.io/name=example-worker", "--namespace=default"];
    let pods = async || {
        let pods = cluster.kubectl_json(["get", "pods"].into_iter().chain(selector)).await.unwrap();
        pods["items"].as_array().unwrap().clone()
    };
    until("three pods", async || pods().await.len() == 3).await;
    for pod in pods().await {
        let name = pod["metadata"]["name"].as_str().unwrap();
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": { "name": name },
            "target": { "apiVersion": "v1", "kind": "Node", "name": NODE },
        });
        let path = format!("/api/v1/namespaces/default/pods/{name}/binding");
        cluster.kubectl_with(["create", "--raw", &path, "--filename=-"], &binding.to_string()).await.unwrap();
        cluster.report("default", name, true).await.unwrap();
    }
    until("a slice with the label holds three that are ready", async || {
        let label = "--selector=nvidia.com/dynamo-discovery-enabled=true,kubernetes.io/service-name=example-worker";
        let slices = cluster.kubectl_json(["get", "endpointslices", "--namespace=default", label]).await.unwrap();
        let slices = slices["items"].as_array().unwrap().iter();
        let endpoints = slices.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
        endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true).count() == 3
    })
    .await;
    cluster.kubectl(["delete", "--wait=false", "--kustomize", &example]).await.unwrap();
}

/// In a namespace that asks for as much as Kubernetes can ask for of a pod.
#[tokio::test]
async fn the_example_s_pods_are_let_in_where_pods_are_restricted() {
    let space = Space::new("restricted", Mode::Pod).await;
    let enforce = "pod-security.kubernetes.io/enforce=restricted";
    space.cluster.kubectl(["label", "namespace", &space.namespace, enforce]).await.unwrap();
    let objects = manifests::objects(include_str!("../example/worker.yaml"));
    let template = &objects["apps/v1 Deployment /example-worker"]["spec"]["template"];
    let pod = |spec: &Value| json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "one" }, "spec": spec });
    let create = ["create", "--filename=-", "--namespace", &space.namespace];
    space.cluster.kubectl_with(create, &pod(&template["spec"]).to_string()).await.unwrap();
    let lax = json!({ "containers": [{ "name": "main", "image": "none" }] });
    let refused = space.cluster.kubectl_with(create, &pod(&lax).to_string()).await.unwrap_err();
    assert!(refused.to_string().contains("PodSecurity"), "{refused}");
}

#[tokio::test]
async fn what_helm_renders_applies_and_serves_a_namespace_of_its_own() {
    let cluster = cluster().await;
    let namespace = cluster.namespace("helm").await.unwrap();
    let apply = ["apply", "--server-side", "--force-conflicts", "--validate=strict", "--filename=-"];
    for object in manifests::helm(&namespace, &[]).into_values() {
        cluster.kubectl_with(apply, &object.to_string()).await.unwrap();
    }
    let space = Space { cluster, namespace };
    let (one, two) = (space.pod("one").await, space.pod("two").await);
    one.until_held().await;
    one.apply(&resource("one", &[one.owner()]), false).await.unwrap();
    refused(two.apply(&resource("one", &[one.owner()]), false).await, "and not one");
    assert_eq!(space.resources().await.trim(), "dynamoworkermetadata.nvidia.com/one");
}

#[tokio::test]
async fn a_pod_may_do_what_it_needs_and_nothing_else() {
    let (records, slices) = ("nvidia.com/dynamoworkermetadatas", "discovery.k8s.io/endpointslices");
    for mode in Mode::ALL {
        let space = Space::new("least", mode).await;
        let pod = space.pod("one").await;
        let mut needed: BTreeSet<String> =
            ["get", "list", "watch", "create", "patch", "delete"].map(|verb| format!("{verb} {records}")).into();
        needed.extend(["list", "watch"].map(|verb| format!("{verb} {slices}")));
        needed.insert("get /pods".to_owned());
        needed.extend(
            (mode == Mode::Container).then_some(["list /pods", "watch /pods"].map(str::to_owned)).into_iter().flatten(),
        );
        // What every account of a cluster may do is not ours to grant or to take.
        let everybody = space.unbound("default").await.rules().await;
        let granted: BTreeSet<String> = pod.rules().await.difference(&everybody).cloned().collect();
        assert_eq!(granted, needed, "{mode:?}");
        let elsewhere = pod.kubectl(&["get", "dwm", "--namespace=default"], "").await;
        assert!(elsewhere.is_err_and(|error| error.to_string().contains("forbidden")));
    }
}

#[tokio::test]
async fn a_pod_writes_its_own_resource_and_no_other_s() {
    let space = Space::new("own", Mode::Pod).await;
    let (one, two) = (space.pod("one").await, space.pod("two").await);
    one.until_held().await;
    one.apply(&resource("one", &[one.owner()]), false).await.unwrap();
    two.apply(&resource("two", &[two.owner()]), false).await.unwrap();
    one.kubectl(&["get", "dwm", "two"], "").await.unwrap();

    refused(one.apply(&resource("two", &[two.owner()]), false).await, "pod one writes DynamoWorkerMetadata one");
    refused(one.apply(&resource("one", &[two.owner()]), false).await, "must belong to the pod that writes it");
    refused(
        one.apply(&resource("one", &[one.owner(), two.owner()]), false).await,
        "must belong to the pod that writes it",
    );
    refused(one.apply(&resource("one", &[]), false).await, "must belong to the pod that writes it");
    let patch = ["patch", "dwm", "two", "--type=merge", "--patch", r#"{"spec":{"data":{"endpoints":{"x":{}}}}}"#];
    refused(one.kubectl(&patch, "").await, "and not two");
    refused(one.kubectl(&["delete", "dwm", "two"], "").await, "and not two");
    // It may be the name of a pod to come.
    refused(one.apply(&resource("one-engine", &[one.owner()]), false).await, "and not one-engine");
    // A pod whose name begins as another's and a hyphen has names of its own all the same.
    let longer = space.pod("one-engine").await;
    refused(longer.apply(&resource("one", &[longer.owner()]), false).await, "and not one");

    let unbound = space.unbound(ACCOUNT).await;
    refused(unbound.apply(&resource("one", &[one.owner()]), false).await, "is bound to none");

    // An administrator is held by nobody.
    space.cluster.kubectl(["delete", "dwm", "two", "--namespace", &space.namespace]).await.unwrap();
    one.kubectl(&["delete", "dwm", "one"], "").await.unwrap();
    assert_eq!(space.resources().await.trim(), "");
}

#[tokio::test]
async fn where_containers_register_a_pod_writes_those_of_its_own_too() {
    let space = Space::new("containers", Mode::Container).await;
    let (one, two) = (space.pod("one").await, space.pod("two").await);
    one.until_held().await;
    one.apply(&resource("one", &[one.owner()]), false).await.unwrap();
    one.apply(&resource("one-engine", &[one.owner()]), false).await.unwrap();
    refused(one.apply(&resource("one-b", &[two.owner()]), false).await, "must belong to the pod that writes it");
    refused(two.apply(&resource("one-engine", &[two.owner()]), false).await, "and not one-engine");
    let longer = space.pod("one-engine").await;
    refused(longer.kubectl(&["delete", "dwm", "one"], "").await, "and not one");
    one.kubectl(&["delete", "dwm", "one-engine"], "").await.unwrap();
    assert_eq!(space.resources().await.trim(), "dynamoworkermetadata.nvidia.com/one");
}

/// Whoever may read in another namespace, as watching several asks for, writes there nothing, whatever else it may do.
#[tokio::test]
async fn a_pod_writes_in_its_own_namespace_and_in_no_other() {
    let (here, there) = (Space::new("here", Mode::Pod).await, Space::new("there", Mode::Pod).await);
    let (stranger, own) = (here.pod("one").await, there.pod("one").await);
    own.until_held().await;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": { "name": "foreign", "namespace": there.namespace },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ACCOUNT },
        "subjects": [{ "kind": "ServiceAccount", "name": ACCOUNT, "namespace": here.namespace }],
    });
    there.cluster.apply(&binding.to_string()).await.unwrap();
    let elsewhere = Pod { space: &there, ..stranger };
    until("the binding is in force", async || elsewhere.kubectl(&["get", "dwm"], "").await.is_ok()).await;
    refused(elsewhere.apply(&resource("one", &[elsewhere.owner()]), false).await, "and not in");
    own.apply(&resource("one", &[own.owner()]), false).await.unwrap();
    refused(elsewhere.kubectl(&["delete", "dwm", "one"], "").await, "and not in");
    assert_eq!(there.resources().await.trim(), "dynamoworkermetadata.nvidia.com/one");
}

#[tokio::test]
async fn the_next_pod_of_a_name_replaces_what_the_last_one_left() {
    let space = Space::new("next", Mode::Pod).await;
    let last = space.pod("one").await;
    last.until_held().await;
    last.apply(&resource("one", &[last.owner()]), false).await.unwrap();
    let delete = ["delete", "pod", "one", "--grace-period=0", "--force", "--namespace", &space.namespace];
    space.cluster.kubectl(delete).await.unwrap();
    // Before the collector has been there, or after: either is no obstacle.
    let next = space.pod("one").await;
    assert_ne!(last.uid, next.uid);
    next.kubectl(&["delete", "dwm", "one", "--ignore-not-found"], "").await.unwrap();
    next.apply(&resource("one", &[next.owner()]), false).await.unwrap();
    until("the last pod's token is worth nothing", async || {
        last.apply(&resource("one", &[last.owner()]), true).await.is_err()
    })
    .await;
}

#[tokio::test]
async fn what_a_pod_has_stored_goes_with_it() {
    let space = Space::new("garbage", Mode::Container).await;
    let (one, two) = (space.pod("one").await, space.pod("two").await);
    for pod in [&one, &two] {
        pod.apply(&resource(&pod.name, &[pod.owner()]), false).await.unwrap();
    }
    one.apply(&resource("one-engine", &[one.owner()]), false).await.unwrap();
    let delete = ["delete", "pod", "one", "--grace-period=0", "--force", "--namespace", &space.namespace];
    space.cluster.kubectl(delete).await.unwrap();
    until("the garbage is collected", async || space.resources().await.trim() == "dynamoworkermetadata.nvidia.com/two")
        .await;
}
