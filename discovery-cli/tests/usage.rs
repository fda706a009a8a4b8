//! What a user gets for a mistake, and what helps to find one.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use common::{Place, Running};
use serde_json::Value;

#[test]
fn mistakes_end_with_code_2_and_one_line() {
    let place = Place::new();
    let broken = place.write("broken.json", "{\"a\":\n oops}");
    let cases: [(&[&str], &str); 17] = [
        (&[], "see `discovery --help`"),
        (&["wacth"], "'watch'"),
        (&["list", "--nope"], "see `discovery list --help`"),
        (&["list", "a b"], "is no name for a kind"),
        (&["list", "endpoint//x"], "a segment is empty"),
        (&["list", "--output", "yaml"], "json"),
        (&["get", "endpoint"], "KIND/PATH/INSTANCE"),
        (&["--backend", "nosuch", "list"], "no backend \"nosuch\""),
        (&["--backend", "", "list"], "--backend"),
        (&["register"], "--kind"),
        (&["register", "endpoint", "a/b", "--tcp", "h:1"], "NAMESPACE/COMPONENT/ENDPOINT"),
        (&["register", "endpoint", "a/b/c"], "--tcp"),
        (&["register", "endpoint", "a/b/c", "--tcp", "anything"], "write HOST:PORT"),
        (&["register", "endpoint", "a/b/c", "--tcp", "h:1", "--probe", "https://h/"], "http://HOST:PORT/PATH"),
        (&["register", "model", "a/b/c", "--card", "/nowhere/card.json"], "/nowhere/card.json: No such file"),
        (&["register", "--kind", "x", "--path", "a", "--value", &broken], "line 2"),
        (&["register", "--kind", "instances", "--path", "a", "--value", &place.write("x.json", "1")], "rename it"),
    ];
    for (arguments, told) in cases {
        let ended = place.run(arguments);
        ended.assert_fails(2, told);
        assert_eq!(ended.stdout, "", "{arguments:?}");
    }
    let ended = common::Running::start({
        let mut command = place.command(&["list"]);
        command.env("RUST_LOG", "a=b=c");
        command
    });
    ended.ended().assert_fails(2, "RUST_LOG");
}

#[test]
fn a_variable_that_is_no_unicode_is_told_and_not_taken_for_unset() {
    let place = Place::new();
    let broken = OsStr::from_bytes(b"x\xff");
    let run = |variable: &str, arguments: &[&str]| {
        let mut command = place.command(arguments);
        command.env(variable, broken);
        common::Running::start(command).ended()
    };
    for (variable, arguments) in [
        ("DYN_DISCOVERY_BACKEND", &["list"][..]),
        ("DYN_DISCOVERY_BACKEND", &["backends"]),
        ("DYN_DISCOVERY_BACKEND", &["demo"]),
        ("DYN_DISCOVERY_BACKEND", &["doctor"]),
        ("DYN_DISCOVERY_FILE_TTL", &["list"]),
        ("ETCD_ENDPOINTS", &["list"]),
        ("ETCD_AUTH_PASSWORD", &["list", "--backend", "etcd"]),
        ("DYN_DISCOVERY_MEMORY_CLUSTER", &["list", "--backend", "memory"]),
        ("DYN_DISCOVERY_KUBERNETES_NAMESPACES", &["list", "--backend", "kubernetes"]),
        ("DYN_SYSTEM_PORT", &["register", "endpoint", "a/b/c", "--tcp", "h:1"]),
        ("RUST_LOG", &["list"]),
    ] {
        run(variable, arguments).assert_fails(2, &format!("{variable} is not Unicode"));
    }
    // A path may be any bytes.
    let kv = place.directory.path().join(broken);
    let mut command = place.command(&["register", "endpoint", "a/b/c", "--tcp", "h:1"]);
    command.env("DYN_FILE_KV", &kv);
    let worker = common::Running::start(command);
    worker.line();
    assert!(kv.join("v1/instances").is_dir() && !place.kv().exists());
}

#[test]
fn help_and_version_are_no_mistakes() {
    let place = Place::new();
    for arguments in [&["--help"][..], &["--version"], &["register", "--help"], &["register", "endpoint", "--help"]] {
        let ended = place.run(arguments);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{arguments:?}");
        assert!(ended.stdout.contains("discovery") && !ended.stdout.contains("demo-worker"), "{ended:?}");
    }
}

#[test]
fn failures_end_with_code_1() {
    let place = Place::new();
    place.run(&["get", "endpoint/a/b/c/1"]).assert_fails(1, "no such record");
    place.run(&["get", "endpoint/a/b/c/1", "--backend", "mem"]).assert_fails(1, "no such record");
}

#[test]
fn logs_come_when_asked_for_and_on_standard_error() {
    let place = Place::new();
    let quiet = place.run(&["list"]);
    assert_eq!((quiet.stdout.as_str(), quiet.stderr.as_str()), ("no records\n", ""));
    let ended = place.run(&["-v", "list"]);
    assert_eq!(ended.stdout, "no records\n");
    assert!(ended.stderr.contains("discovery backend chosen"), "{ended:?}");
}

