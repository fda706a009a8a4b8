//! The records: endpoints of the reference's kind, about 200 bytes of JSON each.

use std::time::Duration;

use discovery_core::{Discovery, Environment, ExecutorKind, Query};
use discovery_dynamo::Endpoint;

use crate::Outcome;

/// Where the benchmarks' endpoints are in etcd.
pub(crate) const PREFIX: &str = "v1/instances/bench/";

pub(crate) fn all() -> Query {
    Endpoint::in_namespace("bench")
}

/// An endpoint of this number, told at this moment.
pub(crate) fn endpoint(number: usize, told: Duration) -> Endpoint {
    let (component, host) = (format!("pool-{}", number / 1_000), number % 250);
    let address = format!("10.0.0.{host}:9000/{:020}", told.as_nanos());
    Endpoint::new("bench", component, format!("generate-{number}")).tcp(address)
}

/// When an endpoint was told, by its address.
pub(crate) fn told(endpoint: &Endpoint) -> Duration {
    let discovery_dynamo::Transport::Tcp(address) = endpoint.transport() else { return Duration::ZERO };
    let nanos = address.rsplit('/').next().and_then(|text| text.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

/// What an endpoint is called in etcd, and its value there, under the instance of the same number.
pub(crate) fn stored(number: usize, told: Duration) -> Outcome<(String, Vec<u8>)> {
    use discovery_core::{InstanceId, Key, Record};
    let endpoint = endpoint(number, told);
    let key = Key::new(endpoint.path()?, InstanceId(number as u64 + 1));
    let value = endpoint.encode(&key)?;
    Ok((discovery_dynamo::layout::stored_key(&key)?, value.to_vec()))
}

pub(crate) async fn discovery(endpoint: &str) -> Outcome<Discovery> {
    discovery_on(endpoint, ExecutorKind::default()).await
}

pub(crate) async fn discovery_on(endpoint: &str, executor: ExecutorKind) -> Outcome<Discovery> {
    let environment = Environment::default().with(discovery_etcd::ENDPOINTS_VARIABLE, endpoint);
    Ok(Discovery::builder().environment(environment).backend(discovery_etcd::NAME).executor(executor).build().await?)
}
