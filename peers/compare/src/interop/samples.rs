//! Records of all four kinds, with every optional field, without their instance.

use serde_json::{Value, json};

/// Endpoints: both transports, devices and codecs, and none of the optional fields.
pub(super) fn endpoints() -> Vec<Value> {
    let endpoint = |component: &str, more: Value| {
        let mut record = json!({
            "type": "Endpoint", "namespace": "dynamo", "component": component, "endpoint": "generate",
        });
        if let (Some(fields), Value::Object(more)) = (record.as_object_mut(), more) {
            fields.extend(more);
        }
        record
    };
    vec![
        endpoint("plain", json!({ "transport": { "tcp": "10.0.0.5:9000/generate" } })),
        endpoint("nats", json!({ "transport": { "nats_tcp": "dynamo_backend.generate-abc123" } })),
        endpoint(
            "cuda",
            json!({
                "transport": { "tcp": "10.0.0.6:9000/generate" },
                "device_type": "cuda", "request_plane_codec": "msgpack",
            }),
        ),
        endpoint(
            "cpu",
            json!({
                "transport": { "tcp": "10.0.0.7:9000/generate" },
                "device_type": "cpu", "request_plane_codec": "json",
            }),
        ),
    ]
}

/// A base model with taints and topology, an adapter beside it, and one with another base at another endpoint.
pub(super) fn models() -> Vec<Value> {
    vec![base("backend"), adapter("backend", "sql-lora"), base("prefill")]
}

/// A base model at this component.
pub(super) fn base(component: &str) -> Value {
    json!({
        "type": "Model", "namespace": "dynamo", "component": component, "endpoint": "generate",
        "card_json": {
            "display_name": "Qwen/Qwen3-0.6B", "slug": "qwen-qwen3-0-6b", "aliases": ["qwen"],
            "model_type": { "bits": 3 }, "kv_cache_block_size": 16, "context_length": 40960, "temperature": 0.7,
            "runtime_config": {
                "taints": ["a", "dynamo.topology/zone=z1"], "topology_domains": { "zone": "z1" },
                "total_kv_blocks": 1024,
            },
        },
    })
}

/// An adapter of [`base`].
pub(super) fn adapter(component: &str, name: &str) -> Value {
    json!({
        "type": "Model", "namespace": "dynamo", "component": component, "endpoint": "generate",
        "card_json": { "display_name": name, "source_path": "Qwen/Qwen3-0.6B", "lora": { "name": name } },
        "model_suffix": name,
    })
}

/// Another base model.
pub(super) fn other(component: &str) -> Value {
    json!({
        "type": "Model", "namespace": "dynamo", "component": component, "endpoint": "generate",
        "card_json": { "display_name": "other/model", "runtime_config": {} },
    })
}

/// Scopes of every level, one with names that need escapes.
fn scopes() -> [Value; 4] {
    [
        json!({ "kind": "namespace", "name": "dynamo" }),
        json!({ "kind": "namespace", "name": "dy/na mo%" }),
        json!({ "kind": "component", "namespace": "dynamo", "component": "backend" }),
        json!({ "kind": "endpoint",
                "endpoint": { "namespace": "dynamo", "component": "backend", "name": "generate" } }),
    ]
}

/// Channels of every transport in every scope.
pub(super) fn channels() -> Vec<Value> {
    let transports = [
        json!({ "kind": "Zmq", "config": { "endpoint": "tcp://10.0.0.5:5557" } }),
        json!({ "kind": "Nats", "config": { "subject_prefix": "namespace.dynamo" } }),
        json!({ "kind": "ZmqBroker", "config": {
            "xsub_endpoints": ["tcp://10.0.0.9:5555"], "xpub_endpoints": ["tcp://10.0.0.9:5556"] } }),
    ];
    let mut channels = Vec::new();
    for scope in scopes() {
        for transport in &transports {
            let publisher = 0x1000 + channels.len();
            channels.push(json!({
                "type": "EventChannel", "scope": scope, "topic": "kv metrics/é", "instance_id": publisher,
                "transport": transport,
            }));
        }
    }
    channels
}

/// Sources in every scope.
pub(super) fn sources() -> Vec<Value> {
    let source = |(number, scope): (usize, Value)| {
        json!({
            "type": "EventSource", "scope": scope, "topic": "kv-state", "publisher_id": 0x2000 + number,
            "metadata": { "block_size": 16, "ratio": 0.5, "nested": { "b": [1, null], "a": true } },
        })
    };
    scopes().into_iter().enumerate().map(source).collect()
}

/// A user's own kind.
pub(super) fn gpu(pool: &str) -> Value {
    json!({ "type": "Gpu", "pool": pool, "memory": 80 })
}

/// A worker of a fleet.
pub(super) fn worker(address: &str) -> Value {
    json!({
        "type": "Endpoint", "namespace": "fleet", "component": "backend", "endpoint": "generate",
        "transport": { "tcp": address },
    })
}
