//! Every key either has one place on each store, from which it is read back, or is refused before any I/O.

use discovery_core::{ErrorKind, InstanceId, Key, Path, Record, Result, Scope};
use discovery_dynamo::{
    DeviceType, Endpoint, EventChannel, EventScope, EventSource, EventTransport, Model, RequestPlaneCodec, Transport,
    layout,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Names of which many look like another's spelling.
fn confusable() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "a",
        "ab",
        "b",
        "1",
        "01",
        "2a",
        "/",
        "%",
        "%2F",
        "%2f",
        "25",
        "%25",
        ".",
        "_",
        "-",
        "+",
        " ",
        "A",
        "é",
        "\u{200b}",
        "topic",
        "namespace",
        "component",
        "endpoint",
        "v1",
        "mdc",
        "instances",
    ]);
    vec(part, 1..4).prop_map(|parts| parts.concat())
}

/// Any name that a key can hold.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => confusable(),
        1 => vec(any::<char>().prop_filter("control", |c| !c.is_control()), 1..20)
            .prop_map(|chars| chars.into_iter().collect::<String>()),
    ]
}

/// A name that Dynamo can write as it is.
fn plain() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_.%é-]{1,12}"
}

fn instance() -> impl Strategy<Value = InstanceId> {
    prop_oneof![0..40_u64, any::<u64>()].prop_map(InstanceId)
}

fn kind() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec!["endpoint", "model", "event_channel", "event_source"]);
    let taken =
        prop::sample::select(vec!["instances", "mdc", "event_channels", "event_sources", "endpoints", "model_cards"]);
    prop_oneof![4 => known.prop_map(str::to_owned), 1 => taken.prop_map(str::to_owned), 3 => "[A-Za-z0-9_-]{1,3}"]
}

/// Segments of which many fit one of Dynamo's kinds.
fn segments() -> impl Strategy<Value = Vec<String>> {
    let event = (vec(name(), 1..4), name()).prop_map(|(scope, topic)| {
        let levels = ["namespace", "component", "endpoint"];
        let named = levels.iter().zip(scope).flat_map(|(level, name)| [(*level).to_owned(), name]);
        named.chain(["topic".to_owned(), topic]).collect()
    });
    prop_oneof![vec(name(), 1..6), vec(plain(), 3), event]
}

fn key() -> impl Strategy<Value = Key> {
    (kind(), segments(), instance(), prop::option::weighted(0.3, name())).prop_map(|(kind, segments, id, suffix)| {
        let key = Key::new(Path::new(&kind, segments).unwrap(), id);
        match suffix {
            Some(suffix) => key.with_suffix(&suffix).unwrap(),
            None => key,
        }
    })
}

/// The three places of a key, as text.
fn places(key: &Key) -> [Result<(String, String)>; 3] {
    let stored = layout::stored_key(key).map(|stored| (String::new(), stored));
    [stored, layout::file_name(key), layout::kubernetes_entry(key)]
}

/// Checks each place of a key: read back exactly, or refused with the right kind. Answers which exist.
fn check_places(key: &Key) -> [bool; 3] {
    let parse = |place: usize, (outer, inner): &(String, String)| match place {
        0 => layout::parse_stored_key(inner),
        1 => layout::parse_file_name(outer, inner),
        _ => layout::parse_kubernetes_entry(outer, inner),
    };
    let mut exist = [false; 3];
    for (place, written) in places(key).into_iter().enumerate() {
        match written {
            Ok(written) => {
                assert_eq!(&parse(place, &written).unwrap(), key, "{written:?}");
                exist[place] = true;
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::InvalidKey);
                assert_eq!(error.key(), Some(key));
            }
        }
    }
    exist
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-9_007_199_254_740_991_i64..=9_007_199_254_740_991).prop_map(|number| json!(number)),
        any::<i16>().prop_map(|number| json!(f64::from(number) / 4.0)),
        any::<String>().prop_map(Value::String),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::Array),
            btree_map(".{0,4}", inner, 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let transport = prop_oneof![any::<String>().prop_map(Transport::Tcp), any::<String>().prop_map(Transport::Nats)];
    let device = prop::option::of(prop::sample::select(vec![DeviceType::Cpu, DeviceType::Cuda]));
    let codec = prop::option::of(prop::sample::select(vec![RequestPlaneCodec::Json, RequestPlaneCodec::Msgpack]));
    ([name(), name(), name()], transport, device, codec).prop_map(
        |([ns, component, name], transport, device, codec)| {
            let mut endpoint = Endpoint::new(ns, component, name).transport(transport);
            if let Some(device) = device {
                endpoint = endpoint.on(device);
            }
            match codec {
                Some(codec) => endpoint.codec(codec),
                None => endpoint,
            }
        },
    )
}

