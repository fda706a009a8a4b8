//! `cargo xtask testbed`: servers that stay when the command that started them has ended.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use discovery_testbed::Program;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;

const SOON: Duration = Duration::from_secs(60);

/// A place of the test's own for what is up. It is ended with the test, also when that is killed.
struct Place {
    directory: TempDir,
    guard: Child,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut guard = Command::new("sh");
        // Its standard input is a pipe that closes when the test has ended, in whatever way.
        guard.args(["-c", r#"read -r _; "$0" down"#, env!("CARGO_BIN_EXE_discovery-testbed")]);
        guard.env("DISCOVERY_TESTBED_UP", directory.path()).process_group(0);
        let guard = guard.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("a shell");
        Self { directory, guard }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_discovery-testbed"));
        command.args(words).env("DISCOVERY_TESTBED_UP", self.directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, words: &[&str]) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = self.command(words).output().expect("it runs");
        (status.code(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
    }

    fn passes(&self, words: &[&str]) -> String {
        let (code, said) = self.run(words);
        assert_eq!(code, Some(0), "{words:?}: {said}");
        said
    }

    fn of_etcd(&self, name: &str) -> PathBuf {
        self.directory.path().join("etcd").join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // Its errors are printed.
        let _ = self.guard.wait();
    }
}

/// The word after `before` in what was said.
fn after<'a>(said: &'a str, before: &str) -> &'a str {
    let rest = said.split_once(before).unwrap_or_else(|| panic!("{before:?} in {said}")).1;
    rest.split([' ', ',', '\n']).next().unwrap_or_default()
}

fn process(said: &str, before: &str) -> Pid {
    Pid::from_raw(after(said, before).parse().expect("a process id")).expect("a process id")
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < SOON, "in vain: {what}");
        sleep(Duration::from_millis(10));
    }
}

fn etcdctl(endpoint: &str, words: &[&str]) -> String {
    let program = Program::Etcdctl.command().expect("etcdctl");
    let output = Command::new(&program[0]).args(&program[1..]).arg("--endpoints").arg(endpoint).args(words).output();
    let Output { status, stdout, stderr } = output.expect("etcdctl runs");
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).into_owned()
}

#[test]
fn it_stays_until_it_is_told_to_go() {
    let place = Place::new();
    assert!(place.passes(&["status"]).contains("nothing is up"));
    assert!(place.passes(&["down"]).contains("nothing was up"));

    let said = place.passes(&["up"]);
    let endpoint = after(&said, "export ETCD_ENDPOINTS=").to_owned();
    assert!(said.contains("export DYN_DISCOVERY_BACKEND=etcd\n"), "{said}");
    etcdctl(&endpoint, &["put", "key", "kept"]);
    let told = place.passes(&["status"]);
    assert!(told.contains(&endpoint) && told.contains("healthy"), "{told}");
    assert_eq!(after(&place.passes(&["up", "etcd"]), "export ETCD_ENDPOINTS="), endpoint);

    // Its server killed, and started again where it was.
    kill_process(process(&told, "pid "), Signal::KILL).expect("killed");
    eventually("the end to be told", || {
        let (code, said) = place.run(&["status"]);
        code == Some(1) && said.contains("has ended") && said.contains("testbed up etcd")
    });
    assert_eq!(after(&place.passes(&["up"]), "export ETCD_ENDPOINTS="), endpoint);
    assert!(etcdctl(&endpoint, &["get", "key"]).contains("kept"));

    let told = place.passes(&["status"]);
    assert!(place.passes(&["down"]).contains("etcd is down"));
    assert!(test_kill_process(process(&told, "pid ")).is_err());
    // Its parent is whoever takes up orphans, and has it on its list for a moment more.
    eventually("the keeper to end", || test_kill_process(process(&told, "process ")).is_err());
    assert!(!place.of_etcd("files").exists() && !place.of_etcd("state.json").exists());
    assert!(place.passes(&["status"]).contains("nothing is up"));
}