#[test]
fn a_kind_that_may_be_misspelt_is_pointed_out() {
    let place = Place::new();
    let misspelt = place.run(&["list", "endpont/dynamo"]);
    assert_eq!((misspelt.code, misspelt.stdout.as_str()), (Some(0), "no records\n"));
    for told in ["endpont is none of", "endpoint, model, event_channel, event_source"] {
        assert!(misspelt.stderr.contains(told), "{misspelt:?}");
    }
    assert_eq!(place.run(&["list", "endpoint/dynamo"]).stderr, "");
}

#[test]
fn backends_are_listed() {
    let place = Place::new();
    let ended = place.run(&["backends", "--output", "json"]);
    let listed: Vec<Value> = serde_json::from_str(&ended.stdout).unwrap();
    let chosen: Vec<_> =
        listed.iter().map(|one| (one["name"].as_str().unwrap(), one["chosen"].as_bool().unwrap())).collect();
    assert_eq!(chosen, [("etcd", false), ("file", true), ("kubernetes", false), ("memory", false)]);
    let ended = place.run(&["backends", "--backend", "mem"]);
    assert!(ended.code == Some(0) && ended.stdout.contains("*  memory"), "{ended:?}");
    let missing = place.run(&["backends", "--backend", "nosuch"]);
    assert_eq!((missing.code, missing.stderr.matches('\n').count()), (Some(2), 1), "{missing:?}");
}

#[test]
fn completions_name_every_command() {
    let place = Place::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let ended = place.run(&["completions", shell]);
        assert_eq!(ended.code, Some(0));
        for command in ["register", "watch", "doctor", "demo"] {
            assert!(ended.stdout.contains(command), "{shell} {command}");
        }
    }
}

#[test]
fn the_doctor_finds_a_healthy_directory_healthy() {
    let place = Place::new();
    let ended = place.run(&["doctor"]);
    assert!(ended.code == Some(0) && ended.stdout.contains("does not exist yet"), "{ended:?}");
    let worker = place.start(&["register", "endpoint", "a/b/c", "--tcp", "h:1"]);
    worker.line();
    let ended = place.run(&["doctor"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for told in ["1 alive, 0 dead", "1 of this implementation, 0 of others", "1 endpoint", "death_notice"] {
        assert!(ended.stdout.contains(told), "{told}: {}", ended.stdout);
    }
    let ended = place.run(&["doctor", "--backend", "memory"]);
    assert!(ended.code == Some(0) && ended.stdout.contains("inside one process"), "{ended:?}");
}

#[test]
fn the_doctor_finds_a_broken_directory_broken() {
    let place = Place::new();
    fs::write(place.kv(), "a file").unwrap();
    let ended = place.run(&["doctor"]);
    ended.assert_fails(1, "something is wrong");
    assert!(ended.stdout.contains("WRONG") && ended.stdout.contains("DYN_FILE_KV"), "{ended:?}");

    let mut below = place.command(&["doctor"]);
    below.env("DYN_FILE_KV", place.kv().join("below"));
    let ended = common::Running::start(below).ended();
    ended.assert_fails(1, "wrong");
    assert!(ended.stdout.contains("a file stands where a directory should be"), "{ended:?}");
}

/// Everything below a directory that a diagnosis could change.
fn state(directory: &Path, into: &mut Vec<(String, u64, SystemTime)>) {
    let metadata = fs::metadata(directory).unwrap();
    into.push((directory.display().to_string(), metadata.len(), metadata.modified().unwrap()));
    if metadata.is_dir() {
        let mut below: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        below.sort();
        below.iter().for_each(|path| state(path, into));
    }
}

#[test]
fn the_doctor_changes_nothing_not_even_what_has_expired() {
    let place = Place::new();
    let bucket = place.kv().join("v1").join("instances");
    fs::create_dir_all(&bucket).unwrap();
    let value = r#"{"type":"Endpoint","component":"b","endpoint":"c","namespace":"a","instance_id":42,"transport":{"tcp":"h:1"}}"#;
    for (name, value) in [("a%2Fb%2Fc%2F2a", value), ("a%2Fb%2Fc%2F2b", "torn {"), ("no record!", "")] {
        let path = bucket.join(name);
        fs::write(&path, value).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
    }
    let (mut before, mut after) = (Vec::new(), Vec::new());
    state(&place.kv(), &mut before);
    let ended = place.run(&["doctor"]);
    state(&place.kv(), &mut after);
    assert_eq!(before, after);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for told in ["2 expired", "2 endpoint", "1 cannot be read", "1 files are no records"] {
        assert!(ended.stdout.contains(told), "{told}: {}", ended.stdout);
    }
}

#[test]
fn a_store_that_is_away_is_not_waited_for_in_silence() {
    let place = Place::new();
    for arguments in [&["watch"][..], &["list"], &["register", "endpoint", "a/b/c", "--tcp", "127.0.0.1:1"]] {
        let mut command = place.command(&[&["--backend", "etcd"], arguments].concat());
        command.env("ETCD_ENDPOINTS", "http://127.0.0.1:1");
        let told = Running::start(command).waits();
        assert!(told.starts_with("discovery: no answer from etcd yet") && told.contains("discovery doctor"), "{told}");
    }
}

#[test]
fn help_is_a_command_too() {
    let place = Place::new();
    let help = place.run(&["help"]);
    assert!(help.code == Some(0) && help.stdout.contains("watch"), "{help:?}");
}
