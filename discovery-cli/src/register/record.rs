//! What is to be registered, from arguments and files.

use std::io::Read;
use std::path::Path;

use discovery_core::{Discovery, Draft, InstanceId, Record};
use discovery_dynamo::{DeviceType, Endpoint, EventChannel, EventScope, EventSource, Model, RequestPlaneCodec};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::guard::{Guard, guard};
use crate::arguments::{AnyKind, Codec, Device, KnownKind, Topic};
use crate::failure::{Failure, Outcome};

/// A record that can be registered, more than once.
#[derive(Clone, Debug)]
pub(crate) enum Registrant {
    Endpoint(Endpoint),
    Model(Model),
    Channel(EventChannel),
    Source(EventSource),
    Other(Draft),
}

impl Registrant {
    pub(crate) fn of_known_kind(known: KnownKind) -> Outcome<Self> {
        Ok(match known {
            KnownKind::Endpoint { path, transport, device, codec, .. } => {
                let [namespace, component, name] = served_at(&path)?;
                let name = Endpoint::new(namespace, component, name);
                let mut endpoint = match (transport.tcp, transport.nats) {
                    (Some(address), _) => name.tcp(address),
                    (None, Some(subject)) => name.nats(subject),
                    (None, None) => return Err(Failure::usage("an address is missing: give --tcp or --nats")),
                };
                if let Some(device) = device {
                    endpoint = endpoint.on(match device {
                        Device::Cpu => DeviceType::Cpu,
                        Device::Cuda => DeviceType::Cuda,
                    });
                }
                if let Some(codec) = codec {
                    endpoint = endpoint.codec(match codec {
                        Codec::Json => RequestPlaneCodec::Json,
                        Codec::Msgpack => RequestPlaneCodec::Msgpack,
                    });
                }
                Self::Endpoint(endpoint)
            }
            KnownKind::Model { path, card, suffix, .. } => {
                let [namespace, component, name] = served_at(&path)?;
                let model = Model::new(namespace, component, name, read_json(&card)?);
                Self::Model(match suffix {
                    Some(suffix) => model.adapter(suffix),
                    None => model,
                })
            }
            KnownKind::EventChannel { topic, transport, .. } => {
                let (scope, topic, publisher) = published_as(topic)?;
                let name = EventChannel::new(scope, topic, publisher);
                Self::Channel(match (transport.zmq, transport.nats) {
                    (Some(endpoint), _) => name.zmq(endpoint),
                    (None, Some(prefix)) => name.nats(prefix),
                    (None, None) => return Err(Failure::usage("an address is missing: give --zmq or --nats")),
                })
            }
            KnownKind::EventSource { topic, metadata, .. } => {
                let (scope, topic, publisher) = published_as(topic)?;
                Self::Source(EventSource::new(scope, topic, publisher, read_json(&metadata)?))
            }
        })
    }

    /// A record of any kind. Those of Dynamo's kinds are read as such, so that their rules hold.
    pub(crate) fn of_any_kind(any: AnyKind) -> Outcome<Self> {
        let value = read_json(&any.value)?;
        let draft = Draft { kind: any.kind, segments: segments(&any.path), suffix: any.suffix, value };
        let file = &any.value;
        Ok(match draft.kind.as_str() {
            Endpoint::KIND => Self::Endpoint(typed(draft, file)?),
            Model::KIND => Self::Model(typed(draft, file)?),
            EventChannel::KIND => Self::Channel(typed(draft, file)?),
            EventSource::KIND => Self::Source(typed(draft, file)?),
            _ => Self::Other(draft),
        })
    }

    pub(crate) async fn register(&self, discovery: &Discovery) -> discovery_core::Result<Box<dyn Guard>> {
        Ok(match self.clone() {
            Self::Endpoint(record) => guard(discovery.register(record).await?),
            Self::Model(record) => guard(discovery.register(record).await?),
            Self::Channel(record) => guard(discovery.register(record).await?),
            Self::Source(record) => guard(discovery.register(record).await?),
            Self::Other(draft) => guard(discovery.register_draft(draft).await?),
        })
    }
}

