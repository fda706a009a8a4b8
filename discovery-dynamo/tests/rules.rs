//! What may change, and what may stand beside what.

use discovery_core::{ErrorKind, InstanceId, Key, Query, Record};
use discovery_dynamo::{Endpoint, EventChannel, EventScope, EventSource, Model};
use serde_json::{Value, json};

fn model(card: Value) -> Model {
    Model::new("dynamo", "backend", "generate", card)
}

fn stored(model: &Model) -> discovery_core::Result<Value> {
    let mut key = Key::new(model.path()?, InstanceId(1));
    if let Some(suffix) = model.suffix() {
        key = key.with_suffix(suffix)?;
    }
    let value: Value = serde_json::from_slice(&model.encode(&key)?).unwrap();
    Ok(value["card_json"].clone())
}

#[test]
fn endpoints_may_change() {
    let endpoint = Endpoint::new("dynamo", "backend", "generate").tcp("10.0.0.5:9000");
    endpoint.check_update(&Endpoint::new("dynamo", "backend", "generate").nats("subject")).unwrap();
    assert_eq!(endpoint.neighbours(), None);
}

#[test]
fn channels_and_sources_may_not_change() {
    let scope = EventScope::namespace("dynamo");
    let channel = |address: &str| EventChannel::new(scope.clone(), "kv", InstanceId(1)).zmq(address);
    channel("tcp://a:1").check_update(&channel("tcp://a:1")).unwrap();
    let error = channel("tcp://a:1").check_update(&channel("tcp://a:2")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert!(error.message().contains("register"), "{error}");

    let source = |size: u32| EventSource::new(scope.clone(), "kv", InstanceId(1), json!({ "block_size": size }));
    source(16).check_update(&source(16)).unwrap();
    assert_eq!(source(16).check_update(&source(32)).unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(source(16).neighbours(), None);
}

/// Card before, card after, and whether the update is allowed.
#[test]
fn a_model_changes_in_its_taints_only() {
    let cases = [
        (json!({}), json!({}), true),
        (json!({ "runtime_config": {} }), json!({ "runtime_config": { "taints": ["a"] } }), true),
        (json!({ "runtime_config": { "taints": ["a"] } }), json!({ "runtime_config": { "taints": ["b", "a"] } }), true),
        (json!({ "runtime_config": { "taints": ["a"] } }), json!({ "runtime_config": {} }), true),
        (json!({}), json!({ "runtime_config": { "taints": ["a"] } }), false),
        (json!({ "runtime_config": { "size": 1 } }), json!({ "runtime_config": { "size": 2 } }), false),
        (
            json!({ "runtime_config": { "topology_domains": { "zone": "a" } } }),
            json!({ "runtime_config": { "topology_domains": { "zone": "b" } } }),
            false,
        ),
        (json!({}), json!({ "slug": "x" }), false),
        (json!({}), json!({ "display_name": "y" }), false),
        (json!({ "taints": ["a"] }), json!({ "taints": ["b"] }), false),
    ];
    let named = |mut card: Value| {
        if card.get("display_name").is_none() {
            card["display_name"] = json!("x");
        }
        model(card)
    };
    for (before, after, is_allowed) in cases {
        let result = named(before.clone()).check_update(&named(after.clone()));
        let kind = result.err().map(|error| error.kind());
        assert_eq!(kind, (!is_allowed).then_some(ErrorKind::Refused), "{before} to {after}");
    }
    let base = named(json!({}));
    assert_eq!(base.check_update(&base.clone().adapter("a")).unwrap_err().kind(), ErrorKind::Refused);
    let elsewhere = Model::new("dynamo", "backend", "other", base.card().clone());
    assert_eq!(base.check_update(&elsewhere).unwrap_err().kind(), ErrorKind::Refused);
}

#[test]
fn taints_are_sorted_and_the_derived_ones_are_there() {
    let base = model(json!({
        "display_name": "x",
        "runtime_config": { "taints": ["b", "a", "b"], "topology_domains": { "zone": " eu-1 ", "rack": "7" } },
    }));
    let derived = ["dynamo.topology/rack=7", "dynamo.topology/zone=eu-1"];
    assert!(base.taints().eq(["a", "b"].into_iter().chain(derived)));
    assert_eq!(&stored(&base).unwrap(), base.card());

    let next = base.with_taints(["z", "c"]).unwrap();
    assert!(next.taints().eq(["c"].into_iter().chain(derived).chain(["z"])));
    base.check_update(&next).unwrap();
    assert!(next.with_taints(Vec::<String>::new()).unwrap().taints().eq(derived));

    // What was stored is the canonical form, so registering it anew is silent.
    assert_eq!(model(stored(&next).unwrap()), next);

    let error = base.with_taints(["dynamo.topology/zone=eu-2"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let error = base.with_taints(["dynamo.topology/zone=eu-1"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
    let error = model(json!({ "display_name": "x" })).with_taints(["a"]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused);
}

#[test]
fn a_card_without_taints_is_written_as_it_is() {
    for card in [
        json!({ "display_name": "x" }),
        json!({ "display_name": "x", "runtime_config": null }),
        json!({ "display_name": "x", "runtime_config": { "size": 1, "topology_domains": {} } }),
        json!({ "display_name": "x", "runtime_config": { "topology_domains": null } }),
    ] {
        assert_eq!(stored(&model(card.clone())).unwrap(), card);
    }
}

#[test]
fn a_card_that_nobody_could_read_is_not_written() {
    for card in [
        json!({}),
        json!(null),
        json!({ "display_name": 1 }),
        json!({ "display_name": "x", "runtime_config": [] }),
        json!({ "display_name": "x", "runtime_config": { "taints": "a" } }),
        json!({ "display_name": "x", "runtime_config": { "taints": null } }),
        json!({ "display_name": "x", "runtime_config": { "taints": [1] } }),
        json!({ "display_name": "x", "runtime_config": { "topology_domains": ["zone"] } }),
        json!({ "display_name": "x", "runtime_config": { "topology_domains": { "zone": 1 } } }),
        json!({ "display_name": "x", "runtime_config": { "taints": ["dynamo.topology/zone=a"] } }),
        json!({ "display_name": "x", "runtime_config": {
            "taints": ["dynamo.topology/zone=b"], "topology_domains": { "zone": "a" } } }),
    ] {
        let error = stored(&model(card.clone())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidValue, "{card}");
        assert!(error.key().is_some());
    }
    let base = model(json!({ "display_name": "x" }));
    let unnamed = model(json!({}));
    assert_eq!(base.check_beside(&unnamed).unwrap_err().kind(), ErrorKind::InvalidValue);
    let key = Key::new(base.path().unwrap(), InstanceId(1));
    let value = base.encode(&key).unwrap();
    let unnamed = String::from_utf8(value.to_vec()).unwrap().replace("display_name", "display");
    assert_eq!(Model::decode(&key, unnamed.as_bytes()).unwrap_err().kind(), ErrorKind::InvalidValue);
}

#[test]
fn models_of_one_endpoint_agree() {
    let base = |name: &str| model(json!({ "display_name": name }));
    let from = |name: &str, source: &str| model(json!({ "display_name": name, "source_path": source }));
    let alias = |name: &str, source: &str, aliases: &[&str]| {
        model(json!({ "display_name": name, "source_path": source, "aliases": aliases }))
    };
    let lora = |name: &str, source: &str| {
        model(json!({ "display_name": name, "source_path": source, "lora": { "name": name } }))
    };
    let cases = [
        // Two base models.
        (base("x"), base("x"), true),
        (base("x"), base("y"), false),
        (from("x", "p"), from("x", "q"), true),
        (from("x", "p"), from("y", "p"), true),
        (from("x", "p"), from("y", "q"), false),
        (from("x", ""), from("y", ""), false),
        (from("x", "p"), base("p"), false),
        (alias("x", "p", &["y"]), from("y", "p"), false),
        (alias("x", "p", &["z"]), alias("y", "p", &["z"]), false),
        (alias("x", "p", &["z"]), alias("y", "p", &["w"]), true),
        (alias("x", "p", &["z"]), alias("x", "p", &["z"]), true),
        // An adapter and a base model.
        (lora("a", "x"), base("x"), true),
        (from("a", "x").adapter("a"), base("x"), true),
        (lora("a", "p"), from("x", "p"), true),
        (lora("a", "x"), from("x", "p"), false),
        (lora("a", "y"), base("x"), false),
        (lora("x", "x"), base("x"), false),
        (base("x").adapter("a"), base("x"), false),
        (lora("a", "p"), alias("x", "p", &["a"]), false),
        (lora("a", "p"), alias("x", "p", &["b"]), true),
        // Two adapters.
        (lora("a", "x"), lora("b", "x"), true),
        (lora("a", "x"), from("b", "x").adapter("b"), true),
        (lora("a", "x"), lora("a", "x"), true),
        (lora("a", "x"), lora("b", "y"), false),
        // A `lora` of null is none.
        (model(json!({ "display_name": "a", "source_path": "x", "lora": null })), base("x"), false),
    ];
    for (one, other, is_allowed) in cases {
        for (one, other) in [(&one, &other), (&other, &one)] {
            let kind = one.check_beside(other).err().map(|error| error.kind());
            assert_eq!(kind, (!is_allowed).then_some(ErrorKind::Conflict), "{} beside {}", one.card(), other.card());
        }
    }
    assert_eq!(base("x").neighbours(), Some(Query::path(["dynamo", "backend", "generate"])));
}

#[test]
fn a_conflict_names_both_models_and_the_endpoint() {
    let error =
        model(json!({ "display_name": "new" })).check_beside(&model(json!({ "display_name": "old" }))).unwrap_err();
    for part in ["\"new\"", "\"old\"", "dynamo/backend/generate"] {
        assert!(error.message().contains(part), "{error}");
    }
}
