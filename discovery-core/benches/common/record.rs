//! The records of the benchmarks: a fleet of workers, a thousand to each service.

use bytes::Bytes;
use discovery_core::backend::{Entry, Incarnation};
use discovery_core::{InstanceId, Key, Path, Record, Result};
use serde::{Deserialize, Serialize};

/// How many workers one service has.
pub(crate) const PER_SERVICE: u64 = 1_000;

/// What a worker registers: about 150 bytes of JSON, as an engine's endpoint has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Worker {
    pub(crate) namespace: String,
    pub(crate) component: String,
    pub(crate) endpoint: String,
    pub(crate) number: u64,
    pub(crate) transport: Transport,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Transport {
    Tcp(String),
}

impl Record for Worker {
    const KIND: &'static str = "worker";

    fn path(&self) -> Result<Path> {
        Path::new(Self::KIND, [&self.namespace, &self.component, &self.endpoint])
    }
}

impl Worker {
    /// The worker of this number. `generation` makes one value differ from the next.
    pub(crate) fn new(number: u64, generation: u64) -> Self {
        let host = number % 250;
        Self {
            namespace: "fleet".to_owned(),
            component: service(number),
            endpoint: "generate".to_owned(),
            number,
            transport: Transport::Tcp(format!("10.0.0.{host}:9000/{number:x}/{generation:016x}")),
        }
    }

    /// The worker as a store holds it.
    pub(crate) fn entry(&self) -> Entry {
        entry(self, self.number)
    }
}

/// A record as a store holds it, of the instance that belongs to `number`. Nothing is shared with other entries, as
/// where they come out of a socket.
pub(crate) fn entry<T: Record>(record: &T, number: u64) -> Entry {
    let key = Key::new(record.path().expect("a path"), scattered(number));
    let value = record.encode(&key).expect("JSON");
    // A copy of exact length, as a slice of a message is.
    Entry { key, value: Bytes::copy_from_slice(&value), incarnation: Incarnation(1) }
}

/// The name of the service that a worker falls to.
pub(crate) fn service(number: u64) -> String {
    format!("pool-{:04}", number / PER_SERVICE)
}

/// The workers below `count` as a store tells them that knows the order of keys. They are made in that order, with
/// nothing else in between, so that in memory they lie as they do where a client has just received them.
pub(crate) fn fleet(count: u64) -> Vec<Entry> {
    let mut numbers: Vec<u64> = (0..count).collect();
    numbers.sort_unstable_by_key(|&number| (number / PER_SERVICE, scattered(number)));
    numbers.into_iter().map(|number| Worker::new(number, 0).entry()).collect()
}

/// A number's image under the splitmix64 function: ids and orders without a pattern, the same in every run.
pub(crate) fn mixed(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

fn scattered(number: u64) -> InstanceId {
    InstanceId(mixed(number) >> 1)
}