#[test]
fn what_a_killed_keeper_leaves_is_cleared_and_no_other_process_is_touched() {
    let place = Place::new();
    place.passes(&["up"]);
    let told = place.passes(&["status"]);
    kill_process(process(&told, "process "), Signal::KILL).expect("killed");
    let server = process(&told, "pid ");
    eventually("the server to end", || test_kill_process(server).is_err());

    // As after a restart of the machine, with the keeper's id at another process.
    let mut other = Other::start();
    let stale = format!(r#"{{"pid":{},"port":1,"since":0}}"#, other.0.id());
    fs::write(place.of_etcd("state.json"), stale).expect("written");
    let (code, said) = place.run(&["status"]);
    assert!(code == Some(1) && said.contains("not up any more"), "{said}");
    place.passes(&["down"]);
    assert_eq!(other.0.try_wait().expect("asked"), None, "it was not the keeper");

    fs::write(place.of_etcd("state.json"), "torn {").expect("written");
    fs::create_dir(place.of_etcd("files")).expect("made");
    let said = place.passes(&["up"]);
    assert!(place.passes(&["status"]).contains(after(&said, "export ETCD_ENDPOINTS=")));
}

/// A process that has nothing to do with it.
struct Other(Child);

impl Other {
    fn start() -> Self {
        Self(Command::new("sleep").arg("600").spawn().expect("sleep"))
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It runs, as the test has seen.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_stopped_keeper_is_ended_too() {
    let place = Place::new();
    place.passes(&["up"]);
    let told = place.passes(&["status"]);
    kill_process(process(&told, "process "), Signal::STOP).expect("stopped");
    assert!(place.passes(&["down"]).contains("etcd is down"));
    assert!(test_kill_process(process(&told, "pid ")).is_err());
}

#[test]
fn a_control_plane_has_a_ready_pod_to_register_for() {
    if discovery_testbed::ran_in_own_network("a_control_plane_has_a_ready_pod_to_register_for") {
        return;
    }
    let place = Place::new();
    let said = place.passes(&["up", "kubernetes"]);
    let variable = |name: &str| after(&said, &format!("export {name}=")).to_owned();
    assert_eq!(variable("DYN_DISCOVERY_BACKEND"), "kubernetes");
    let kubectl = |words: &[&str]| {
        let program = Program::Kubectl.command().expect("kubectl");
        let mut command = Command::new(&program[0]);
        command.args(&program[1..]).args(words).env("KUBECONFIG", variable("KUBECONFIG"));
        let Output { stdout, stderr, .. } = command.output().expect("kubectl runs");
        String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr)
    };
    let uid = format!("jsonpath={{.items[?(@.metadata.name=='{}')].metadata.uid}}", variable("POD_NAME"));
    assert_eq!(kubectl(&["get", "pods", "-n", &variable("POD_NAMESPACE"), "-o", &uid]), variable("POD_UID"));
    assert!(kubectl(&["get", "crds", "-o", "name"]).contains("dynamoworkermetadatas.nvidia.com"));
    let ready = "jsonpath={.items[*].endpoints[*].conditions.ready}";
    let label = "nvidia.com/dynamo-discovery-enabled=true";
    eventually("a ready endpoint", || kubectl(&["get", "endpointslices", "-l", label, "-o", ready]) == "true");

    let told = place.passes(&["status"]);
    assert_eq!(told.matches(", healthy").count(), 3, "{told}");
    let runs = rustix::process::geteuid().is_root();
    assert_eq!(said.contains("testbed: pods run, "), runs, "{said}");
    assert!(told.contains(if runs { "  pods run, " } else { "  no pods run: " }), "{told}");
    if runs {
        let run = ["run", "one", "--image=unknown", "--restart=Never", "-n", &variable("POD_NAMESPACE")];
        kubectl(&run);
        let message = "jsonpath={.status.containerStatuses[0].state.waiting.message}";
        let get = ["get", "pod", "one", "-n", &variable("POD_NAMESPACE"), "-o", message];
        let image = concat!("it knows discovery:", env!("CARGO_PKG_VERSION"));
        eventually("a pod to be bound and told of", || kubectl(&get).ends_with(image));
    }
    let api = told.split_once("kube-apiserver ").expect("an API server").1;
    kill_process(process(api, "pid "), Signal::KILL).expect("killed");
    eventually("the end to be told", || place.run(&["status"]).0 == Some(1));
    place.passes(&["up", "kubernetes"]);
    assert_eq!(place.passes(&["status"]).matches(", healthy").count(), 3);
    place.passes(&["down"]);
    assert!(!PathBuf::from(variable("KUBECONFIG")).exists());
}

/// A directory with a program `etcd` in it, for `KUBEBUILDER_ASSETS`.
fn etcd_that(script: &str) -> TempDir {
    let bin = tempfile::tempdir().expect("a directory");
    let program = bin.path().join("etcd");
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("written");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
    bin
}

#[test]
fn a_command_that_is_killed_while_servers_start_leaves_nothing() {
    let place = Place::new();
    let bin = etcd_that(r#"case "$1" in --version) echo "etcd Version: 3.7.0";; *) exec sleep 600;; esac"#);
    let mut up = place.command(&["up"]).env("KUBEBUILDER_ASSETS", bin.path()).spawn().expect("it runs");
    eventually("a server to start", || place.passes(&["status"]).contains("being started"));
    up.kill().expect("killed");
    up.wait().expect("ended");
    eventually("the keeper to end", || place.passes(&["status"]).contains("nothing is up"));
    let log = fs::read_to_string(place.of_etcd("keeper.log")).expect("a log");
    assert!(log.contains("has gone"), "{log}");
}

#[test]
fn three_members_and_one_are_up_side_by_side() {
    let place = Place::new();
    let three = place.passes(&["up", "etcd-cluster"]);
    assert_eq!(after(&three.replace(',', "+"), "export ETCD_ENDPOINTS=").split('+').count(), 3);
    place.passes(&["up", "etcd"]);
    assert_eq!(place.passes(&["status"]).matches(", healthy").count(), 4);
    let said = place.passes(&["down", "etcd-cluster"]);
    assert!(said.contains("etcd-cluster is down") && !said.contains("etcd is down"), "{said}");
    assert_eq!(place.passes(&["status"]).matches(", healthy").count(), 1);
}

#[test]
fn a_server_that_does_not_start_says_why_and_leaves_nothing() {
    let place = Place::new();
    let bin = etcd_that(r#"echo "etcd Version: 3.7.0"; echo "no room" >&2; test "$1" = --version"#);
    let output = place.command(&["up"]).env("KUBEBUILDER_ASSETS", bin.path()).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{said}");
    assert!(said.contains("etcd ended before it answered") && said.contains("no room"), "{said}");
    assert!(place.passes(&["status"]).contains("nothing is up"));
}

#[test]
fn an_installed_etcd_that_is_too_old_is_refused() {
    let place = Place::new();
    let bin = etcd_that(r#"echo "etcd Version: 3.5.12"; echo "Git SHA: e7b3bb6cc""#);
    let output = place.command(&["up"]).env("KUBEBUILDER_ASSETS", bin.path()).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("etcd 3.5.12") && said.contains("3.5.13 or newer"), "{said}");
    let bin = etcd_that("exit 1");
    let output = place.command(&["build"]).env("KUBEBUILDER_ASSETS", bin.path()).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && said.contains("does not tell its version"), "{said}");
}

#[test]
fn mistakes_answer_the_usage_and_2() {
    let place = Place::new();
    for words in [&[][..], &["nonsense"], &["up", "nonsense"], &["status", "etcd"]] {
        let (code, said) = place.run(words);
        assert!(code == Some(2) && said.starts_with("usage: cargo xtask testbed"), "{words:?}: {said}");
    }
}