fn model() -> impl Strategy<Value = Model> {
    let config = (vec(".{0,4}", 0..4), btree_map("[a-z]{1,3}", "[a-z ]{0,3}", 0..3), json_value());
    let config = config
        .prop_map(|(taints, domains, other)| json!({ "taints": taints, "topology_domains": domains, "other": other }));
    (vec(plain(), 3), any::<String>(), prop::option::of(config), json_value(), prop::option::of(name())).prop_map(
        |(path, display_name, config, other, suffix)| {
            let mut card = json!({ "display_name": display_name, "other": other });
            if let Some(config) = config {
                card["runtime_config"] = config;
            }
            let model = Model::new(&path[0], &path[1], &path[2], card);
            match suffix {
                Some(suffix) => model.adapter(suffix),
                None => model,
            }
        },
    )
}

fn scope() -> impl Strategy<Value = EventScope> {
    prop_oneof![
        name().prop_map(EventScope::namespace),
        [name(), name()].prop_map(|[ns, component]| EventScope::component(ns, component)),
        [name(), name(), name()].prop_map(|[ns, component, name]| EventScope::endpoint(ns, component, name)),
    ]
}

fn channel() -> impl Strategy<Value = EventChannel> {
    let addresses = || vec(any::<String>(), 0..3);
    let transport = prop_oneof![
        any::<String>().prop_map(|endpoint| EventTransport::Zmq { endpoint }),
        any::<String>().prop_map(|subject_prefix| EventTransport::Nats { subject_prefix }),
        (addresses(), addresses())
            .prop_map(|(xsub_endpoints, xpub_endpoints)| EventTransport::ZmqBroker { xsub_endpoints, xpub_endpoints }),
    ];
    (scope(), name(), instance(), transport)
        .prop_map(|(scope, topic, id, transport)| EventChannel::new(scope, topic, id).transport(transport))
}

fn source() -> impl Strategy<Value = EventSource> {
    (scope(), name(), instance(), json_value())
        .prop_map(|(scope, topic, id, metadata)| EventSource::new(scope, topic, id, metadata))
}

