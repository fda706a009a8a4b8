//! Registering, listing and watching, in processes of their own.

mod common;

use common::Place;
use rustix::process::Signal;
use serde_json::{Value, json};

const REGISTER: [&str; 5] = ["register", "endpoint", "dynamo/backend/generate", "--tcp", "10.0.0.5:9000"];

fn number(hex: &str) -> u64 {
    u64::from_str_radix(hex, 16).unwrap()
}

#[test]
fn an_endpoint_is_held_listed_and_withdrawn() {
    for stop in [Signal::TERM, Signal::INT] {
        let place = Place::new();
        let mut worker = place.start(&REGISTER);
        let id = worker.line();
        let record = json!({
            "kind": "endpoint",
            "path": "dynamo/backend/generate",
            "instance_id": id,
            "value": {
                "type": "Endpoint",
                "namespace": "dynamo",
                "component": "backend",
                "endpoint": "generate",
                "instance_id": number(&id),
                "transport": { "tcp": "10.0.0.5:9000" },
            },
        });
        for query in ["", "endpoint", "endpoint/dynamo", "endpoint/dynamo/backend"] {
            assert_eq!(place.list(query), std::slice::from_ref(&record), "{query}");
        }
        for query in ["model", "endpoint/dyn", "endpoint/dynamo/back"] {
            assert_eq!(place.list(query), [] as [Value; 0], "{query}");
        }
        let key = format!("endpoint/dynamo/backend/generate/{id}");
        let got = place.run(&["get", &key, "--output", "json"]);
        assert_eq!(serde_json::from_str::<Value>(&got.stdout).unwrap(), record);
        assert!(place.run(&["get", &key]).stdout.starts_with(&key));
        let table = place.run(&["list"]).stdout;
        assert!(table.contains("KIND") && table.contains("tcp 10.0.0.5:9000"), "{table}");

        worker.signal(stop);
        assert_eq!(worker.wait().code(), Some(0));
        assert_eq!(place.list(""), [] as [Value; 0]);
        place.run(&["get", &key]).assert_fails(1, "no such record");
    }
}

#[test]
fn a_watch_tells_every_change() {
    let place = Place::new();
    let watch = place.start(&["watch", "endpoint/dynamo", "--output", "json"]);
    assert_eq!(watch.json(), json!({"change": "synced", "records": 0}));
    let people = place.start(&["watch", "endpoint/dynamo"]);
    assert_eq!(people.line(), "synced   0 records");

    let mut worker = place.start(&REGISTER);
    let id = worker.line();
    let added = watch.json();
    let listed = place.list("").remove(0);
    for name in ["kind", "path", "instance_id", "value"] {
        assert_eq!(added[name], listed[name], "{name}");
    }
    assert_eq!((&added["change"], added.get("suffix")), (&json!("added"), None));
    let line = people.line();
    assert_eq!(line, format!("added    endpoint/dynamo/backend/generate/{id}  tcp 10.0.0.5:9000"));

    let late = place.start(&["watch", "--output", "json"]);
    assert_eq!(late.json(), added);
    assert_eq!(late.json(), json!({"change": "synced", "records": 1}));

    worker.signal(Signal::TERM);
    assert_eq!(worker.wait().code(), Some(0));
    let removed = watch.json();
    assert_eq!((&removed["change"], &removed["value"]), (&json!("removed"), &added["value"]));
    assert!(people.line().starts_with("removed  endpoint/dynamo/"));
    for mut watch in [watch, people, late] {
        watch.signal(Signal::TERM);
        assert_eq!(watch.wait().code(), Some(0));
    }
}

#[test]
fn a_watch_sees_a_worker_die() {
    let place = Place::new();
    let worker = place.start(&REGISTER);
    let id = worker.line();
    let watch = place.start(&["watch", "--output", "json"]);
    assert_eq!(watch.json()["change"], "added");
    assert_eq!(watch.json()["change"], "synced");
    worker.signal(Signal::KILL);
    let removed = watch.json();
    assert_eq!((&removed["change"], &removed["instance_id"]), (&json!("removed"), &json!(id)));
}

