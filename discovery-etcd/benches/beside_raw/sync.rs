//! The first sync of a large set.

use discovery_dynamo::Endpoint;
use discovery_testbed::Etcd;
use discovery_testbed::sides::{self, Side, beside, measured, micros, ready};
use etcd_client::GetOptions;

use crate::records::{PREFIX, all, discovery};
use crate::{Outcome, raw as direct};

const ROUNDS: usize = 5;
const RECORDS: usize = 100_000;
/// How many records a page of the raw read has: about 4 MB, as ours have.
const PAGE: i64 = 18_000;

pub(crate) async fn compare(etcd: &Etcd) -> Outcome {
    let mut client = direct::client(&etcd.endpoint()).await?;
    client.delete(PREFIX, Some(etcd_client::DeleteOptions::new().with_prefix())).await?;
    direct::load(&client, RECORDS).await?;
    let (mut times, mut costs) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let raw = Side::start("sync-raw", &[&etcd.endpoint(), &RECORDS.to_string()]).await?.end().await?;
        let ours = Side::start("sync-view", &[&etcd.endpoint(), &RECORDS.to_string()]).await?.end().await?;
        if round > 0 {
            times.push((raw[0] / 1_000.0, ours[0] / 1_000.0));
            costs.push((raw[1] / 1_000.0, ours[1] / 1_000.0));
        }
    }
    beside("first_sync_100000/time", "ms", &times);
    beside("first_sync_100000/processor", "ms", &costs);
    Ok(())
}

/// Reads all pages at one revision and decodes every value.
pub(crate) async fn raw(endpoint: &str, count: usize) -> Outcome {
    let client = direct::client(endpoint).await?;
    let mut kv = client.kv_client().max_decoding_message_size(64 << 20);
    ready();
    let (began, before) = (sides::now(), sides::processor());
    let mut known: Vec<(Vec<u8>, Endpoint)> = Vec::new();
    let end = [PREFIX.trim_end_matches('/').as_bytes(), b"0"].concat();
    let (mut from, mut revision) = (PREFIX.as_bytes().to_vec(), 0);
    loop {
        let options = GetOptions::new().with_range(end.clone()).with_limit(PAGE).with_revision(revision);
        let mut page = kv.get(from, Some(options)).await?;
        revision = page.header().map_or(0, etcd_client::ResponseHeader::revision);
        let more = page.more();
        for record in page.take_kvs() {
            let (key, value) = record.into_key_value();
            known.push((key, serde_json::from_slice(&value)?));
        }
        match known.last() {
            Some((last, _)) if more => from = [last.as_slice(), &[0]].concat(),
            _ => break,
        }
    }
    let (time, cost) = (sides::now() - began, sides::processor() - before);
    if known.len() != count {
        return Err(format!("read {} of {count} records", known.len()).into());
    }
    measured(&[micros(time), micros(cost)]);
    Ok(())
}

/// Opens a view until it is live.
pub(crate) async fn view(endpoint: &str, count: usize) -> Outcome {
    let discovery = discovery(endpoint).await?;
    discovery.health().await?;
    ready();
    let (began, before) = (sides::now(), sides::processor());
    let view = discovery.view::<Endpoint>(all()).await?;
    let (time, cost) = (sides::now() - began, sides::processor() - before);
    if view.load().len() != count {
        return Err(format!("a live view of {} of {count} records", view.load().len()).into());
    }
    measured(&[micros(time), micros(cost)]);
    Ok(())
}