/// A record survives its value, plainly and through Kubernetes, and its key survives every place that it has.
fn check_record<T: Record + Clone + PartialEq + std::fmt::Debug>(record: &T, owner: InstanceId) -> Option<[bool; 3]> {
    let path = match record.path() {
        Ok(path) => path,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::InvalidKey);
            return None;
        }
    };
    let mut key = Key::new(path, record.instance().unwrap_or(owner));
    if let Some(suffix) = record.suffix() {
        key = key.with_suffix(suffix).unwrap();
    }
    let exist = check_places(&key);
    let value = record.encode(&key).unwrap();
    assert_eq!(&T::decode(&key, &value).unwrap(), record);
    if exist[2] {
        let there = layout::kubernetes_value(&key, &value).unwrap();
        assert_eq!(&T::decode(&key, there.to_string().as_bytes()).unwrap(), record);
        let back = layout::value_from_kubernetes(&key, &there).unwrap();
        let parsed = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        assert_eq!(parsed(&back), parsed(&value));
    }
    // Under another key the value is not taken for its own.
    let other = Key::new(key.path().clone(), InstanceId(key.instance().0 ^ 1));
    assert_eq!(T::decode(&other, &value).unwrap_err().kind(), ErrorKind::InvalidValue);
    let plain: T = serde_json::from_slice(&serde_json::to_vec(record).unwrap()).unwrap();
    assert_eq!(&plain, record);
    Some(exist)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn keys_are_read_back(key in key()) {
        check_places(&key);
    }

    #[test]
    fn two_keys_share_no_place(one in key(), other in key()) {
        prop_assume!(one != other);
        for (one, other) in places(&one).into_iter().zip(places(&other)) {
            if let (Ok(one), Ok(other)) = (one, other) {
                prop_assert_ne!(one, other);
            }
        }
    }

    #[test]
    fn free_kinds_have_a_place_for_every_name(segments in vec(name(), 1..5), id in instance(), suffix in name()) {
        let key = Key::new(Path::new("cache", &segments).unwrap(), id);
        for key in [key.clone(), key.with_suffix(&suffix).unwrap()] {
            let [stored, _, kubernetes] = check_places(&key);
            prop_assert!(stored);
            prop_assert_eq!(kubernetes, id.0 <= layout::MAX_KUBERNETES_INTEGER);
        }
    }

    #[test]
    fn only_what_is_written_is_read(
        bucket in prop_oneof![kind(), Just("event_channels".to_owned()), Just("mdc".to_owned()), Just("instances".to_owned())],
        parts in vec(confusable(), 0..8),
    ) {
        let entry = parts.join("/");
        let stored = format!("v1/{bucket}/{entry}");
        if let Ok(key) = layout::parse_stored_key(&stored) {
            prop_assert_eq!(layout::stored_key(&key).unwrap(), stored);
        }
        for name in [&entry, &entry.replace('/', "%2F")] {
            if let Ok(key) = layout::parse_file_name(&bucket, name) {
                prop_assert_eq!(&layout::file_name(&key).unwrap(), &(bucket.clone(), name.clone()));
            }
        }
        let is_older = bucket == "event_channels" && entry.split('/').count() == 4;
        if let (Ok(key), false) = (layout::parse_kubernetes_entry(&bucket, &entry), is_older) {
            prop_assert_eq!(layout::kubernetes_entry(&key).unwrap(), (bucket, entry));
        }
    }

    #[test]
    fn no_text_makes_a_parser_panic(one in any::<String>(), other in any::<String>()) {
        let _ = layout::parse_stored_key(&one);
        let _ = layout::parse_stored_key(&format!("v1/{one}/{other}"));
        let _ = layout::parse_file_name(&one, &other);
        let _ = layout::parse_kubernetes_entry(&one, &other);
        for bucket in ["instances", "mdc", "event_channels", "cache"] {
            let _ = layout::parse_stored_key(&format!("v1/{bucket}/{one}"));
            let _ = layout::parse_file_name(bucket, &one);
        }
    }

    #[test]
    fn prefixes_hold_their_scope_and_nothing_else(key in key(), scoped in key(), length in 0..8_usize) {
        let Ok(stored) = layout::stored_key(&key) else { return Ok(()) };
        prop_assert!(stored.starts_with(&layout::stored_prefix(&Scope::all()).unwrap()));
        // Of one's own path and of another's, which may be like it.
        for path in [key.path(), scoped.path()] {
            let leading: Vec<_> = path.segments().take(length).collect();
            let scope = Scope::new(path.kind(), leading).unwrap();
            match layout::stored_prefix(&scope) {
                Ok(prefix) => {
                    prop_assert!(prefix.ends_with('/'));
                    prop_assert_eq!(stored.starts_with(&prefix), scope.contains(&key));
                }
                Err(error) => {
                    prop_assert_eq!(error.kind(), ErrorKind::InvalidQuery);
                    prop_assert!(!scope.contains(&key));
                }
            }
        }
    }

    #[test]
    fn endpoints_round_trip(endpoint in endpoint(), owner in instance()) {
        let is_plain = ![endpoint.namespace(), endpoint.component(), endpoint.endpoint()].iter().any(|name| name.contains('/'));
        let exist = check_record(&endpoint, owner);
        prop_assert_eq!(exist.is_some_and(|exist| exist[0]), is_plain);
    }

    #[test]
    fn models_round_trip(model in model(), owner in instance()) {
        let is_plain = !model.suffix().is_some_and(|suffix| suffix.contains('/'));
        let exist = check_record(&model, owner);
        prop_assert_eq!(exist.is_some_and(|exist| exist[0]), is_plain);
    }

    #[test]
    fn channels_round_trip(channel in channel()) {
        let exist = check_record(&channel, InstanceId(1));
        prop_assert!(exist.is_some_and(|exist| exist[0]));
    }

    #[test]
    fn sources_round_trip(source in source()) {
        let exist = check_record(&source, InstanceId(1));
        prop_assert!(exist.is_some_and(|exist| exist[0]));
    }
}