#[test]
fn models_and_their_adapters_are_registered() {
    let place = Place::new();
    let card = place.write("card.json", r#"{"display_name": "Qwen/Qwen3-0.6B"}"#);
    let base = place.start(&["register", "model", "dynamo/backend/generate", "--card", &card]);
    let base_id = base.line();
    let adapter = r#"{"display_name": "sql", "source_path": "Qwen/Qwen3-0.6B"}"#;
    let arguments = ["register", "model", "dynamo/backend/generate", "--card", "-", "--suffix", "sql"];
    let adapter = place.start_with_input(&arguments, adapter);
    let adapter_id = adapter.line();

    let listed = place.list("model");
    let of = |id: &str| listed.iter().find(|record| record["instance_id"] == id).unwrap();
    assert_eq!(of(&base_id).get("suffix"), None);
    assert_eq!(of(&base_id)["value"]["card_json"]["display_name"], "Qwen/Qwen3-0.6B");
    assert_eq!(of(&adapter_id)["suffix"], "sql");
    let key = format!("model/dynamo/backend/generate/{adapter_id}/sql");
    let got = place.run(&["get", &key, "--output", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&got.stdout).unwrap(), *of(&adapter_id));
    assert!(place.run(&["list"]).stdout.contains("SUFFIX"));

    let other = place.write("other.json", r#"{"display_name": "other/model"}"#);
    let other = place.run(&["register", "model", "dynamo/backend/generate", "--card", &other]);
    other.assert_fails(1, "the model \"other/model\" cannot join");
    assert_eq!(other.stdout, "");
    let nameless = place.write("nameless.json", "{}");
    place.run(&["register", "model", "a/b/c", "--card", &nameless]).assert_fails(2, "display_name");
}

#[test]
fn records_of_any_kind_are_registered() {
    let place = Place::new();
    let arguments = ["register", "--kind", "cache", "--path", "eu/pool%2Fa", "--value", "-"];
    let cache = place.start_with_input(&arguments, r#"{"size": 3}"#);
    let id = cache.line();
    let expected = json!({"kind": "cache", "path": "eu/pool%2Fa", "instance_id": id, "value": {"size": 3}});
    assert_eq!(place.list("cache/eu/pool%2Fa"), [expected]);

    // One of Dynamo's kinds gets its own form, with the id that nobody can know before.
    let value =
        r#"{"type": "Endpoint", "namespace": "a", "component": "b", "endpoint": "c", "transport": {"tcp": "h:1"}}"#;
    let arguments = ["register", "--kind", "endpoint", "--path", "a/b/c", "--value", "-"];
    let endpoint = place.start_with_input(&arguments, value);
    let id = endpoint.line();
    assert_eq!(place.list("endpoint")[0]["value"]["instance_id"], number(&id));
    let arguments = ["register", "--kind", "endpoint", "--path", "a/b/d", "--value", "-"];
    place.start_with_input(&arguments, value).ended().assert_fails(2, "the value names endpoint/a/b/c");
}

#[test]
fn events_are_registered_under_their_publishers_id() {
    let place = Place::new();
    let arguments = ["register", "event-channel", "dynamo/backend", "--topic", "kv-events"];
    let channel = place.start(&[&arguments[..], &["--zmq", "tcp://10.0.0.5:5557", "--publisher", "1234"]].concat());
    assert_eq!(channel.line(), "1234");
    let description = place.write("source.json", r#"{"block_size": 16}"#);
    let arguments = ["register", "event-source", "dynamo", "--topic", "kv-state", "--metadata", &description];
    let source = place.start(&arguments);
    let id = source.line();
    let listed = place.list("");
    assert_eq!(listed[0]["path"], "namespace/dynamo/component/backend/topic/kv-events");
    assert_eq!((&listed[1]["kind"], &listed[1]["instance_id"]), (&json!("event_source"), &json!(id)));
}

#[test]
fn a_reader_that_leaves_ends_the_output_quietly() {
    let place = Place::new();
    let mut watch = place.command(&["watch", "--output", "json"]).spawn().unwrap();
    drop(watch.stdout.take());
    let mut ended = None;
    common::eventually("the watch ends", || {
        ended = watch.try_wait().unwrap();
        ended.is_some()
    });
    let mut told = String::new();
    std::io::Read::read_to_string(&mut watch.stderr.take().unwrap(), &mut told).unwrap();
    assert_eq!((ended.unwrap().code(), told.as_str()), (Some(0), ""));
}
