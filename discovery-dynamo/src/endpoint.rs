//! Endpoints: where an instance can be reached.

use std::borrow::Cow;

use bytes::Bytes;
use discovery_core::{Key, Path, Query, Record, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::names::Names;
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
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    names: Names,
    transport: Transport,
    device_type: Option<DeviceType>,
    request_plane_codec: Option<RequestPlaneCodec>,
}

/// The name of an endpoint, on the way to becoming an [`Endpoint`]: it lacks its address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use = "a name is no record yet: give it an address"]
pub struct EndpointName(Names);

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
        Endpoint { names: self.0, transport, device_type: None, request_plane_codec: None }
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
        EndpointName(Names::new(namespace, component, endpoint))
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
        self.names.all()[0]
    }

    /// The component.
    pub fn component(&self) -> &str {
        self.names.all()[1]
    }

    /// The endpoint's own name.
    pub fn endpoint(&self) -> &str {
        self.names.all()[2]
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
        self.names.path(Self::KIND)
    }

    fn encode(&self, key: &Key) -> Result<Bytes> {
        wire::write(key, &Wire { instance_id: Some(key.instance().0), ..Wire::of(self) })
    }

    fn decode(key: &Key, value: &[u8]) -> Result<Self> {
        let wire: Wire<'_> = wire::read(key, Self::KIND, value)?;
        let id = wire.instance_id;
        let endpoint = wire.into_endpoint(|names| Names::read(names, key.path()));
        wire::check_key(&endpoint, id, key)?;
        Ok(endpoint)
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        Wire::of(self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        Wire::deserialize(deserializer).map(|wire| wire.into_endpoint(Names::own))
    }
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Tag {
    Endpoint,
}

/// The stored fields, in their order.
#[derive(Serialize, Deserialize)]
struct Wire<'a> {
    r#type: Tag,
    #[serde(borrow)]
    component: Cow<'a, str>,
    #[serde(borrow)]
    endpoint: Cow<'a, str>,
    #[serde(borrow)]
    namespace: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance_id: Option<u64>,
    transport: Cow<'a, Transport>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device_type: Option<DeviceType>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    request_plane_codec: Option<RequestPlaneCodec>,
}

impl<'a> Wire<'a> {
    fn of(endpoint: &'a Endpoint) -> Self {
        let [namespace, component, name] = endpoint.names.all().map(Cow::Borrowed);
        Self {
            r#type: Tag::Endpoint,
            component,
            endpoint: name,
            namespace,
            instance_id: None,
            transport: Cow::Borrowed(&endpoint.transport),
            device_type: endpoint.device_type,
            request_plane_codec: endpoint.request_plane_codec,
        }
    }

    fn into_endpoint(self, names: impl FnOnce([Cow<'a, str>; 3]) -> Names) -> Endpoint {
        Endpoint {
            names: names([self.namespace, self.component, self.endpoint]),
            transport: self.transport.into_owned(),
            device_type: self.device_type,
            request_plane_codec: self.request_plane_codec,
        }
    }
}