fn key_of(kind: &str, segments: &[&str], suffix: Option<&str>) -> Key {
    let key = Key::new(Path::new(kind, segments).unwrap(), InstanceId(0x2a));
    suffix.map_or(key.clone(), |suffix| key.with_suffix(suffix).unwrap())
}

#[test]
fn keys_without_a_place_are_refused() {
    let cases = [
        key_of("endpoint", &["a", "b"], None),
        key_of("endpoint", &["a", "b", "c", "d"], None),
        key_of("endpoint", &["a", "b/c", "d"], None),
        key_of("endpoint", &["a", "b", "c"], Some("s")),
        key_of("model", &["a", "b", "c"], Some("s/t")),
        key_of("model", &["a"], None),
        key_of("event_channel", &["a", "b", "c"], None),
        key_of("event_channel", &["namespace", "a"], None),
        key_of("event_channel", &["namespace", "a", "topic"], None),
        key_of("event_channel", &["topic", "a"], None),
        key_of("event_channel", &["namespace", "a", "endpoint", "b", "topic", "t"], None),
        key_of("event_channel", &["namespace", "a", "topic", "t", "more", "m"], None),
        key_of("event_source", &["namespace", "a", "topic", "t"], Some("s")),
        key_of("instances", &["a", "b", "c"], None),
        key_of("mdc", &["a"], None),
        key_of("event_channels", &["a"], None),
        key_of("event_sources", &["a"], None),
        key_of("endpoints", &["a"], None),
        key_of("model_cards", &["a"], None),
    ];
    for key in cases {
        assert_eq!(check_places(&key), [false; 3], "{key}");
    }
}

#[test]
fn other_spellings_are_not_read() {
    let good = ["v1/instances/a/b/c/2a", "v1/cache/a%2Fb/2a.x", "v1/event_channels/namespace/a/topic/t/0"];
    for stored in good {
        assert_eq!(layout::stored_key(&layout::parse_stored_key(stored).unwrap()).unwrap(), stored);
    }
    let bad = [
        "",
        "v1",
        "v1/",
        "v1/instances",
        "v1/instances/",
        "v1//a/2a",
        "v2/instances/a/b/c/2a",
        "/v1/instances/a/b/c/2a",
        "v1/instances/a/b/c/2A",
        "v1/instances/a/b/c/02a",
        "v1/instances/a/b/c/+2a",
        "v1/instances/a/b/c/",
        "v1/instances/a/b/c/2a/",
        "v1/instances/a/b/c/2a/s",
        "v1/instances/a//c/2a",
        "v1/instances/a/b/2a",
        "v1/instances/a/b/c/10000000000000000",
        "v1/endpoint/a/b/c/2a",
        "v1/mdc/a/b/c/2a/s/t",
        "v1/mdc/a/b/c/2a/",
        "v1/endpoints/a/2a",
        "v1/cache/2a",
        "v1/cache/a%2fb/2a",
        "v1/cache/a%41/2a",
        "v1/cache/a b/2a",
        "v1/cache/a%FF/2a",
        "v1/cache/a%/2a",
        "v1/cache/a%0A/2a",
        "v1/cache/a/2a.",
        "v1/cache/a/2a.x.y",
        "v1/cache/a/.x",
        "v1/cache/a/g",
        "v1/c.d/a/2a",
        "v1/event_channels/dynamo/backend/kv-events/2a",
        "v1/event_channels/namespace/a/topic/t%/2a",
        "v1/event_channels/namespace/a/component/b/2a",
        "v1/pool_roles/ns/1a2b/role",
    ];
    for stored in bad {
        assert_eq!(layout::parse_stored_key(stored).unwrap_err().kind(), ErrorKind::InvalidKey, "{stored}");
    }
    for name in [".tmp_1", "dynamo/a", "a%2Fb%2Fc%2F2A", "a%2fb%2fc%2f2a", "%61%2Fb%2Fc%2F2a", "a_b%2Fb%2Fc%2F2a"] {
        assert_eq!(layout::parse_file_name("instances", name).unwrap_err().kind(), ErrorKind::InvalidKey, "{name}");
    }
}

