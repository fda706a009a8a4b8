//! A watcher's link to the store that breaks for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use discovery_peer_protocol::{Query, name_of};
use discovery_testbed::Proxy;
use serde_json::Value;

use super::pair::{Pair, SOON, removals, shown};
use super::{Finding, samples};
use crate::peer::Peer;
use crate::store::Store;

/// Less than the time to live: nobody's lease ends.
const CUT: Duration = Duration::from_secs(2);

/// What happened meanwhile is seen afterwards, once, and nothing is taken for gone because nobody could be asked.
pub(super) async fn cut(pair: &Pair<'_>) -> Result<Finding, String> {
    let Store::Etcd(etcd) = pair.store else { return Err("only a server has a link to it".to_owned()) };
    let failed = |error: Box<dyn std::error::Error>| error.to_string();
    let proxy = Proxy::to_port(etcd.port()).map_err(|error| error.to_string())?;
    let place = pair.store.place().await.map_err(failed)?.at(&format!("http://{}", proxy.address()));
    let writer = pair.peer(pair.acting).await?;
    let reader = pair.peer_at(pair.looking, place).await?;
    reader.watch("all", Query::all("endpoint")).await?;
    let mut records = Vec::new();
    for (number, sample) in samples::endpoints().iter().take(3).enumerate() {
        let record = writer.register(&number.to_string(), sample).await?;
        shown(&reader, "all", &record).await?;
        records.push(record);
    }
    proxy.cut();
    let gone = name_of(&records.remove(0));
    writer.unregister("0").await?;
    records.push(writer.register("new", &samples::worker("10.2.0.1:9000")).await?);
    tokio::time::sleep(CUT).await;
    let early = removals(&reader.watched("all"));
    if !early.is_empty() {
        return Err(format!("{} took {early:?} for gone while its link was cut", reader.which.name()));
    }
    proxy.heal();
    caught_up(&reader, &records, &gone).await?;
    Ok(Finding::Matches(format!("cut for {} s: what happened meanwhile is told, once", CUT.as_secs())))
}

async fn caught_up(reader: &Peer, records: &[Value], gone: &String) -> Result<(), String> {
    let wanted: BTreeMap<String, Value> = records.iter().map(|record| (name_of(record), record.clone())).collect();
    if !reader.sees("all", SOON, |watched| watched.state == wanted).await {
        let seen = reader.watched("all").state;
        let ended = reader.gave_up().map(|why| format!(" ({why})")).unwrap_or_default();
        return Err(format!(
            "{} s after the link is back it shows {:?} in the place of {:?}{ended}",
            SOON.as_secs(),
            seen.keys(),
            wanted.keys()
        ));
    }
    match removals(&reader.watched("all")) {
        told if told == [gone.clone()] => Ok(()),
        told => Err(format!("it told of {told:?} in the place of {gone:?} alone")),
    }
}
