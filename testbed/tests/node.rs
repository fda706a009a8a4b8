//! Pods that run as processes of this machine.

use std::collections::{BTreeMap, HashSet};
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use discovery_testbed::{ControlPlane, Node, NodeOptions, Result};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

/// Says where a process that this test file is too is to serve, as the image `server` in a pod.
const SERVE: &str = "NODE_TEST_SERVE";

/// Answers each request with what its path asks for; ends itself for `/exit`.
fn serve(listener: &TcpListener) {
    let mut well = true;
    for mut stream in listener.incoming().flatten() {
        let mut line = String::new();
        if BufReader::new(&stream).read_line(&mut line).is_err() {
            continue;
        }
        let path = line.split(' ').nth(1).unwrap_or_default();
        let body = match path {
            "/exit" => std::process::exit(3),
            "/fail" | "/recover" => {
                well = path == "/recover";
                String::new()
            }
            _ => path.strip_prefix("/read").and_then(|file| fs::read_to_string(file).ok()).unwrap_or_default(),
        };
        let status = if well || path != "/health" { "200 OK" } else { "503 Service Unavailable" };
        // A probe may have gone away.
        let _ = write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n\r\n{body}");
    }
}

fn ask(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(stream, "GET {path} HTTP/1.1\r\n\r\n").expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

/// What the image `server` runs. By itself it shows that the server answers as the other tests expect.
#[test]
fn a_server_answers() {
    let place = env::var(SERVE).unwrap_or_else(|_| "127.0.0.1:0".to_owned());
    let listener = TcpListener::bind(place).expect("a port");
    if env::var_os(SERVE).is_some() {
        return serve(&listener);
    }
    let address = listener.local_addr().expect("its address").to_string();
    std::thread::spawn(move || serve(&listener));
    assert!(ask(&address, "/health").starts_with("HTTP/1.1 200"));
    ask(&address, "/fail");
    assert!(ask(&address, "/health").starts_with("HTTP/1.1 503"));
    assert!(ask(&address, "/read/proc/self/comm").contains("node"));
}

/// Never the one that `KUBECONFIG` names: a real cluster has its own kubelets, and would miss a lease of this one.
static PLANE: OnceCell<ControlPlane> = OnceCell::const_new();

struct Space {
    cluster: &'static ControlPlane,
    namespace: String,
    node: Node,
}

impl Space {
    async fn new() -> Self {
        let cluster = PLANE.get_or_try_init(ControlPlane::start).await.expect("a control plane");
        let namespace = cluster.namespace("node").await.expect("a namespace");
        let programs = [("server", env::current_exe().expect("this test")), ("shell", PathBuf::from("/bin/sh"))];
        let images: BTreeMap<_, _> = programs.into_iter().map(|(image, program)| (image.to_owned(), program)).collect();
        let options = NodeOptions { name: namespace.clone(), namespace: Some(namespace.clone()), images, files: None };
        Self {
            cluster,
            node: Node::start(cluster, options).await.expect("a node, for which root is needed"),
            namespace,
        }
    }

    async fn pod(&self, name: &str, spec: Value) {
        let metadata = json!({ "name": name, "namespace": self.namespace, "labels": { "app": "test" } });
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec });
        self.cluster.apply(&pod.to_string()).await.expect("applied");
    }

    async fn kubectl(&self, words: &[&str]) -> Result<String> {
        self.cluster.kubectl([&["--namespace", &self.namespace], words].concat()).await
    }

    async fn read(&self, name: &str) -> Value {
        let read = self.kubectl(&["get", "pod", name, "--output=json", "--ignore-not-found"]).await.expect("read");
        if read.is_empty() { Value::Null } else { serde_json::from_str(&read).expect("JSON") }
    }

    /// Waits until the pod is so, and answers it.
    async fn until(&self, name: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let pod = self.read(name).await;
            if holds(&pod) {
                return pod;
            }
            assert!(Instant::now() < deadline, "waited 90 s for: {what}\n{pod:#}\n{}", self.log(name));
            sleep(Duration::from_millis(50)).await;
        }
    }

    fn log(&self, name: &str) -> String {
        let log = self.node.logs().join(format!("{}_{name}_main.log", self.namespace));
        fs::read_to_string(log).unwrap_or_default()
    }
}

fn server() -> Value {
    let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
    let probe = |path: &str, period: u32, failures: u32| {
        let get = json!({ "path": path, "port": "http" });
        json!({ "httpGet": get, "periodSeconds": period, "failureThreshold": failures })
    };
    json!({
        "containers": [{
            "name": "main", "image": "server",
            "args": ["--exact", "a_server_answers", "--nocapture"],
            "env": [
                { "name": "IP", "valueFrom": field("status.podIP") },
                { "name": SERVE, "value": "$(IP):8080" },
                { "name": "UID", "valueFrom": field("metadata.uid") },
            ],
            "ports": [{ "name": "http", "containerPort": 8080 }],
            "readinessProbe": probe("/health", 1, 1),
            "livenessProbe": probe("/live", 10, 3),
            "securityContext": { "runAsUser": 65532, "allowPrivilegeEscalation": false },
            "volumeMounts": [{ "name": "podinfo", "mountPath": "/etc/podinfo" }],
        }],
        "volumes": [{ "name": "podinfo", "downwardAPI": { "items": [
            { "path": "pod_name", "fieldRef": { "fieldPath": "metadata.name" } },
        ] } }],
    })
}

