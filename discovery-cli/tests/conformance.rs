//! The suite, run by the program.

mod common;

use common::Place;
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
fn the_directories_of_a_run_are_gone_after_it() {
    let place = Place::new();
    let left = || {
        let entries = std::fs::read_dir(place.directory.path()).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
    };
    let ended = place.run(&["conformance", "--case", "reg_01", "--case", "key_01"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.starts_with("file: filtered: "), "{ended:?}");
    assert!(left().is_empty(), "{:?}", left());

    let running = place.start(&["conformance"]);
    running.told();
    running.signal(Signal::INT);
    let ended = running.ended();
    assert!(ended.code == Some(1) && ended.stderr.contains("no verdict"), "{ended:?}");
    assert!(left().is_empty(), "{:?}", left());
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
