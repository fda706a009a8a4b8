//! The demo as a whole.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Instant;

use common::{DEADLINE, Place, Running, eventually};
use discovery_testbed::Etcd;
use rustix::process::Signal;
use serde_json::Value;

/// Whether a process that this demo started is alive.
fn has_children(demo: u32) -> bool {
    let parent = format!("--parent\0{demo}\0");
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.into_iter().any(|process| {
        let alive = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        alive.contains("\0demo-") && alive.contains(&parent)
    })
}

fn leftovers(place: &Place) -> usize {
    fs::read_dir(place.directory.path()).unwrap().count()
}

/// A demo on this etcd, or on the file backend.
fn demo(place: &Place, etcd: Option<&Etcd>) -> Running {
    let mut command = place.command(&["demo"]);
    if let Some(etcd) = etcd {
        command.env("DYN_DISCOVERY_BACKEND", "etcd").env("ETCD_ENDPOINTS", etcd.endpoint());
    }
    Running::start(command)
}

/// A demo whose workers are all there.
fn started(place: &Place, etcd: Option<&Etcd>) -> Running {
    let demo = demo(place, etcd);
    while !demo.line().contains("worker-5  registers") {}
    assert!(has_children(demo.child.id()));
    demo
}

/// What an etcd holds that nobody else uses.
async fn keys(etcd: &Etcd) -> String {
    etcd.ctl(["get", "--prefix", "", "--keys-only"]).await.unwrap()
}

fn passes(demo: Running) {
    let id = demo.child.id();
    let ended = demo.ended();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    for told in ["SIGKILL", "restart", "SIGSTOP", "SIGCONT", "drains", "0 failed", "router knew after"] {
        assert!(ended.stdout.contains(told), "{told}: {}", ended.stdout);
    }
    assert_eq!(ended.stdout.matches("  yes  ").count(), 3, "{}", ended.stdout);
    assert!(!has_children(id));
}

fn is_interrupted(demo: Running) {
    let id = demo.child.id();
    demo.signal(Signal::INT);
    let ended = demo.ended();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(ended.stderr.contains("interrupted") && ended.stderr.matches('\n').count() == 1, "{ended:?}");
    assert!(!has_children(id));
}

fn is_killed_with_a_stopped_worker(mut demo: Running) {
    while !demo.line().contains("SIGSTOP") {}
    demo.signal(Signal::KILL);
    demo.wait();
    eventually("the processes end", || !has_children(demo.child.id()));
}

#[test]
fn the_demo_passes_and_leaves_nothing_behind() {
    let place = Place::new();
    passes(demo(&place, None));
    assert_eq!(leftovers(&place), 0);
}

#[tokio::test]
async fn on_etcd_the_demo_passes_and_leaves_nothing_behind() {
    let (place, etcd) = (Place::new(), Etcd::start().await.unwrap());
    passes(demo(&place, Some(&etcd)));
    assert_eq!(keys(&etcd).await, "");
    assert_eq!(leftovers(&place), 0);
}

#[test]
fn an_interrupted_demo_clears_up() {
    let place = Place::new();
    is_interrupted(started(&place, None));
    assert_eq!(leftovers(&place), 0);
}

#[tokio::test]
async fn on_etcd_an_interrupted_demo_clears_up() {
    let (place, etcd) = (Place::new(), Etcd::start().await.unwrap());
    etcd.ctl(["put", "v1/instances/somebody/else", "stays"]).await.unwrap();
    let demo = started(&place, Some(&etcd));
    assert!(keys(&etcd).await.contains("discovery-demo-"));
    is_interrupted(demo);
    // Not what dead workers had, either: it does not wait for their time to live.
    assert_eq!(keys(&etcd).await.trim(), "v1/instances/somebody/else");
}

#[test]
fn a_killed_demo_takes_its_processes_along_even_the_stopped_one_and_the_next_demo_takes_its_files() {
    let place = Place::new();
    is_killed_with_a_stopped_worker(started(&place, None));
    assert_eq!(leftovers(&place), 1, "it could not remove its own");
    is_interrupted(started(&place, None));
    assert_eq!(leftovers(&place), 0);
}

#[tokio::test]
async fn on_etcd_a_killed_demo_takes_its_processes_along_and_its_keys_go_by_themselves() {
    let (place, etcd) = (Place::new(), Etcd::start().await.unwrap());
    is_killed_with_a_stopped_worker(started(&place, Some(&etcd)));
    let start = Instant::now();
    while !keys(&etcd).await.is_empty() {
        assert!(start.elapsed() < DEADLINE);
    }
}

#[tokio::test]
async fn without_an_etcd_the_demo_says_what_to_do() {
    let (place, etcd) = (Place::new(), Etcd::start().await.unwrap());
    etcd.kill().await.unwrap();
    let ended = demo(&place, Some(&etcd)).ended();
    ended.assert_fails(1, "cargo xtask testbed up");
    assert!(ended.stderr.contains(&etcd.endpoint()) && ended.stderr.contains("ETCD_ENDPOINTS"), "{ended:?}");
}

#[test]
fn the_demo_is_for_stores_that_processes_share() {
    let place = Place::new();
    place.run(&["demo", "--backend", "memory"]).assert_fails(2, "on file, etcd and kubernetes");
}

/// The command of `deploy/example`, as a pod runs it, on another backend.
#[test]
fn the_examples_worker_serves_is_ready_and_drains() {
    let text = include_str!("../../deploy/example/worker.yaml");
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
    let container = &documents[1]["spec"]["template"]["spec"]["containers"][0];
    let words = ["command", "args"].iter().flat_map(|part| container[part].as_array().unwrap());
    let words: Vec<_> = words.map(|word| word.as_str().unwrap()).collect();
    assert_eq!(words[0], "discovery");
    // Free a moment ago, and not given out again so soon.
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (requests, health) = (free(), free());
    let replaced = |word: &&str| word.replace("[$(POD_IP)]:9000", &requests).replace("[$(POD_IP)]:9090", &health);
    let words: Vec<_> = words[1..].iter().map(replaced).collect();

    let place = Place::new();
    let mut worker = place.start(&words.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(worker.json()["event"], "ready");
    assert_eq!(place.list("endpoint")[0]["value"]["transport"]["tcp"], requests.as_str());
    let ask = |address: &str, request: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let probed = ask(&health, "GET /health HTTP/1.1\r\nHost: pod\r\n\r\n");
    assert!(probed.starts_with("HTTP/1.1 200 OK"), "{probed}");
    assert!(ask(&requests, "hello\n").ends_with(" hello\n"));

    worker.signal(Signal::TERM);
    for event in ["draining", "deregistered", "finished"] {
        assert_eq!(worker.json()["event"], event);
    }
    assert_eq!(worker.wait().code(), Some(0));
}
