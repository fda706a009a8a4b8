//! From a bare cluster to pods that are discovered, by nothing but what the program says and prints.

mod common;

use std::time::Duration;

use common::{Place, Running};
use discovery_testbed::ControlPlane;
use serde_json::Value;

const DEPLOYMENT: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: { name: web, namespace: NAMESPACE }
spec:
  replicas: 2
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec:
      nodeName: discovery-cli
      containers: [{ name: main, image: none }]
"#;

/// The program as an administrator's who looks at one namespace.
struct Setup {
    plane: ControlPlane,
    place: Place,
    namespace: String,
}

impl Setup {
    fn start(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Running {
        let mut command = self.place.command(arguments);
        command.env("DYN_DISCOVERY_BACKEND", "kubernetes").env("KUBECONFIG", self.plane.kubeconfig_path());
        command.env("DYN_DISCOVERY_KUBERNETES_NAMESPACES", &self.namespace).envs(environment.iter().copied());
        Running::start(command)
    }

    fn run(&self, arguments: &[&str]) -> common::Ended {
        self.start(arguments, &[]).ended()
    }

    async fn apply(&self, arguments: &[&str]) {
        let printed = self.run(arguments);
        assert_eq!(printed.code, Some(0), "{printed:?}");
        self.plane.apply(&printed.stdout).await.unwrap();
    }

    async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(120);
        while !holds().await {
            assert!(
                tokio::time::Instant::now() < deadline,
                "in vain within two minutes: {what}: {:?}",
                self.run(&["explain", "--all"])
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[tokio::test]
async fn a_bare_cluster_is_set_up_by_what_the_program_says() {
    let plane = ControlPlane::start().await.unwrap();
    let namespace = plane.namespace("setup").await.unwrap();
    plane.node("discovery-cli").await.unwrap();
    let setup = Setup { plane, place: Place::new(), namespace };
    let namespace = setup.namespace.as_str();

    let listed = setup.run(&["list"]);
    assert_eq!((listed.code, listed.stdout.as_str()), (Some(0), "no records\n"));
    assert!(listed.stderr.contains("`discovery crd | kubectl apply --server-side -f -`"), "{listed:?}");
    let doctor = setup.run(&["doctor"]);
    assert!(doctor.code == Some(1) && doctor.stdout.contains("WRONG  definition"), "{doctor:?}");
    let explained = setup.run(&["explain", "web"]);
    assert!(explained.code == Some(1) && explained.stderr.ends_with("no-such-pod, no-definition\n"), "{explained:?}");

    setup.apply(&["crd"]).await;
    setup.apply(&["rbac", "--namespace", namespace]).await;
    let manifest = setup.place.write("web.yaml", &DEPLOYMENT.replace("NAMESPACE", namespace));
    // As people do it, with the checks of the API on each field.
    let injected = setup.run(&["inject", "-f", &manifest]);
    let strict = ["apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename=-"];
    setup.plane.kubectl_with(strict, &injected.stdout).await.unwrap();
    setup.plane.apply(&injected.stdout).await.unwrap();
    for golden in ["deployment", "statefulset", "containers", "own-service", "aliases", "etcd"] {
        let manifest = format!("{}/tests/inject/{golden}.injected.yaml", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&manifest).unwrap();
        // What the API would refuse without us, and what is there to show that it is kept.
        let text = text.replace("on: yes", "on: 'yes'").replace("      unknownField: kept\n", "");
        for name in text.lines().filter_map(|line| line.trim().strip_prefix("namespace: ")) {
            let made = setup.plane.kubectl(["create", "namespace", name]).await;
            assert!(made.is_ok() || setup.plane.kubectl(["get", "namespace", name]).await.is_ok(), "{name}");
        }
        setup.plane.kubectl_with(strict, &text).await.unwrap_or_else(|error| panic!("{golden}: {error}"));
    }

    let pods = async || -> Vec<(String, String)> {
        let pods = setup.plane.kubectl_json(["get", "pods", "--namespace", namespace]).await.unwrap();
        let of = |pod: &Value, field: &str| pod["metadata"][field].as_str().unwrap().to_owned();
        pods["items"].as_array().unwrap().iter().map(|pod| (of(pod, "name"), of(pod, "uid"))).collect()
    };
    setup.until("two pods", async || pods().await.len() == 2).await;
    let mut workers = Vec::new();
    for (name, uid) in pods().await {
        setup.plane.report(namespace, &name, true).await.unwrap();
        let token = setup.plane.token_of_pod(namespace, "discovery-worker", &name, &uid).await.unwrap();
        let kubeconfig = setup.plane.save(&setup.plane.kubeconfig().with_token(&token)).unwrap();
        let identity = [
            ("POD_NAME", name.as_str()),
            ("POD_UID", &uid),
            ("POD_NAMESPACE", namespace),
            ("KUBECONFIG", kubeconfig.to_str().unwrap()),
        ];
        workers.push(setup.start(&["register", "endpoint", "a/b/c", "--tcp", &format!("{name}:1")], &identity));
    }
    workers.iter().for_each(|worker| drop(worker.line()));
    setup.until("both are discovered", async || setup.run(&["explain", "--all"]).code == Some(0)).await;
    let doctor = setup.run(&["doctor"]);
    assert_eq!(doctor.code, Some(0), "{doctor:?}");
    assert!(doctor.stdout.contains("2 discovered of 2") && doctor.stdout.contains("2 endpoint"), "{doctor:?}");

    // A real deletion: its record goes, and its resource is collected. The Deployment makes another pod.
    let (gone, _) = pods().await.remove(0);
    drop(workers);
    setup
        .plane
        .kubectl(["delete", "pod", &gone, "--namespace", namespace, "--grace-period=0", "--force"])
        .await
        .unwrap();
    setup
        .until("its resource is collected", async || {
            let left = setup.plane.kubectl(["get", "dwm", "--namespace", namespace, "--output=name"]).await.unwrap();
            !left.contains(&gone)
        })
        .await;
    let explained = setup.run(&["explain", &gone]);
    assert!(explained.code == Some(1) && explained.stdout.contains("no-such-pod"), "{explained:?}");

    setup.plane.api().kill().await.unwrap();
    for arguments in [&["list"][..], &["explain", "--all"]] {
        setup
            .run(arguments)
            .assert_fails(1, "the API server cannot be reached: check its address and the network: https://127.0.0.1:");
    }
    let doctor = setup.run(&["doctor"]);
    assert!(doctor.code == Some(1) && doctor.stdout.contains("WRONG  health"), "{doctor:?}");
}

/// Each shape of the definition, and each state of the policy, as an administrator is told of it.
#[tokio::test]
async fn what_the_cluster_lacks_or_has_of_another_shape_is_told() {
    const CRD: &str = include_str!("../../deploy/crd.yaml");
    let plane = ControlPlane::start().await.unwrap();
    let namespace = plane.namespace("shapes").await.unwrap();
    let setup = Setup { plane, place: Place::new(), namespace };
    // Schemas and policies are seen some time after they are applied.
    let told = async |line: &str, code: i32| {
        setup
            .until(line, async || {
                let doctor = setup.run(&["doctor"]);
                let is_so = doctor.stdout.lines().any(|told| told.starts_with(line));
                assert!(!is_so || doctor.code == Some(code), "{doctor:?}");
                is_so
            })
            .await;
    };
    let absent = "the cluster does not know DynamoWorkerMetadata: `discovery crd | kubectl apply --server-side -f -`";
    told(&format!("WRONG  definition    {absent}"), 1).await;
    told("poor   policy        none keeps pods of one ServiceAccount from writing each other's resources: ", 1).await;

    // The reference's own, and one that names the fields that it knows: whatever else is written into it is lost.
    let granular = CRD.replace("x-kubernetes-map-type: atomic", "");
    let closed =
        granular.replace("x-kubernetes-preserve-unknown-fields: true", "properties: {endpoints: {type: object}}");
    assert!(granular != CRD && closed != granular);
    setup.plane.apply(&granular).await.unwrap();
    told(
        "ok     definition    DynamoWorkerMetadata as NVIDIA Dynamo defines it: works; with that of `discovery crd` ",
        0,
    )
    .await;
    setup.plane.apply(&closed).await.unwrap();
    let lost = "DynamoWorkerMetadata is defined so that records are lost when they are written";
    told(&format!("WRONG  definition    {lost}"), 1).await;
    setup.apply(&["crd"]).await;
    told("ok     definition    DynamoWorkerMetadata as `discovery crd` prints it", 0).await;

    setup.apply(&["rbac", "--namespace", &setup.namespace]).await;
    told("ok     policy        a pod writes its own resource and no other's", 0).await;
    // Without its binding it binds nobody.
    setup.plane.kubectl(["delete", "validatingadmissionpolicybinding", "discovery-own-metadata"]).await.unwrap();
    told("poor   policy        none keeps pods of one ServiceAccount ", 0).await;
}
