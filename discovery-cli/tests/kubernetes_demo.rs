//! The demo on Kubernetes as a whole: pods are processes, on a control plane of the test's own. Needs root.

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use common::{Ended, Place, Running};
use discovery_testbed::{ControlPlane, Node, NodeOptions};
use rustix::process::Signal;

/// Far more than a demo takes: most of it, pods start and drain.
const DEADLINE: Duration = Duration::from_secs(240);

fn demo(place: &Place, plane: &ControlPlane) -> Running {
    let mut command = place.command(&["demo", "--backend", "kubernetes"]);
    command.env("KUBECONFIG", plane.kubeconfig_path());
    Running::start(command)
}

fn ended(mut demo: Running) -> Ended {
    let start = Instant::now();
    while demo.child.try_wait().unwrap().is_none() {
        assert!(start.elapsed() < DEADLINE, "the demo does not end: {:?}", demo.told_so_far());
        thread::park_timeout(Duration::from_millis(20));
    }
    demo.ended()
}

async fn node(plane: &ControlPlane) -> Node {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_discovery"));
    let images = BTreeMap::from([("discovery:0.1.0".to_owned(), program)]);
    let options = NodeOptions { name: "node".to_owned(), images, ..NodeOptions::default() };
    Node::start(plane, options).await.unwrap()
}

async fn namespaces(plane: &ControlPlane) -> String {
    plane.kubectl(["get", "namespaces", "--output=name"]).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_kubernetes_the_demo_passes_and_leaves_no_namespace() {
    if discovery_testbed::ran_in_own_network("on_kubernetes_the_demo_passes_and_leaves_no_namespace") {
        return;
    }
    let plane = ControlPlane::start().await.unwrap();
    let node = node(&plane).await;
    let Ended { code, stdout, stderr } = ended(demo(&Place::new(), &plane));
    assert_eq!((code, stderr.as_str()), (Some(0), ""), "{stdout}");
    for told in
        ["worker-3  is ready", "SIGKILL", "started again", "is deleted, and drains", "roll", "makes room", "0 failed"]
    {
        assert!(stdout.contains(told), "{told}: {stdout}");
    }
    assert_eq!(stdout.matches("  yes  ").count(), 3, "{stdout}");
    assert!(stdout.contains("new CustomResourceDefinition"), "{stdout}");
    assert!(!namespaces(&plane).await.contains("discovery-demo-"));
    node.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_kubernetes_the_demo_needs_a_node_and_clears_up_when_it_is_interrupted() {
    if discovery_testbed::ran_in_own_network("on_kubernetes_the_demo_needs_a_node_and_clears_up_when_it_is_interrupted")
    {
        return;
    }
    let (place, plane) = (Place::new(), ControlPlane::start().await.unwrap());
    let refused = ended(demo(&place, &plane));
    refused.assert_fails(1, "cargo xtask testbed up kubernetes");
    assert!(refused.stderr.contains("no node that is ready") && refused.stdout.is_empty(), "{refused:?}");

    let node = node(&plane).await;
    let demo = demo(&place, &plane);
    while !demo.line().contains("worker-3  is ready") {}
    assert!(namespaces(&plane).await.contains("discovery-demo-"));
    demo.signal(Signal::INT);
    let interrupted = ended(demo);
    assert_eq!(interrupted.code, Some(130), "{interrupted:?}");
    assert!(
        interrupted.stderr.contains("interrupted") && interrupted.stderr.matches('\n').count() == 1,
        "{interrupted:?}"
    );
    assert!(!namespaces(&plane).await.contains("discovery-demo-"));
    node.stop().await.unwrap();
}

#[test]
fn without_a_cluster_the_demo_says_what_to_do() {
    let place = Place::new();
    let mut command = place.command(&["demo", "--backend", "kubernetes"]);
    command.env("KUBECONFIG", place.directory.path().join("none"));
    Running::start(command).ended().assert_fails(1, "cargo xtask testbed up kubernetes");
}
