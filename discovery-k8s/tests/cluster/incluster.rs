//! In-cluster configuration: what a pod's process finds, and no kubeconfig.

use std::process::Command;
use std::time::Duration;

use discovery_core::Environment;
use discovery_deploy::{Mode, rbac};
use discovery_k8s::MODE_VARIABLE;

use crate::support::cluster::{Cluster, discovery};
use crate::{item, listed};

/// Set in the process that is as in a pod.
const INSIDE: &str = "DISCOVERY_TEST_INSIDE";
const TEST: &str = "incluster::the_pod_s_service_account_is_enough";

/// Mounts of its own, in which the directory of the ServiceAccount is as the kubelet makes it; then the test again.
const POD: &str = "
    mount -t tmpfs tmpfs /run
    there=/var/run/secrets/kubernetes.io/serviceaccount
    mkdir -p $there
    printf %s \"$TEST_TOKEN\" > $there/token
    printf %s \"$POD_NAMESPACE\" > $there/namespace
    cat \"$TEST_AUTHORITY\" > $there/ca.crt
    unset TEST_TOKEN TEST_AUTHORITY
    exec \"$@\"
";

#[tokio::test]
async fn the_pod_s_service_account_is_enough() {
    if std::env::var_os(INSIDE).is_some() {
        return inside().await;
    }
    let plane = discovery_testbed::ControlPlane::start_with(discovery_testbed::ControlPlaneOptions {
        manifests: discovery_deploy::CRD.to_owned(),
        ..Default::default()
    })
    .await
    .unwrap();
    let space = Cluster::of(&plane).await.unwrap().space().await.unwrap();
    plane.apply(&rbac(Some(&space.namespace), Some("worker"), Mode::Pod)).await.unwrap();
    let pod = space.ready_pod("one").await.unwrap();
    let token = plane.kubectl(["create", "token", "worker", "--namespace", &space.namespace]).await.unwrap();
    let mut process = Command::new("unshare");
    // Who is no administrator may have mounts in a user namespace of his own.
    process.args((!rustix::process::geteuid().is_root()).then_some("--map-root-user"));
    process.args(["--mount", "sh", "-e", "-c", POD, "sh"]).arg(std::env::current_exe().unwrap());
    process.args([TEST, "--exact", "--nocapture"]);
    process.env_remove("KUBECONFIG").env_remove("HOME").env(INSIDE, "1");
    process.env("KUBERNETES_SERVICE_HOST", plane.api().address().ip().to_string());
    process.env("KUBERNETES_SERVICE_PORT", plane.api().address().port().to_string());
    process.envs([("POD_NAME", &pod.name), ("POD_UID", &pod.uid), ("POD_NAMESPACE", &space.namespace)]);
    process.env("TEST_TOKEN", token.trim()).env("TEST_AUTHORITY", plane.authority());
    let ended = tokio::task::spawn_blocking(move || process.output()).await.unwrap();
    let ended = ended.expect("unshare, of util-linux, is needed for a process that sees files as in a pod");
    let said = [ended.stdout, ended.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(
        ended.status.success() && said.contains("1 passed"),
        "as in a pod (it needs mounts of its own: root, or unprivileged user namespaces): {said}"
    );
    assert!(space.resource("one").await.unwrap().is_none(), "what it registered is left behind");
}

async fn inside() {
    assert!(std::env::var_os("TEST_TOKEN").is_none(), "its token is in a file alone");
    let owner = discovery(Environment::process().with(MODE_VARIABLE, "pod")).await.unwrap();
    let _held = owner.register(item("x", 1)).await.unwrap();
    assert_eq!(listed(&owner).await, [1]);
    assert!(owner.shutdown(Duration::from_secs(20)).await.is_clean());
}