fn shell(script: &str, grace: u32, before: &str) -> Value {
    json!({
        "terminationGracePeriodSeconds": grace,
        "containers": [{
            "name": "main", "image": "shell", "command": ["sh", "-c", script],
            "lifecycle": { "preStop": { "exec": { "command": ["sh", "-c", before] } } },
        }],
    })
}

fn container(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

fn pid(pod: &Value) -> Pid {
    let id = container(pod)["containerID"].as_str().and_then(|id| id.strip_prefix("process://")?.parse().ok());
    id.and_then(Pid::from_raw).expect("a process id")
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
}

fn addresses() -> HashSet<String> {
    let shown = Command::new("ip").args(["-4", "-oneline", "address", "show", "dev", "lo"]).output().expect("ip");
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    shown.split_whitespace().filter_map(|word| word.strip_suffix("/32")).map(str::to_owned).collect()
}

#[tokio::test]
async fn a_pod_runs_as_its_manifest_asks_is_probed_and_starts_again() {
    if discovery_testbed::ran_in_own_network("a_pod_runs_as_its_manifest_asks_is_probed_and_starts_again") {
        return;
    }
    let space = Space::new().await;
    space.pod("one", server()).await;
    let pod = space.until("one", "it is ready", is_ready).await;
    let address = pod["status"]["podIP"].as_str().expect("an address").to_owned();
    assert!(addresses().contains(&address));
    let at = format!("{address}:8080");
    let environment = ask(&at, "/read/proc/self/environ");
    let uid = format!("UID={}\0", pod["metadata"]["uid"].as_str().expect("a uid"));
    assert!(environment.contains(&uid) && environment.contains("KUBERNETES_SERVICE_PORT="), "{environment}");
    assert!(ask(&at, "/read/etc/podinfo/pod_name").ends_with("\r\n\r\none"));
    let status = ask(&at, "/read/proc/self/status");
    assert!(status.contains("Uid:\t65532\t65532") && status.contains("NoNewPrivs:\t1"), "{status}");
    let account = "/read/var/run/secrets/kubernetes.io/serviceaccount";
    let secret =
        |name: &str| ask(&at, &format!("{account}/{name}")).split_once("\r\n\r\n").expect("a body").1.to_owned();
    assert_eq!((secret("namespace"), secret("ca.crt").contains("BEGIN CERTIFICATE")), (space.namespace.clone(), true));
    // The token is the pod's.
    let kubeconfig = space.cluster.save(&space.cluster.kubeconfig().with_token(&secret("token"))).expect("saved");
    let me = space.cluster.kubectl_json(["auth", "whoami", &format!("--kubeconfig={}", kubeconfig.display())]).await;
    let me = me.expect("known");
    assert_eq!(me["status"]["userInfo"]["extra"]["authentication.kubernetes.io/pod-uid"][0], pod["metadata"]["uid"]);
    // The machine has none of it.
    assert!(!PathBuf::from("/etc/podinfo").exists() && !PathBuf::from("/mnt/bin").exists());

    ask(&at, "/fail");
    space.until("one", "it is not ready", |pod| !is_ready(pod)).await;
    ask(&at, "/recover");
    let pod = space.until("one", "it is ready again", is_ready).await;
    assert_eq!(container(&pod)["restartCount"], 0);
    kill_process(pid(&pod), Signal::KILL).expect("killed");
    let again = |pod: &Value| is_ready(pod) && container(pod)["restartCount"] == 1;
    let next = space.until("one", "it was started again", again).await;
    assert_eq!(container(&next)["lastState"]["terminated"]["exitCode"], 137);
    assert_eq!(next["status"]["podIP"], pod["status"]["podIP"]);
    // The second time it waits.
    let _ = TcpStream::connect(&at).expect("it listens").write_all(b"GET /exit HTTP/1.1\r\n\r\n");
    let waits = |pod: &Value| container(pod)["state"]["waiting"]["reason"] == "CrashLoopBackOff";
    let pod = space.until("one", "it waits", waits).await;
    assert_eq!(container(&pod)["lastState"]["terminated"]["exitCode"], 3);

    let Space { node, .. } = space;
    node.stop().await.expect("stopped");
    assert!(!addresses().contains(&address));
}

#[tokio::test]
async fn a_deleted_pod_ends_in_order() {
    if discovery_testbed::ran_in_own_network("a_deleted_pod_ends_in_order") {
        return;
    }
    let space = Space::new().await;
    let script = "trap 'echo told to end; exit 0' TERM; echo runs; while :; do sleep 0.05; done";
    space.pod("orderly", shell(script, 60, "echo before the end")).await;
    space.pod("stubborn", shell("trap '' TERM; echo runs; while :; do sleep 0.05; done", 1, "echo before")).await;
    let mut ends = Vec::new();
    for name in ["orderly", "stubborn"] {
        let pod = space.until(name, "it is ready", is_ready).await;
        let address = pod["status"]["podIP"].as_str().expect("an address").to_owned();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !space.log(name).contains("runs") {
            assert!(Instant::now() < deadline, "{}", space.log(name));
            sleep(Duration::from_millis(10)).await;
        }
        ends.push((name, pid(&pod), address));
    }
    for (name, pid, address) in ends {
        // Returns when the pod is gone.
        space.kubectl(&["delete", "pod", name, "--timeout=60s"]).await.expect("gone");
        assert!(test_kill_process(pid).is_err(), "{name}");
        let deadline = Instant::now() + Duration::from_secs(60);
        while addresses().contains(&address) {
            assert!(Instant::now() < deadline, "{name}");
            sleep(Duration::from_millis(10)).await;
        }
    }
    assert_eq!(space.log("orderly").lines().collect::<Vec<_>>(), ["runs", "before the end", "told to end"]);
    assert_eq!(space.log("stubborn").lines().collect::<Vec<_>>(), ["runs", "before"]);
}

#[tokio::test]
async fn what_cannot_be_played_is_told_and_what_has_ended_stays_so() {
    if discovery_testbed::ran_in_own_network("what_cannot_be_played_is_told_and_what_has_ended_stays_so") {
        return;
    }
    let space = Space::new().await;
    let once = json!({ "restartPolicy": "Never", "containers": [{ "name": "main", "image": "shell", "args": ["-c", "exit 4"] }] });
    space.pod("once", once).await;
    let pod = space.until("once", "it has ended", |pod| pod["status"]["phase"] == "Failed").await;
    assert_eq!(container(&pod)["state"]["terminated"]["exitCode"], 4);
    space.pod("unknown", json!({ "containers": [{ "name": "main", "image": "unknown" }] })).await;
    let told =
        |pod: &Value| container(pod)["state"]["waiting"]["message"].as_str().is_some_and(|told| !told.is_empty());
    let pod = space.until("unknown", "it is told", told).await;
    let told = container(&pod)["state"]["waiting"]["message"].to_string();
    assert!(told.contains("no program for the image unknown: it knows server, shell"), "{told}");
    for name in ["once", "unknown"] {
        space.kubectl(&["delete", "pod", name, "--timeout=60s"]).await.expect("gone");
    }
}

/// Says that this process is one that holds a pod until it is killed.
const HOLDER: &str = "NODE_TEST_HOLDER";

/// What a holder does. By itself it shows that a pod's process ends with a node that is dropped.
#[tokio::test]
async fn a_dropped_node_takes_its_processes_along() {
    if discovery_testbed::ran_in_own_network("a_dropped_node_takes_its_processes_along") {
        return;
    }
    let space = Space::new().await;
    space.pod("held", shell("trap '' TERM HUP; while :; do sleep 0.05; done", 30, "true")).await;
    let pod = space.until("held", "it is ready", is_ready).await;
    let (pid, address) = (pid(&pod), pod["status"]["podIP"].as_str().expect("an address").to_owned());
    if env::var_os(HOLDER).is_some() {
        let told = format!("{HOLDER} {} {address}\n", pid.as_raw_nonzero());
        // Past the harness, which keeps what tests print.
        std::io::stderr().write_all(told.as_bytes()).expect("written");
        std::future::pending::<()>().await;
    }
    drop(space);
    eventually("the process and the address go", || test_kill_process(pid).is_err() && !addresses().contains(&address))
        .await;
}

#[tokio::test]
async fn a_killed_test_takes_its_processes_along_and_the_next_node_its_addresses() {
    if discovery_testbed::ran_in_own_network("a_killed_test_takes_its_processes_along_and_the_next_node_its_addresses")
    {
        return;
    }
    let mut holder = tokio::process::Command::new(env::current_exe().expect("this test"))
        .args(["--exact", "a_dropped_node_takes_its_processes_along"])
        .env(HOLDER, "yes")
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("a holder");
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(holder.stderr.take().expect("piped")));
    let told = loop {
        let line = lines.next_line().await.expect("a line").expect("the holder lives");
        if let Some(told) = line.strip_prefix(HOLDER) {
            break told.trim().to_owned();
        }
    };
    let (pid, address) = told.split_once(' ').expect("both");
    let pid = pid.parse().ok().and_then(Pid::from_raw).expect("a process id");
    assert!(test_kill_process(pid).is_ok() && addresses().contains(address));
    holder.kill().await.expect("killed");
    eventually("the process ends", || test_kill_process(pid).is_err()).await;
    Space::new().await;
    assert!(!addresses().contains(address));
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}
