//! The suite, run by the program.

mod common;

use std::time::Instant;

use common::{DEADLINE, Place, Running};
use discovery_testbed::Etcd;
use rustix::process::Signal;
use serde_json::Value;

#[test]
fn memory_passes_and_the_progress_is_told_apart_from_the_report() {
    let place = Place::new();
    let ended = place.run(&["conformance", "--backend", "mem", "--case", "reg_"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.starts_with("memory: filtered: "), "{ended:?}");
    assert!(ended.stdout.contains("again: discovery conformance --backend memory --case reg_"), "{ended:?}");
    let listed = place.run(&["conformance", "--list", "--case", "reg_"]);
    let names: Vec<_> = listed.stdout.lines().collect();
    assert!(listed.code == Some(0) && names.len() > 15, "{listed:?}");
    assert_eq!(ended.stderr.lines().count(), 1 + names.len(), "{ended:?}");
    assert!(ended.stderr.contains("the backend gets no verdict"), "{ended:?}");
    for name in names {
        assert!(name.starts_with("reg_") && ended.stderr.contains(&format!("] {name}: ")), "{name}: {ended:?}");
    }
}

#[test]
fn reports_come_in_every_format() {
    let place = Place::new();
    let file = place.write("report.xml", "");
    let suite = ["conformance", "--backend", "memory", "--case", "key_01", "--case", "wat_03", "--seed", "7"];
    let with = |more: &[&str]| place.run(&[&suite[..], more].concat());
    let ended = with(&["--output", "json", "--report", &file]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&report["verdict"], &report["seed"]), (&"filtered".into(), &7.into()));
    let names: Vec<_> = report["cases"].as_array().unwrap().iter().map(|case| case["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"wat_03_empty_is_synced") && names.ends_with(&["randomised_run"]), "{names:?}");
    let junit = std::fs::read_to_string(&file).unwrap();
    assert!(junit.starts_with("<?xml") && junit.contains("key_01_queries_are_exact_on_segments"), "{junit}");
}

#[test]
fn file_is_judged_within_its_directory_and_what_was_made_there_is_gone_after_it() {
    let place = Place::new();
    let entries = |path: &std::path::Path| {
        let entries = std::fs::read_dir(path).map(|entries| entries.map(|entry| entry.unwrap().file_name()));
        entries.map_or_else(|_| Vec::new(), |entries| entries.collect::<Vec<_>>())
    };
    let ended = place.run(&["conformance", "--case", "reg_01", "--case", "key_01"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.starts_with("file: filtered: "), "{ended:?}");
    assert!(entries(place.directory.path()).is_empty(), "{:?}", entries(place.directory.path()));

    // Nothing goes where the temporary directories are, and what is there already stays.
    std::fs::create_dir(place.kv()).unwrap();
    std::fs::write(place.kv().join("theirs"), "").unwrap();
    let mut command = place.command(&["conformance"]);
    command.env("TMPDIR", "/nowhere");
    let running = Running::start(command);
    running.told();
    let inside = entries(&place.kv());
    let own = inside.iter().filter(|name| name.to_string_lossy().starts_with("conformance-"));
    assert_eq!((own.count(), inside.len()), (1, 2), "{inside:?}");
    running.signal(Signal::INT);
    let ended = running.ended();
    assert!(ended.code == Some(130) && ended.stderr.contains("no verdict"), "{ended:?}");
    assert_eq!(entries(&place.kv()), ["theirs"]);
}

#[tokio::test]
async fn etcd_is_judged_below_a_prefix_that_is_erased_after_it() {
    let etcd = Etcd::start().await.unwrap();
    let place = Place::new();
    etcd.ctl(["put", "theirs", "1"]).await.unwrap();
    let suite = |arguments: &[&str]| {
        let mut command = place.command(&[&["conformance", "--backend", "etcd"], arguments].concat());
        command.env("ETCD_ENDPOINTS", etcd.endpoint());
        Running::start(command)
    };
    let keys = async || {
        let told = etcd.ctl(["get", "", "--prefix", "--keys-only"]).await.unwrap();
        told.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    // The last one leaves a session that nobody closes, and its records.
    let ended = suite(&["--case", "reg_01", "--case", "key_01", "--case", "liv_02_unrenewed"]).ended();
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.starts_with("etcd: filtered: "), "{ended:?}");
    assert_eq!(keys().await, ["theirs"]);

    let running = suite(&[]);
    running.told();
    let deadline = Instant::now() + DEADLINE;
    while keys().await.len() < 2 {
        assert!(Instant::now() < deadline, "no case wrote anything");
    }
    running.signal(Signal::INT);
    let ended = running.ended();
    assert!(ended.code == Some(130) && ended.stderr.contains("no verdict"), "{ended:?}");
    assert_eq!(keys().await, ["theirs"], "{ended:?}");
}

#[test]
fn an_etcd_that_is_away_is_told_before_anything_runs() {
    let place = Place::new();
    let mut command = place.command(&["conformance", "--backend", "etcd"]);
    command.env("ETCD_ENDPOINTS", "http://127.0.0.1:1");
    let ended = Running::start(command).ended();
    ended.assert_fails(1, "no etcd serves at http://127.0.0.1:1");
    assert_eq!(ended.stdout, "");
}

#[test]
fn on_kubernetes_it_says_what_to_do_instead() {
    let ended = Place::new().run(&["conformance", "--backend", "k8s"]);
    ended.assert_fails(2, "cargo test -p discovery-k8s --test conformance");
}

#[test]
fn a_report_that_cannot_be_written_is_told_before_anything_runs() {
    let place = Place::new();
    for backend in ["memory", "file"] {
        let report = place.directory.path().join("missing/report.json");
        let ended = place.run(&["conformance", "--backend", backend, "--report", report.to_str().unwrap()]);
        ended.assert_fails(2, "missing/report.json");
        assert_eq!(ended.stdout, "");
    }
    // What an earlier run left is there until there is something in its place.
    let report = place.write("report.json", "earlier");
    let running = place.start(&["conformance", "--report", &report]);
    running.told();
    running.signal(Signal::TERM);
    assert_eq!(running.ended().code, Some(143));
    assert_eq!(std::fs::read_to_string(report).unwrap(), "earlier");
}

#[test]
fn mistakes_are_told_before_anything_runs() {
    let place = Place::new();
    let cases: [(&[&str], &str); 4] = [
        (&["--case", "reg_", "--case", "nosuch"], "see `discovery conformance --list`"),
        (&["--report", "report.pdf"], ".xml"),
        (&["--backend", "nosuch"], "no backend \"nosuch\""),
        (&["--output", "table"], "junit"),
    ];
    for (arguments, told) in cases {
        let ended = place.run(&[&["conformance"], arguments].concat());
        ended.assert_fails(2, told);
        assert_eq!(ended.stdout, "", "{arguments:?}");
    }
}
