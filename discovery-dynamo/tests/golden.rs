//! The recorded bytes of the reference implementation, both ways.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use discovery_core::{ErrorKind, InstanceId, Key, Record};
use discovery_dynamo::{
    DeviceType, Endpoint, EventChannel, EventScope, EventSource, EventTransport, Model, Transport, layout,
};
use serde_json::Value;

/// One record with its key and its value, its type erased.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Written {
    key: Key,
    value: Vec<u8>,
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn lines(name: &str) -> Vec<Value> {
    let text = fs::read_to_string(golden(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text<'a>(record: &'a Value, name: &str) -> &'a str {
    record[name].as_str().unwrap_or_else(|| panic!("{name} of {record}"))
}

fn key_of<T: Record>(record: &T, owner: InstanceId) -> Key {
    let key = Key::new(record.path().unwrap(), record.instance().unwrap_or(owner));
    match record.suffix() {
        Some(suffix) => key.with_suffix(suffix).unwrap(),
        None => key,
    }
}

fn written<T: Record>(record: &T, owner: InstanceId) -> Written {
    let key = key_of(record, owner);
    let value = record.encode(&key).unwrap().to_vec();
    Written { key, value }
}

fn endpoint(line: &Value) -> Endpoint {
    let transport = &line["transport"];
    let name = Endpoint::new(text(line, "namespace"), text(line, "component"), text(line, "endpoint"));
    let endpoint = match transport["tcp"].as_str() {
        Some(address) => name.tcp(address),
        None => name.nats(text(transport, "nats_tcp")),
    };
    match line["device_type"].as_str() {
        Some("cuda") => endpoint.on(DeviceType::Cuda),
        Some(other) => panic!("device {other}"),
        None => endpoint,
    }
}

fn model(line: &Value) -> Model {
    let card = line["card_json"].clone();
    let model = Model::new(text(line, "namespace"), text(line, "component"), text(line, "endpoint"), card);
    match line["model_suffix"].as_str() {
        Some(suffix) => model.adapter(suffix),
        None => model,
    }
}

fn scope(line: &Value) -> EventScope {
    let scope = &line["scope"];
    match text(scope, "kind") {
        "namespace" => EventScope::namespace(text(scope, "name")),
        "component" => EventScope::component(text(scope, "namespace"), text(scope, "component")),
        "endpoint" => {
            let endpoint = &scope["endpoint"];
            EventScope::endpoint(text(endpoint, "namespace"), text(endpoint, "component"), text(endpoint, "name"))
        }
        other => panic!("scope {other}"),
    }
}

fn publisher(line: &Value) -> InstanceId {
    InstanceId(line["publisher_id"].as_u64().unwrap())
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|item| item.as_str().unwrap()).collect()
}

fn channel(line: &Value) -> EventChannel {
    let name = EventChannel::new(scope(line), text(line, "topic"), publisher(line));
    let config = &line["transport"]["config"];
    match text(&line["transport"], "kind") {
        "Zmq" => name.zmq(text(config, "endpoint")),
        "Nats" => name.nats(text(config, "subject_prefix")),
        "ZmqBroker" => name.zmq_broker(strings(&config["xsub_endpoints"]), strings(&config["xpub_endpoints"])),
        other => panic!("transport {other}"),
    }
}

fn source(line: &Value) -> EventSource {
    EventSource::new(scope(line), text(line, "topic"), publisher(line), line["metadata"].clone())
}

/// The registration of a line, as `owner` writes it.
fn register(line: &Value, owner: InstanceId) -> Written {
    match text(line, "kind") {
        "endpoint" => written(&endpoint(line), owner),
        "model" => written(&model(line), owner),
        "event_channel" => written(&channel(line), owner),
        "event_source" => written(&source(line), owner),
        other => panic!("kind {other}"),
    }
}

/// Every registration but the two that the reference refused.
fn accepted(owner: InstanceId) -> Vec<Written> {
    let records = lines("records.jsonl");
    let refused = ["s2", "mx"];
    let accepted: Vec<_> = records.iter().filter(|line| !refused.contains(&text(line, "name"))).collect();
    assert_eq!(accepted.len(), 8);
    accepted.into_iter().map(|line| register(line, owner)).collect()
}

/// Decodes theirs and compares it with the registration that it came from.
fn decodes_to_its_registration(key: &Key, value: &[u8]) {
    let named = |line: &&Value| register(line, key.instance()).key == *key;
    let records = lines("records.jsonl");
    let line = records.iter().find(named).unwrap_or_else(|| panic!("no registration of {key}"));
    match key.kind() {
        "endpoint" => assert_eq!(Endpoint::decode(key, value).unwrap(), endpoint(line)),
        "model" => assert_eq!(Model::decode(key, value).unwrap(), model(line)),
        "event_channel" => assert_eq!(EventChannel::decode(key, value).unwrap(), channel(line)),
        "event_source" => assert_eq!(EventSource::decode(key, value).unwrap(), source(line)),
        other => panic!("kind {other}"),
    }
}

