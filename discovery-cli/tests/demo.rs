//! The demo as a whole.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use common::{Place, Running, eventually};
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

/// A demo whose workers are all there.
fn started(place: &Place) -> Running {
    let demo = place.start(&["demo"]);
    while !demo.line().contains("worker-5  registers") {}
    assert!(has_children(demo.child.id()));
    demo
}

#[test]
fn the_demo_passes_and_leaves_nothing_behind() {
    let place = Place::new();
    let demo = place.start(&["demo"]);
    let id = demo.child.id();
    let ended = demo.ended();
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    for told in ["SIGKILL", "restart", "SIGSTOP", "SIGCONT", "drains", "0 failed", "router knew after"] {
        assert!(ended.stdout.contains(told), "{told}: {}", ended.stdout);
    }
    assert_eq!(ended.stdout.matches("  yes  ").count(), 3, "{}", ended.stdout);
    assert!(!has_children(id));
    assert_eq!(leftovers(&place), 0);
}

#[test]
fn an_interrupted_demo_clears_up() {
    let place = Place::new();
    let demo = started(&place);
    let id = demo.child.id();
    demo.signal(Signal::INT);
    let ended = demo.ended();
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains("interrupted") && ended.stderr.matches('\n').count() == 1, "{ended:?}");
    assert!(!has_children(id));
    assert_eq!(leftovers(&place), 0);
}

#[test]
fn the_processes_of_a_killed_demo_die_with_it_even_the_stopped_one() {
    let place = Place::new();
    let mut demo = started(&place);
    while !demo.line().contains("SIGSTOP") {}
    demo.signal(Signal::KILL);
    demo.wait();
    eventually("the processes end", || !has_children(demo.child.id()));
}

#[test]
fn the_demo_is_for_the_file_backend() {
    let place = Place::new();
    place.run(&["demo", "--backend", "memory"]).assert_fails(2, "file backend");
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
    let replaced = |word: &&str| word.replace("$(POD_IP):9000", &requests).replace("$(POD_IP):9090", &health);
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
