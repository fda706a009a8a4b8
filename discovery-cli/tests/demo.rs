//! The demo as a whole.

mod common;

use std::fs;

use common::{Place, Running, eventually};
use rustix::process::Signal;

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