#[test]
fn etcd_bytes_are_equal() {
    let theirs = lines("etcd.jsonl");
    let owner = InstanceId(theirs[0]["lease"].as_u64().unwrap());
    let ours: BTreeMap<_, _> = accepted(owner)
        .into_iter()
        .map(|record| (layout::stored_key(&record.key).unwrap(), String::from_utf8(record.value).unwrap()))
        .collect();
    let theirs: BTreeMap<_, _> =
        theirs.iter().map(|line| (text(line, "key").to_owned(), text(line, "value").to_owned())).collect();
    assert_eq!(ours, theirs);
}

#[test]
fn etcd_records_decode() {
    let theirs = lines("etcd.jsonl");
    assert_eq!(theirs.len(), 8);
    for line in theirs {
        let stored = text(&line, "key");
        let key = layout::parse_stored_key(stored).unwrap();
        assert_eq!(layout::stored_key(&key).unwrap(), stored);
        decodes_to_its_registration(&key, text(&line, "value").as_bytes());
    }
}

/// The files of the recorded directory: (bucket, name) to content.
fn recorded_files() -> BTreeMap<(String, String), Vec<u8>> {
    let mut files = BTreeMap::new();
    let name = |entry: &fs::DirEntry| entry.file_name().into_string().unwrap();
    for bucket in fs::read_dir(golden("file").join(layout::ROOT)).unwrap().map(Result::unwrap) {
        for file in fs::read_dir(bucket.path()).unwrap().map(Result::unwrap) {
            files.insert((name(&bucket), name(&file)), fs::read(file.path()).unwrap());
        }
    }
    assert_eq!(files.len(), 8);
    files
}

#[test]
fn file_names_and_bytes_are_equal() {
    let ours: BTreeMap<_, _> = accepted(InstanceId(0x59e2_eedf_e22a_1661))
        .into_iter()
        .map(|record| (layout::file_name(&record.key).unwrap(), record.value))
        .collect();
    assert_eq!(ours, recorded_files());
}

#[test]
fn files_decode() {
    for ((bucket, name), value) in recorded_files() {
        let key = layout::parse_file_name(&bucket, &name).unwrap();
        assert_eq!(layout::bucket_of_kind(key.kind()).unwrap(), bucket);
        decodes_to_its_registration(&key, &value);
    }
}

/// The entries of the recorded resource: (collection, name) to value.
fn recorded_resource() -> BTreeMap<(String, String), Value> {
    let resource = fs::read(golden("k8s-dynamoworkermetadata.json")).unwrap();
    let resource: Value = serde_json::from_slice(&resource).unwrap();
    let data = resource["spec"]["data"].as_object().unwrap();
    assert!(layout::KUBERNETES_COLLECTIONS.iter().all(|collection| data.contains_key(*collection)));
    let mut entries = BTreeMap::new();
    for (collection, map) in data {
        for (name, value) in map.as_object().unwrap() {
            entries.insert((collection.clone(), name.clone()), value.clone());
        }
    }
    assert_eq!(entries.len(), 8);
    entries
}

#[test]
fn kubernetes_entries_are_equal() {
    let owner = layout::kubernetes_instance_id("dynamo-backend-0");
    let ours: BTreeMap<_, _> = accepted(owner)
        .into_iter()
        .map(|record| {
            let value = layout::kubernetes_value(&record.key, &record.value).unwrap();
            (layout::kubernetes_entry(&record.key).unwrap(), value)
        })
        .collect();
    assert_eq!(ours, recorded_resource());
}

#[test]
fn kubernetes_entries_decode() {
    let mut ours = accepted(layout::kubernetes_instance_id("dynamo-backend-0"));
    let mut theirs = Vec::new();
    for ((collection, name), value) in recorded_resource() {
        let key = layout::parse_kubernetes_entry(&collection, &name).unwrap();
        assert_eq!(layout::kubernetes_entry(&key).unwrap(), (collection, name));
        decodes_to_its_registration(&key, value.to_string().as_bytes());
        let value = layout::value_from_kubernetes(&key, &value).unwrap();
        decodes_to_its_registration(&key, &value);
        theirs.push((key, serde_json::from_slice::<Value>(&value).unwrap()));
    }
    ours.sort();
    theirs.sort_by(|one, other| one.0.cmp(&other.0));
    let ours: Vec<_> =
        ours.into_iter().map(|record| (record.key, serde_json::from_slice(&record.value).unwrap())).collect();
    assert_eq!(ours, theirs, "the older fields are gone, and nothing else is");
}

