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

/// The most of these records that the reference can read at once from etcd, whose answer must stay below 4 MiB: with 221
/// bytes for each it is 4,090,000 bytes. From here on it is known to fail, and below it is not.
pub(super) const READABLE: usize = 18_500;

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

/// The processor time that the server has used, in milliseconds: of all its threads, by the scheduler's nanoseconds. What
/// `/proc/PID/stat` tells has steps of 10 ms, which is more than some figures.
pub(super) fn processor(etcd: &Etcd) -> Outcome<f64> {
    let pid = etcd.pid().ok_or("etcd does not run")?;
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let spent = fs::read_to_string(thread?.path().join("schedstat"))?;
        nanos += spent.split_whitespace().next().ok_or("no time in schedstat")?.parse::<u64>()?;
    }
    if nanos == 0 { Err("this kernel does not count the time of threads".into()) } else { Ok(nanos as f64 / 1e6) }
}

/// The sum of a metric of the server's over its labels.
pub(super) async fn metric(etcd: &Etcd, name: &str) -> Outcome<f64> {
    let mut stream = TcpStream::connect(("127.0.0.1", etcd.port())).await?;
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(total(&text, name, |_| true)?)
}

/// The sum of a metric over those of its lines that count. What the server tells of may be nothing yet, so that it has the
/// metric's type and no line; what it does not know at all is an error, not nothing.
pub(crate) fn total(text: &str, name: &str, counts: impl Fn(&str) -> bool) -> Result<f64, String> {
    let of_name = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']));
    let typed = format!("# TYPE {name} ");
    if !text.lines().any(|line| of_name(&line) || line.starts_with(&typed)) {
        return Err(format!("the server has no metric {name}"));
    }
    let value = |line: &str| {
        let number = line.rsplit(' ').next().and_then(|number| number.parse::<f64>().ok());
        number.ok_or_else(|| format!("no number: {line}"))
    };
    text.lines().filter(of_name).filter(|line| counts(line)).map(value).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# TYPE open gauge\n# TYPE sent counter\nsent{to=\"a\"} 1.5e3\nsent{to=\"b\"} 2\nsent_more 9\n";

    #[test]
    fn a_metric_is_summed_over_its_lines() {
        assert_eq!(total(TEXT, "sent", |_| true), Ok(1502.0));
        assert_eq!(total(TEXT, "sent", |line| line.contains("\"b\"")), Ok(2.0));
        assert_eq!(total(TEXT, "sent_more", |_| true), Ok(9.0));
    }

    #[test]
    fn a_metric_without_a_line_is_nothing_and_an_unknown_one_an_error() {
        assert_eq!(total(TEXT, "open", |_| true), Ok(0.0));
        assert!(total(TEXT, "received", |_| true).is_err());
        assert!(total("sent what\n", "sent", |_| true).is_err());
    }
}