#[test]
fn file_names_have_a_limit() {
    // Three names and an id: the slashes take three bytes each.
    let fixed = "%2Fb%2Fc%2F2a".len();
    let longest = "a".repeat(layout::MAX_FILE_NAME - fixed);
    let (_, name) = layout::file_name(&key_of("endpoint", &[&longest, "b", "c"], None)).unwrap();
    assert_eq!(name.len(), 255);
    let error = layout::file_name(&key_of("endpoint", &[&format!("{longest}a"), "b", "c"], None)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidKey);
    assert!(error.message().contains("256 bytes"), "{error}");
    assert!(layout::parse_file_name("instances", &format!("a{name}")).is_err());
}

#[test]
fn kubernetes_has_a_limit_for_integers() {
    let key = |id| Key::new(Path::new("cache", ["a"]).unwrap(), InstanceId(id));
    assert!(layout::kubernetes_entry(&key(layout::MAX_KUBERNETES_INTEGER)).is_ok());
    let error = layout::kubernetes_entry(&key(layout::MAX_KUBERNETES_INTEGER + 1)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidKey);
    assert!(layout::parse_kubernetes_entry("cache", "a/20000000000000").is_err());

    for good in ["[9007199254740991, -9007199254740991, 1e300]", "null", r#"{"a": 0.5}"#] {
        layout::kubernetes_value(&key(1), good.as_bytes()).unwrap();
    }
    for bad in ["9007199254740992", r#"{"a": [{"b": -9007199254740992}]}"#, "18446744073709551615", "{", ""] {
        let error = layout::kubernetes_value(&key(1), bad.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidValue, "{bad}");
    }
}

#[test]
fn kubernetes_has_a_limit_for_what_stands_in_each_other() {
    let key = Key::new(Path::new("cache", ["a"]).unwrap(), InstanceId(1));
    let arrays = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    let objects = |levels: usize| r#"{"a":"#.repeat(levels) + r#""[{\"[{""# + &"}".repeat(levels);
    let beside = |levels: usize| format!("[{0},{0}]", arrays(levels - 1));
    for value in [&arrays as &dyn Fn(usize) -> String, &objects, &beside] {
        let read = |levels: usize| layout::kubernetes_value(&key, value(levels).as_bytes());
        read(layout::MAX_KUBERNETES_DEPTH).unwrap();
        // The second is more than can be parsed.
        for deeper in [layout::MAX_KUBERNETES_DEPTH + 1, 100_000] {
            let error = read(deeper).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidValue, "{error}");
            assert!(error.to_string().contains("100 levels"), "{error}");
        }
    }
}

#[test]
fn resource_names_have_a_limit() {
    let pod = "p".repeat(250);
    assert_eq!(layout::kubernetes_resource_name(&pod, Some("ab")).unwrap().len(), 253);
    let error = layout::kubernetes_resource_name(&pod, Some("abc")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
}

#[test]
fn queries_are_exact() {
    let prefix =
        |query: discovery_core::Query, kind: &str| layout::stored_prefix(&query.scope(Some(kind)).unwrap()).unwrap();
    assert_eq!(prefix(Endpoint::in_namespace("dynamo"), Endpoint::KIND), "v1/instances/dynamo/");
    assert_eq!(prefix(Endpoint::in_component("dynamo", "backend"), Endpoint::KIND), "v1/instances/dynamo/backend/");
    assert_eq!(prefix(Model::in_component("dynamo", "backend"), Model::KIND), "v1/mdc/dynamo/backend/");
    assert_eq!(prefix(Model::at("dynamo", "backend", "generate"), Model::KIND), "v1/mdc/dynamo/backend/generate/");

    let namespace = EventScope::namespace("dynamo");
    let component = EventScope::component("dynamo", "backend");
    let on_topic = EventChannel::on_topic(&namespace, "kv events");
    assert_eq!(prefix(on_topic, EventChannel::KIND), "v1/event_channels/namespace/dynamo/topic/kv%20events/");
    let of_component = EventChannel::new(component, "kv events", InstanceId(1)).zmq("tcp://a:1");
    let of_namespace = EventChannel::new(namespace.clone(), "kv events", InstanceId(1)).zmq("tcp://a:1");
    let scope = EventChannel::in_scope(&namespace).scope(Some(EventChannel::KIND)).unwrap();
    assert!(scope.contains(&Key::new(of_namespace.path().unwrap(), InstanceId(1))));
    assert!(!scope.contains(&Key::new(of_component.path().unwrap(), InstanceId(1))));
    assert_eq!(EventSource::in_scope(&namespace), EventChannel::in_scope(&namespace));
}