#[test]
fn instance_ids_are_equal() {
    let ids = lines("instance-ids.jsonl");
    assert_eq!(ids.len(), 6);
    for line in ids {
        let (pod, container) = (text(&line, "pod"), text(&line, "container"));
        let id_of = |container: Option<&str>| {
            let name = layout::kubernetes_resource_name(pod, container).unwrap();
            Some(layout::kubernetes_instance_id(&name).0)
        };
        assert_eq!(id_of(None), line["instance_id"].as_u64());
        assert_eq!(id_of(Some("main")), line["instance_id"].as_u64());
        assert_eq!(id_of(Some(container)), line["container_instance_id"].as_u64());
    }
}

#[test]
fn the_changed_source_is_refused() {
    let records = lines("records.jsonl");
    let named = |name: &str| source(records.iter().find(|line| text(line, "name") == name).unwrap());
    let (registered, changed) = (named("s"), named("s2"));
    let owner = InstanceId(1);
    assert_eq!(key_of(&registered, owner), key_of(&changed, owner));
    assert_eq!(registered.check_update(&changed).unwrap_err().kind(), ErrorKind::Refused);
}

#[test]
fn the_second_model_is_refused() {
    let records = lines("records.jsonl");
    let named = |name: &str| model(records.iter().find(|line| text(line, "name") == name).unwrap());
    let (base, adapter, other) = (named("m"), named("ml"), named("mx"));
    adapter.check_beside(&base).unwrap();
    base.check_beside(&adapter).unwrap();
    for registered in [&base, &adapter] {
        assert_eq!(other.check_beside(registered).unwrap_err().kind(), ErrorKind::Conflict);
    }
    // The reference's own attempt was made under the owner's key, where the rule of updates forbids it as well.
    assert_eq!(base.check_update(&other).unwrap_err().kind(), ErrorKind::Refused);
}

#[test]
fn older_channels_are_read() {
    let transport = r#"{"kind":"Nats","config":{"subject_prefix":"namespace.dynamo"}}"#;
    let cases = [
        ("dynamo/backend/kv-events/2a", "backend", "kv-events", EventScope::component("dynamo", "backend")),
        ("dynamo//kv_metrics/2a", "", "kv_metrics", EventScope::namespace("dynamo")),
    ];
    for (name, component, topic, scope) in cases {
        let key = layout::parse_kubernetes_entry("event_channels", name).unwrap();
        let value = format!(
            r#"{{"type":"EventChannel","namespace":"dynamo","component":"{component}","topic":"{topic}","instance_id":42,"transport":{transport}}}"#
        );
        let channel = EventChannel::decode(&key, value.as_bytes()).unwrap();
        let subject_prefix = "namespace.dynamo".to_owned();
        assert_eq!(channel.transport(), &EventTransport::Nats { subject_prefix });
        assert_eq!(channel, EventChannel::new(scope, topic, InstanceId(42)).nats("namespace.dynamo"));
        // They are shown as they are, and the newer form stands under another name.
        let parsed: Value = serde_json::from_str(&value).unwrap();
        let shown = layout::value_from_kubernetes(&key, &parsed).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&shown).unwrap(), parsed);
        assert_ne!(layout::kubernetes_entry(&key).unwrap().1, name);
    }
}

#[test]
fn what_they_could_not_have_written_does_not_decode() {
    let key = layout::parse_stored_key("v1/instances/dynamo/backend/generate/2a").unwrap();
    let value = |fields: &str| {
        let name = r#""type":"Endpoint","component":"backend","endpoint":"generate","namespace":"dynamo""#;
        format!("{{{name},{fields}}}")
    };
    let good = value(r#""instance_id":42,"transport":{"tcp":"a:1"},"added_later":true"#);
    assert_eq!(Endpoint::decode(&key, good.as_bytes()).unwrap().transport(), &Transport::Tcp("a:1".to_owned()));
    let bad = [
        value(r#""instance_id":43,"transport":{"tcp":"a:1"}"#),
        value(r#""transport":{"tcp":"a:1"}"#),
        value(r#""instance_id":42,"transport":{"quic":"a:1"}"#),
        value(r#""instance_id":42"#),
        value(r#""instance_id":42,"transport":{"tcp":"a:1"},"device_type":"abacus""#),
        good.replace("generate", "other"),
        good.replace("Endpoint", "Model"),
        good.replace("dynamo", "dyn/amo"),
        good[..good.len() - 1].to_owned(),
        String::new(),
    ];
    for value in bad {
        let error = Endpoint::decode(&key, value.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidValue, "{value}: {error:?}");
    }
}
