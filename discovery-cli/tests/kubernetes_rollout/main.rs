//! `deploy/` as it is, from manifest to routed request: real processes in pods of a real control plane, of which one is
//! killed, one drains, and all roll to a new version, while a router sends them requests.

mod router;
mod slices;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use discovery_testbed::{ControlPlane, Node, NodeOptions};
use router::{Router, Try};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use slices::{Slices, Turn};
use tokio::time::sleep;

/// Far more than any step takes.
const DEADLINE: Duration = Duration::from_secs(60);
const APP: &str = "--selector=app.kubernetes.io/name=example-worker";

struct World {
    plane: ControlPlane,
    node: Node,
    router: Router,
}

impl World {
    async fn pods(&self) -> Vec<Value> {
        let pods = self.plane.kubectl_json(["get", "pods", "--namespace=default", APP]).await.unwrap();
        pods["items"].as_array().unwrap().clone()
    }

    async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !holds().await {
            if Instant::now() >= deadline {
                let pods = self.plane.kubectl(["get", "pods", "--namespace=default", "--output=yaml"]).await;
                panic!("in vain within {DEADLINE:?}: {what}\n{}\n{}", pods.unwrap_or_default(), self.logs());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }

    fn logs(&self) -> String {
        let files = std::fs::read_dir(self.node.logs()).into_iter().flatten().flatten().map(|file| file.path());
        let logs = files
            .filter(|file| file.is_file())
            .map(|file| format!("{}:\n{}", file.display(), std::fs::read_to_string(&file).unwrap_or_default()));
        logs.collect()
    }

    async fn until_shown(&self, what: &str, holds: impl Fn(&BTreeSet<String>) -> bool) {
        self.until(what, async || holds(&self.router.shown())).await;
    }

    /// Requests go on being answered.
    async fn settle(&self) {
        let before = self.router.answered();
        self.until("requests are answered", async || self.router.answered() >= before + 40).await;
    }
}

fn address(pod: &Value) -> String {
    pod["status"]["podIP"].as_str().unwrap().to_owned()
}

fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_of_the_example_are_routed_to_through_a_crash_a_drain_and_a_rollout() {
    if discovery_testbed::ran_in_own_network(
        "workers_of_the_example_are_routed_to_through_a_crash_a_drain_and_a_rollout",
    ) {
        return;
    }
    let plane = ControlPlane::start().await.unwrap();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_discovery"));
    let images = BTreeMap::from([("discovery:0.1.0".to_owned(), program)]);
    let options = NodeOptions { name: "node".to_owned(), images, ..NodeOptions::default() };
    let node = Node::start(&plane, options).await.unwrap();
    let deploy = format!("--kustomize={}/../deploy", env!("CARGO_MANIFEST_DIR"));
    plane.kubectl(["apply", "--server-side", &deploy]).await.unwrap();
    let crd = "crd/dynamoworkermetadatas.nvidia.com";
    plane.kubectl(["wait", "--for=condition=Established", "--timeout=60s", crd]).await.unwrap();
    let slices = Slices::watch(&plane);
    let router = Router::start(&plane).await;
    let propagation = router.discovery.bounds().propagation;
    let world = World { plane, node, router };

    world.plane.kubectl(["apply", &format!("{deploy}/example")]).await.unwrap();
    world.until_shown("three are discovered", |shown| shown.len() == 3).await;
    world.settle().await;

    let pods = world.pods().await;
    let (killed, drained) = (&pods[0], &pods[1]);
    let id = killed["status"]["containerStatuses"][0]["containerID"].as_str().unwrap();
    let id = Pid::from_raw(id.strip_prefix("process://").unwrap().parse().unwrap()).unwrap();
    kill_process(id, Signal::KILL).unwrap();
    world.until_shown("the killed one is gone", |shown| !shown.contains(&address(killed))).await;
    world.until_shown("the killed one is back", |shown| shown.len() == 3).await;
    let after = world.pods().await;
    let after = after.iter().find(|pod| name(pod) == name(killed)).expect("the same pod");
    assert_eq!(after["status"]["containerStatuses"][0]["restartCount"], 1);
    assert_eq!(address(after), address(killed));
    world.settle().await;

    world.plane.kubectl(["delete", "pod", name(drained), "--namespace=default", "--wait=false"]).await.unwrap();
    world.until_shown("the drained one is gone", |shown| !shown.contains(&address(drained))).await;
    world.until_shown("another has its place", |shown| shown.len() == 3).await;
    world.settle().await;

    let before = world.router.shown();
    let roll = ["set", "env", "deployment/example-worker", "ROUND=2", "--namespace=default"];
    world.plane.kubectl(roll).await.unwrap();
    world.until_shown("the new version is there", |shown| shown.len() == 3 && shown.is_disjoint(&before)).await;
    world.settle().await;
    world.until("the old pods are gone", async || world.pods().await.len() == 3).await;
    // The records of those that left are gone too: withdrawn by themselves, or collected with their pods.
    world
        .until("three resources are left", async || {
            let left = world.plane.kubectl(["get", "dwm", "--namespace=default", "--output=name"]).await;
            left.is_ok_and(|left| left.lines().count() == 3)
        })
        .await;

    let World { plane, node, router } = world;
    let (tries, failed) = router.stop().await;
    assert_eq!(failed, 0, "requests failed that had somewhere to go");
    check(&tries, &slices.turns(), propagation);
    // Who drains, or makes room for another version, serves what it was sent before it left.
    let crashed = address(killed);
    let broken: Vec<_> = tries.iter().filter(|one| !one.answered && one.address != crashed).collect();
    assert!(broken.is_empty(), "{broken:?}");
    drop(slices);
    node.stop().await.unwrap();
    drop(plane);
}

/// No request went to an address later than `propagation` after it had left.
fn check(tries: &[Try], turns: &[Turn], propagation: Duration) {
    let left = turns.iter().filter(|turn| !turn.ready);
    let mut count = 0;
    for gone in left {
        count += 1;
        let back = turns.iter().find(|turn| turn.ready && turn.address == gone.address && turn.at > gone.at);
        let late: Vec<_> = tries
            .iter()
            .filter(|one| one.address == gone.address && one.at > gone.at + propagation)
            // The router may hear of a return before the observer does.
            .filter(|one| back.is_none_or(|back| one.at + propagation < back.at))
            .map(|one| one.at - gone.at)
            .collect();
        assert!(late.is_empty(), "sent to {} so long after it left: {late:?}", gone.address);
    }
    // One that was killed, one that drained, three that made room.
    assert!(count >= 5, "{turns:?}");
}