fn typed<T: Record + DeserializeOwned>(draft: Draft, file: &Path) -> Outcome<T> {
    let Draft { kind, segments, suffix, value } = draft;
    let record: T =
        serde_json::from_value(value).map_err(|error| Failure::input(file, format!("no {kind}: {error}")))?;
    let path = record.path()?;
    if path != discovery_core::Path::new(&kind, &segments)? || record.suffix() != suffix.as_deref() {
        let named =
            path.to_string() + &record.suffix().map(|suffix| format!(" with suffix {suffix}")).unwrap_or_default();
        return Err(Failure::input(file, format!("the value names {named}: make --path and --suffix agree with it")));
    }
    Ok(record)
}

/// Segments as they are typed in queries: a `/` or `%` inside one is `%2F` or `%25`.
fn segments(path: &str) -> Vec<String> {
    path.trim_end_matches('/').split('/').map(|segment| segment.replace("%2F", "/").replace("%25", "%")).collect()
}

fn served_at(path: &str) -> Outcome<[String; 3]> {
    segments(path).try_into().map_err(|_| {
        Failure::usage(format!(
            "{path:?} is no endpoint: give NAMESPACE/COMPONENT/ENDPOINT, as dynamo/backend/generate"
        ))
    })
}

fn published_as(topic: Topic) -> Outcome<(EventScope, String, InstanceId)> {
    let Topic { scope: text, topic, publisher } = topic;
    let names = segments(&text);
    let scope = match names.as_slice() {
        [namespace] => EventScope::namespace(namespace),
        [namespace, component] => EventScope::component(namespace, component),
        [namespace, component, endpoint] => EventScope::endpoint(namespace, component, endpoint),
        _ => {
            return Err(Failure::usage(format!(
                "{text:?} is no scope: give NAMESPACE, NAMESPACE/COMPONENT or NAMESPACE/COMPONENT/ENDPOINT"
            )));
        }
    };
    let publisher = match publisher {
        Some(hex) => hex
            .parse()
            .map_err(|_| Failure::usage(format!("--publisher {hex:?} is no id: give up to 16 hexadecimal digits")))?,
        // Kubernetes holds 53 bits.
        None => InstanceId(fastrand::u64(1..1 << 53)),
    };
    Ok((scope, topic, publisher))
}

/// A JSON document from a file, or from standard input for `-`.
fn read_json(path: &Path) -> Outcome<Value> {
    let text = if path == Path::new("-") {
        let mut text = Vec::new();
        std::io::stdin().lock().read_to_end(&mut text).map(|_| text)
    } else {
        std::fs::read(path)
    };
    let text = text.map_err(|error| Failure::input(path, format!("{error}: name a file that can be read")))?;
    serde_json::from_slice(&text).map_err(|error| Failure::input(path, format!("no JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_of_a_known_kind_agrees_with_its_path() {
        let draft = |segments: [&str; 3]| Draft {
            kind: "endpoint".to_owned(),
            segments: segments.map(str::to_owned).to_vec(),
            suffix: None,
            value: json!({"type": "Endpoint", "namespace": "a", "component": "b", "endpoint": "c",
                "transport": {"tcp": "h:1"}}),
        };
        let file = Path::new("value.json");
        assert_eq!(typed::<Endpoint>(draft(["a", "b", "c"]), file).unwrap(), Endpoint::new("a", "b", "c").tcp("h:1"));
        let Failure::Usage(told) = typed::<Endpoint>(draft(["a", "b", "d"]), file).unwrap_err() else { panic!() };
        assert!(told.starts_with("value.json: the value names endpoint/a/b/c"), "{told}");
    }

    #[test]
    fn segments_are_typed_as_in_queries() {
        assert_eq!(segments("a/b%2Fc/d%252F"), ["a", "b/c", "d%2F"]);
    }
}
