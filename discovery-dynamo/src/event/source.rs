//! Sources: what a publisher's events are about in detail.

use bytes::Bytes;
use discovery_core::{InstanceId, Key, Path, Query, Record, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{EventScope, refused};
use crate::wire;

/// A publisher is a source of one topic's events, with a description that its consumers understand. How the events
/// travel is said by [`EventChannel`](crate::EventChannel).
///
/// Stored under the publisher's own id. It may not change: deregister it and register the new one.
///
/// ```
/// use discovery_core::{ErrorKind, InstanceId, Record};
/// use discovery_dynamo::{EventScope, EventSource};
/// use serde_json::json;
///
/// let scope = EventScope::endpoint("dynamo", "backend", "generate");
/// let source = EventSource::new(scope.clone(), "kv-state", InstanceId(0x1236), json!({ "block_size": 16 }));
/// let other = EventSource::new(scope, "kv-state", InstanceId(0x1236), json!({ "block_size": 32 }));
///
/// source.check_update(&source)?;
/// assert_eq!(source.check_update(&other).unwrap_err().kind(), ErrorKind::Refused);
/// # Ok::<_, discovery_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Wire", into = "Wire")]
pub struct EventSource {
    scope: EventScope,
    topic: String,
    publisher: InstanceId,
    metadata: Value,
}

impl EventSource {
    /// A source of `publisher`, an id of its own.
    pub fn new(scope: EventScope, topic: impl Into<String>, publisher: InstanceId, metadata: impl Into<Value>) -> Self {
        Self { scope, topic: topic.into(), publisher, metadata: metadata.into() }
    }

    /// Every source of exactly this scope, whatever its topic.
    pub fn in_scope(scope: &EventScope) -> Query {
        scope.query()
    }

    /// Every source of exactly this scope and topic.
    pub fn on_topic(scope: &EventScope, topic: impl Into<String>) -> Query {
        scope.query().segment(topic)
    }

    /// Whom the events are about.
    pub fn scope(&self) -> &EventScope {
        &self.scope
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The publisher's own id.
    pub fn publisher(&self) -> InstanceId {
        self.publisher
    }

    /// The description, which discovery does not read.
    pub fn metadata(&self) -> &Value {
        &self.metadata
    }
}

impl Record for EventSource {
    const KIND: &'static str = "event_source";

    fn path(&self) -> Result<Path> {
        self.scope.path(Self::KIND, &self.topic)
    }

    fn instance(&self) -> Option<InstanceId> {
        Some(self.publisher)
    }

    fn encode(&self, key: &Key) -> Result<Bytes> {
        wire::write(key, &Wire { publisher_id: key.instance().0, ..self.clone().into() })
    }

    fn decode(key: &Key, value: &[u8]) -> Result<Self> {
        let source: Self = wire::read(key, Self::KIND, value)?;
        wire::check_key(&source, Some(source.publisher.0), key)?;
        Ok(source)
    }

    fn check_update(&self, next: &Self) -> Result<()> {
        if self == next { Ok(()) } else { Err(refused("the event source", self.publisher)) }
    }
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Tag {
    EventSource,
}

/// The stored fields, in their order.
#[derive(Serialize, Deserialize)]
struct Wire {
    r#type: Tag,
    scope: EventScope,
    topic: String,
    publisher_id: u64,
    metadata: Value,
}

impl From<EventSource> for Wire {
    fn from(source: EventSource) -> Self {
        let mut metadata = source.metadata;
        // Dynamo writes objects in key order, which a build of serde_json with `preserve_order` would not do by itself.
        metadata.sort_all_objects();
        Self {
            r#type: Tag::EventSource,
            scope: source.scope,
            topic: source.topic,
            publisher_id: source.publisher.0,
            metadata,
        }
    }
}

impl From<Wire> for EventSource {
    fn from(wire: Wire) -> Self {
        let publisher = InstanceId(wire.publisher_id);
        Self { scope: wire.scope, topic: wire.topic, publisher, metadata: wire.metadata }
    }
}
