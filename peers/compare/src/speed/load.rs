//! Data for etcd, written past both libraries, and what the server says of itself.

use std::fs;

use discovery_core::{InstanceId, Key, Record};
use discovery_dynamo::{Endpoint, layout};
use discovery_peer_protocol::{Query, now};
use discovery_testbed::Etcd;
use etcd_client::{Client, DeleteOptions, Txn, TxnOp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Outcome;

/// Instances of one endpoint, where an endpoint has several.
pub(super) const WORKERS: usize = 100;

/// How the records lie: how many instances an endpoint has.
#[derive(Clone, Copy)]
pub(super) enum Spread {
    /// [`WORKERS`] of them.
    Pools,
    /// One: as many endpoints as records.
    Single,
}

impl Spread {
    /// The path of the endpoint that has the record of this number.
    pub(super) fn path(self, number: usize) -> [String; 3] {
        let endpoint = match self {
            Self::Pools => number / WORKERS,
            Self::Single => number,
        };
        ["bench".to_owned(), format!("pool-{}", number / 1_000), format!("generate-{endpoint}")]
    }

    /// A query for the endpoint that has the record of this number.
    pub(super) fn query(self, number: usize) -> Query {
        Query { kind: "endpoint".to_owned(), path: self.path(number).to_vec() }
    }

    /// A record's name and text in the store, telling of this moment.
    pub(super) fn stored(self, number: usize) -> Outcome<(String, Vec<u8>)> {
        let (endpoint, key) = self.record(number)?;
        Ok((layout::stored_key(&key)?, endpoint.encode(&key)?.to_vec()))
    }

    /// The same for a directory: its bucket, its file's name, and the text.
    pub(super) fn file(self, number: usize) -> Outcome<(String, String, Vec<u8>)> {
        let (endpoint, key) = self.record(number)?;
        let (bucket, name) = layout::file_name(&key)?;
        Ok((bucket, name, endpoint.encode(&key)?.to_vec()))
    }

    fn record(self, number: usize) -> Outcome<(Endpoint, Key)> {
        let [namespace, component, endpoint] = self.path(number);
        let address = format!("10.0.0.{}:9000/{:020}", number % 250, now());
        let endpoint = Endpoint::new(namespace, component, endpoint).tcp(address);
        let key = Key::new(endpoint.path()?, InstanceId(number as u64 + 1));
        Ok((endpoint, key))
    }
}

pub(super) async fn client(etcd: &Etcd) -> Outcome<Client> {
    Ok(Client::connect([etcd.endpoint()], None).await?)
}

/// Leaves exactly the records below `count`.
pub(super) async fn load(etcd: &Etcd, spread: Spread, count: usize) -> Outcome {
    let mut client = client(etcd).await?;
    client.delete("v1/", Some(DeleteOptions::new().with_prefix())).await?;
    let numbers: Vec<usize> = (0..count).collect();
    for some in numbers.chunks(100) {
        let mut puts = Vec::with_capacity(some.len());
        for &number in some {
            let (key, value) = spread.stored(number)?;
            puts.push(TxnOp::put(key, value, None));
        }
        client.txn(Txn::new().and_then(puts)).await?;
    }
    Ok(())
}

/// The processor time that the server has used, in seconds.
pub(super) fn processor(etcd: &Etcd) -> Outcome<f64> {
    let pid = etcd.pid().ok_or("etcd does not run")?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // After the name, which is in brackets: the 12th and the 13th field, in hundredths of a second on Linux.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields.get(11).ok_or("no such field")?.parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(ticks as f64 / 100.0)
}

/// The sum of a metric of the server's over its labels, those alone that hold `label`.
pub(super) async fn metric(etcd: &Etcd, name: &str, label: &str) -> Outcome<f64> {
    let mut stream = TcpStream::connect(("127.0.0.1", etcd.port())).await?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    let of_name =
        |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label);
    Ok(text.lines().filter(of_name).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}
