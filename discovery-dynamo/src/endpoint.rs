//! Endpoints: where an instance can be reached.

use bytes::Bytes;
use discovery_core::{Key, Path, Query, Record, Result};
use serde::{Deserialize, Serialize};

use crate::wire;

/// An instance serves the endpoint `namespace/component/endpoint` under an address.
///
/// Stored under the id of its owner. It may be updated in place.
///
/// ```
/// use discovery_core::{InstanceId, Key, Record};
/// use discovery_dynamo::{DeviceType, Endpoint, Transport};
///
/// let endpoint = Endpoint::new("dynamo", "backend", "generate").tcp("10.0.0.5:9000/generate").on(DeviceType::Cuda);
/// assert_eq!(endpoint.transport(), &Transport::Tcp("10.0.0.5:9000/generate".to_owned()));
///
/// let key = Key::new(endpoint.path()?, InstanceId(42));
/// let value = endpoint.encode(&key)?;
/// assert_eq!(Endpoint::decode(&key, &value)?, endpoint);
/// # Ok::<_, discovery_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Wire", into = "Wire")]
pub struct Endpoint {
    name: EndpointName,
    transport: Transport,
    device_type: Option<DeviceType>,
    request_plane_codec: Option<RequestPlaneCodec>,
}

/// The name of an endpoint, on the way to becoming an [`Endpoint`]: it lacks its address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use = "a name is no record yet: give it an address"]
pub struct EndpointName {
    namespace: String,
    component: String,
    endpoint: String,
}

/// How requests reach an endpoint. A record with any other transport does not decode.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Transport {
    /// Through NATS, by this subject.
    #[serde(rename = "nats_tcp")]
    Nats(String),
    /// Directly, at `host:port/endpoint`.
    #[serde(rename = "tcp")]
    Tcp(String),
}

/// What an instance computes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeviceType {
    /// A processor.
    Cpu,
    /// An NVIDIA GPU.
    Cuda,
}

/// How an instance wants its requests encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RequestPlaneCodec {
    /// As JSON.
    Json,
    /// As MessagePack.
    Msgpack,
}

impl EndpointName {
    /// Reached directly, at `host:port` or `host:port/endpoint`.
    pub fn tcp(self, address: impl Into<String>) -> Endpoint {
        self.transport(Transport::Tcp(address.into()))
    }

    /// Reached through NATS, by `subject`.
    pub fn nats(self, subject: impl Into<String>) -> Endpoint {
        self.transport(Transport::Nats(subject.into()))
    }

    /// Reached by `transport`.
    pub fn transport(self, transport: Transport) -> Endpoint {
        Endpoint { name: self, transport, device_type: None, request_plane_codec: None }
    }
}

impl Endpoint {
    /// The name of an endpoint. [`EndpointName::tcp`] and its siblings make it a record.
    #[expect(clippy::new_ret_no_self, reason = "no record without an address, and the types say so")]
    pub fn new(
        namespace: impl Into<String>,
        component: impl Into<String>,
        endpoint: impl Into<String>,
    ) -> EndpointName {
        EndpointName { namespace: namespace.into(), component: component.into(), endpoint: endpoint.into() }
    }

    /// The same endpoint, computing on `device`.
    pub fn on(mut self, device: DeviceType) -> Self {
        self.device_type = Some(device);
        self
    }

    /// The same endpoint, wanting requests in `codec`. Without one, requests come as JSON.
    pub fn codec(mut self, codec: RequestPlaneCodec) -> Self {
        self.request_plane_codec = Some(codec);
        self
    }

    /// Every endpoint in `namespace`.
    pub fn in_namespace(namespace: impl Into<String>) -> Query {
        Query::all().segment(namespace)
    }

    /// Every endpoint of `component`.
    pub fn in_component(namespace: impl Into<String>, component: impl Into<String>) -> Query {
        Self::in_namespace(namespace).segment(component)
    }

    /// Every instance of one endpoint.
    pub fn at(namespace: impl Into<String>, component: impl Into<String>, endpoint: impl Into<String>) -> Query {
        Self::in_component(namespace, component).segment(endpoint)
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.name.namespace
    }

    /// The component.
    pub fn component(&self) -> &str {
        &self.name.component
    }

    /// The endpoint's own name.
    pub fn endpoint(&self) -> &str {
        &self.name.endpoint
    }

    /// How requests reach it.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// What it computes on, where it says so.
    pub fn device_type(&self) -> Option<DeviceType> {
        self.device_type
    }

    /// How it wants requests encoded; `None` means JSON.
    pub fn request_plane_codec(&self) -> Option<RequestPlaneCodec> {
        self.request_plane_codec
    }
}

impl Record for Endpoint {
    const KIND: &'static str = "endpoint";

    fn path(&self) -> Result<Path> {
        served_path(Self::KIND, self.namespace(), self.component(), self.endpoint())
    }

    fn encode(&self, key: &Key) -> Result<Bytes> {
        wire::write(key, &Wire { instance_id: Some(key.instance().0), ..self.clone().into() })
    }

    fn decode(key: &Key, value: &[u8]) -> Result<Self> {
        let wire: Wire = wire::read(key, Self::KIND, value)?;
        let id = wire.instance_id;
        let endpoint = Self::from(wire);
        wire::check_key(&endpoint, id, key)?;
        Ok(endpoint)
    }
}

/// The path of something that is served at an endpoint.
pub(crate) fn served_path(kind: &str, namespace: &str, component: &str, endpoint: &str) -> Result<Path> {
    for (what, name) in [("namespace", namespace), ("component", component), ("endpoint", endpoint)] {
        wire::check_plain(what, name)?;
    }
    Path::new(kind, [namespace, component, endpoint])
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Tag {
    Endpoint,
}

/// The stored fields, in their order.
#[derive(Serialize, Deserialize)]
struct Wire {
    r#type: Tag,
    component: String,
    endpoint: String,
    namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance_id: Option<u64>,
    transport: Transport,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device_type: Option<DeviceType>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_plane_codec: Option<RequestPlaneCodec>,
}

impl From<Endpoint> for Wire {
    fn from(endpoint: Endpoint) -> Self {
        Self {
            r#type: Tag::Endpoint,
            component: endpoint.name.component,
            endpoint: endpoint.name.endpoint,
            namespace: endpoint.name.namespace,
            instance_id: None,
            transport: endpoint.transport,
            device_type: endpoint.device_type,
            request_plane_codec: endpoint.request_plane_codec,
        }
    }
}

impl From<Wire> for Endpoint {
    fn from(wire: Wire) -> Self {
        Self {
            name: EndpointName { namespace: wire.namespace, component: wire.component, endpoint: wire.endpoint },
            transport: wire.transport,
            device_type: wire.device_type,
            request_plane_codec: wire.request_plane_codec,
        }
    }
}
