//! Channels: where the events of a topic can be received.

use bytes::Bytes;
use discovery_core::{InstanceId, Key, Path, Query, Record, Result};
use serde::{Deserialize, Serialize};

use super::{EventScope, refused};
use crate::wire;

/// A publisher sends the events of one topic, about one scope, over this transport.
///
/// Stored under the publisher's own id, since a process may publish one topic more than once. It may not change: to
/// move a channel, deregister it and register the new one.
///
/// ```
/// use discovery_core::{InstanceId, Key, Record};
/// use discovery_dynamo::{EventChannel, EventScope};
///
/// let scope = EventScope::component("dynamo", "backend");
/// let channel = EventChannel::new(scope, "kv-events", InstanceId(0x1234)).zmq("tcp://10.0.0.5:5557");
///
/// let key = Key::new(channel.path()?, InstanceId(0x1234));
/// assert_eq!(key.to_string(), "event_channel/namespace/dynamo/component/backend/topic/kv-events/1234");
/// assert_eq!(EventChannel::decode(&key, &channel.encode(&key)?)?, channel);
/// # Ok::<_, discovery_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct EventChannel {
    name: EventChannelName,
    transport: EventTransport,
}

/// The name of a channel, on the way to becoming an [`EventChannel`]: it lacks its address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use = "a name is no record yet: give it an address"]
pub struct EventChannelName {
    scope: EventScope,
    topic: String,
    publisher: InstanceId,
}

/// How events travel. A record with any other transport does not decode.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "config")]
#[non_exhaustive]
pub enum EventTransport {
    /// Through NATS.
    Nats {
        /// What the subjects start with.
        subject_prefix: String,
    },
    /// ZeroMQ, from the publisher itself.
    Zmq {
        /// The publisher's endpoint, as `tcp://host:port`.
        endpoint: String,
    },
    /// ZeroMQ, through brokers.
    ZmqBroker {
        /// Where publishers connect.
        xsub_endpoints: Vec<String>,
        /// Where subscribers connect.
        xpub_endpoints: Vec<String>,
    },
}

impl EventChannelName {
    /// Sent through NATS, under subjects that start with `subject_prefix`.
    pub fn nats(self, subject_prefix: impl Into<String>) -> EventChannel {
        self.transport(EventTransport::Nats { subject_prefix: subject_prefix.into() })
    }

    /// Sent by ZeroMQ from `endpoint`, as `tcp://host:port`.
    pub fn zmq(self, endpoint: impl Into<String>) -> EventChannel {
        self.transport(EventTransport::Zmq { endpoint: endpoint.into() })
    }

    /// Sent by ZeroMQ through brokers: publishers connect to `xsub`, subscribers to `xpub`.
    pub fn zmq_broker<S: Into<String>>(
        self,
        xsub: impl IntoIterator<Item = S>,
        xpub: impl IntoIterator<Item = S>,
    ) -> EventChannel {
        let xsub_endpoints = xsub.into_iter().map(Into::into).collect();
        let xpub_endpoints = xpub.into_iter().map(Into::into).collect();
        self.transport(EventTransport::ZmqBroker { xsub_endpoints, xpub_endpoints })
    }

    /// Sent by `transport`.
    pub fn transport(self, transport: EventTransport) -> EventChannel {
        EventChannel { name: self, transport }
    }
}

impl EventChannel {
    /// The name of a channel of `publisher`, an id of its own. [`EventChannelName::zmq`] and its siblings make it a
    /// record.
    #[expect(clippy::new_ret_no_self, reason = "no record without an address, and the types say so")]
    pub fn new(scope: EventScope, topic: impl Into<String>, publisher: InstanceId) -> EventChannelName {
        EventChannelName { scope, topic: topic.into(), publisher }
    }

    /// Every channel of exactly this scope, whatever its topic.
    pub fn in_scope(scope: &EventScope) -> Query {
        scope.query()
    }

    /// Every channel of exactly this scope and topic.
    pub fn on_topic(scope: &EventScope, topic: impl Into<String>) -> Query {
        scope.query().segment(topic)
    }

    /// Whom the events are about.
    pub fn scope(&self) -> &EventScope {
        &self.name.scope
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.name.topic
    }

    /// The publisher's own id.
    pub fn publisher(&self) -> InstanceId {
        self.name.publisher
    }

    /// How the events travel.
    pub fn transport(&self) -> &EventTransport {
        &self.transport
    }
}

impl Record for EventChannel {
    const KIND: &'static str = "event_channel";

    fn path(&self) -> Result<Path> {
        self.scope().path(Self::KIND, self.topic())
    }

    fn instance(&self) -> Option<InstanceId> {
        Some(self.publisher())
    }

    fn encode(&self, key: &Key) -> Result<Bytes> {
        wire::write(key, &Wire { instance_id: key.instance().0, ..self.clone().into() })
    }

    fn decode(key: &Key, value: &[u8]) -> Result<Self> {
        let channel: Self = wire::read(key, Self::KIND, value)?;
        wire::check_key(&channel, Some(channel.publisher().0), key)?;
        Ok(channel)
    }

    fn check_update(&self, next: &Self) -> Result<()> {
        if self == next { Ok(()) } else { Err(refused("the event channel", self.publisher())) }
    }
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Tag {
    EventChannel,
}

/// The stored fields, in their order. Older records have `namespace` and `component` instead of a scope.
#[derive(Serialize, Deserialize)]
struct Wire {
    r#type: Tag,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<EventScope>,
    #[serde(default, skip_serializing)]
    namespace: Option<String>,
    #[serde(default, skip_serializing)]
    component: Option<String>,
    topic: String,
    instance_id: u64,
    transport: EventTransport,
}

impl From<EventChannel> for Wire {
    fn from(channel: EventChannel) -> Self {
        Self {
            r#type: Tag::EventChannel,
            scope: Some(channel.name.scope),
            namespace: None,
            component: None,
            topic: channel.name.topic,
            instance_id: channel.name.publisher.0,
            transport: channel.transport,
        }
    }
}

impl TryFrom<Wire> for EventChannel {
    type Error = &'static str;

    fn try_from(wire: Wire) -> std::result::Result<Self, Self::Error> {
        let scope = match (wire.scope, wire.namespace, wire.component) {
            (Some(scope), ..) => scope,
            (None, Some(namespace), Some(component)) if !component.is_empty() => {
                EventScope::Component { namespace, component }
            }
            (None, Some(name), _) => EventScope::Namespace { name },
            (None, None, _) => return Err("missing field `scope`"),
        };
        let name = EventChannelName { scope, topic: wire.topic, publisher: InstanceId(wire.instance_id) };
        Ok(Self { name, transport: wire.transport })
    }
}
