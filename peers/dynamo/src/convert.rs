//! Records and queries as the reference's types.

use anyhow::{Context, Result, bail};
use discovery_peer_protocol::{Query, naming};
use dynamo_runtime::component::Instance;
use dynamo_runtime::discovery::{
    DiscoveryInstance, DiscoveryInstanceId, DiscoveryQuery, DiscoverySpec, EventChannelQuery, EventScope,
    EventSourceQuery,
};
use dynamo_runtime::protocols::EndpointId;
use serde_json::{Value, json};

/// What to register, from a record in its stored form without its instance.
pub fn spec(mut record: Value) -> Result<DiscoverySpec> {
    let fields = record.as_object_mut().context("a record is an object")?;
    fields.entry("instance_id").or_insert(json!(0));
    Ok(match serde_json::from_value(record)? {
        DiscoveryInstance::Endpoint(Instance {
            namespace,
            component,
            endpoint,
            transport,
            device_type,
            request_plane_codec,
            ..
        }) => DiscoverySpec::Endpoint { namespace, component, endpoint, transport, device_type, request_plane_codec },
        DiscoveryInstance::Model { namespace, component, endpoint, card_json, model_suffix, .. } => {
            DiscoverySpec::Model { namespace, component, endpoint, card_json, model_suffix }
        }
        DiscoveryInstance::EventChannel { scope, topic, instance_id, transport } => {
            DiscoverySpec::EventChannel { scope, topic, publisher_id: instance_id, transport }
        }
        DiscoveryInstance::EventSource { scope, topic, publisher_id, metadata } => {
            DiscoverySpec::EventSource { scope, topic, publisher_id, metadata }
        }
    })
}

/// A record in its stored form.
pub fn value(instance: &DiscoveryInstance) -> Value {
    serde_json::to_value(instance).unwrap_or_default()
}

/// The name of what an id belongs to.
pub fn name(id: &DiscoveryInstanceId) -> String {
    let about = |scope: &EventScope, topic: &str| {
        [serde_json::to_value(scope).unwrap_or_default().to_string(), topic.to_owned()]
    };
    match id {
        DiscoveryInstanceId::Endpoint(id) => {
            naming("Endpoint", &[&id.namespace, &id.component, &id.endpoint], Some(id.instance_id), None)
        }
        DiscoveryInstanceId::Model(id) => {
            let parts = [&id.namespace, &id.component, &id.endpoint];
            naming("Model", &parts, Some(id.instance_id), id.model_suffix.as_deref())
        }
        DiscoveryInstanceId::EventChannel(id) => {
            naming("EventChannel", &about(&id.scope, &id.topic), Some(id.instance_id), None)
        }
        DiscoveryInstanceId::EventSource(id) => {
            naming("EventSource", &about(&id.scope, &id.topic), Some(id.publisher_id), None)
        }
    }
}

/// What to read.
pub fn query(query: &Query) -> Result<DiscoveryQuery> {
    let path: Vec<&str> = query.path.iter().map(String::as_str).collect();
    let owned = |part: &str| part.to_owned();
    Ok(match (&query.kind[..], &path[..]) {
        ("endpoint", []) => DiscoveryQuery::AllEndpoints,
        ("endpoint", [n]) => DiscoveryQuery::NamespacedEndpoints { namespace: owned(n) },
        ("endpoint", [n, c]) => DiscoveryQuery::ComponentEndpoints { namespace: owned(n), component: owned(c) },
        ("endpoint", [n, c, e]) => {
            DiscoveryQuery::Endpoint { namespace: owned(n), component: owned(c), endpoint: owned(e) }
        }
        ("model", []) => DiscoveryQuery::AllModels,
        ("model", [n]) => DiscoveryQuery::NamespacedModels { namespace: owned(n) },
        ("model", [n, c]) => DiscoveryQuery::ComponentModels { namespace: owned(n), component: owned(c) },
        ("model", [n, c, e]) => {
            DiscoveryQuery::EndpointModels { namespace: owned(n), component: owned(c), endpoint: owned(e) }
        }
        ("event_channel", path) => DiscoveryQuery::EventChannels(channels(path)?),
        ("event_source", path) => DiscoveryQuery::EventSources(sources(path)?),
        (kind, path) => bail!("the reference has no query for {kind} {path:?}"),
    })
}

fn channels(path: &[&str]) -> Result<EventChannelQuery> {
    Ok(match *path {
        [] => EventChannelQuery::all(),
        ["namespace", n] => EventChannelQuery::namespace(n),
        ["namespace", n, "topic", t] => EventChannelQuery::namespace_topic(n, t),
        ["namespace", n, "component", c] => EventChannelQuery::component(n, c),
        ["namespace", n, "component", c, "topic", t] => EventChannelQuery::topic(n, c, t),
        ["namespace", n, "component", c, "endpoint", e] => EventChannelQuery::endpoint(endpoint(n, c, e)),
        ["namespace", n, "component", c, "endpoint", e, "topic", t] => {
            EventChannelQuery::endpoint_topic(endpoint(n, c, e), t)
        }
        _ => bail!("the reference has no query for channels under {path:?}"),
    })
}

fn sources(path: &[&str]) -> Result<EventSourceQuery> {
    Ok(match *path {
        [] => EventSourceQuery::all(),
        ["namespace", n] => EventSourceQuery::namespace(n),
        ["namespace", n, "topic", t] => EventSourceQuery::namespace_topic(n, t),
        ["namespace", n, "component", c] => EventSourceQuery::component(n, c),
        ["namespace", n, "component", c, "topic", t] => EventSourceQuery::topic(n, c, t),
        ["namespace", n, "component", c, "endpoint", e] => EventSourceQuery::endpoint(endpoint(n, c, e)),
        ["namespace", n, "component", c, "endpoint", e, "topic", t] => {
            EventSourceQuery::endpoint_topic(endpoint(n, c, e), t)
        }
        _ => bail!("the reference has no query for sources under {path:?}"),
    })
}

fn endpoint(namespace: &str, component: &str, name: &str) -> EndpointId {
    EndpointId { namespace: namespace.to_owned(), component: component.to_owned(), name: name.to_owned() }
}
