//! Records: written by one side, read by the other.

use std::collections::BTreeMap;

use discovery_peer_protocol::{Event, Query, name_of};
use serde_json::{Value, json};

use super::pair::{Pair, SOON, gone, lists, shown};
use super::{Finding, samples};
use crate::peer::{Peer, Which};
use crate::store::Store;

pub(super) async fn endpoints(pair: &Pair<'_>) -> Result<Finding, String> {
    kind(pair, "endpoint", samples::endpoints()).await
}

pub(super) async fn models(pair: &Pair<'_>) -> Result<Finding, String> {
    kind(pair, "model", samples::models()).await
}

pub(super) async fn channels(pair: &Pair<'_>) -> Result<Finding, String> {
    kind(pair, "event_channel", samples::channels()).await
}

pub(super) async fn sources(pair: &Pair<'_>) -> Result<Finding, String> {
    kind(pair, "event_source", samples::sources()).await
}

/// Each record is watched and listed by the other, as it was registered and under its owner's instance.
async fn kind(pair: &Pair<'_>, kind: &str, records: Vec<Value>) -> Result<Finding, String> {
    let (writer, reader) = pair.start().await?;
    reader.watch(kind, Query::all(kind)).await?;
    let registered = register_all(&writer, &records).await?;
    for (asked, got) in records.iter().zip(&registered) {
        if with_instance(asked, &writer) != *got {
            return Err(format!("{} registered {got} for {asked}", writer.which.name()));
        }
        shown(&reader, kind, got).await?;
    }
    lists(&reader, Query::all(kind), &registered).await?;
    Ok(Finding::Matches(format!("{} records, field by field, watched and listed", records.len())))
}

async fn register_all(writer: &Peer, records: &[Value]) -> Result<Vec<Value>, String> {
    let mut registered = Vec::new();
    for (number, record) in records.iter().enumerate() {
        registered.push(writer.register(&number.to_string(), record).await?);
    }
    Ok(registered)
}

/// Endpoints and models carry their owner's instance, events their publisher's.
fn with_instance(record: &Value, owner: &Peer) -> Value {
    let mut record = record.clone();
    if matches!(record["type"].as_str(), Some("Endpoint" | "Model")) {
        record["instance_id"] = json!(owner.instance);
    }
    record
}

/// Both sides write the same under the same name, apart from their own instance.
pub(super) async fn bytes(pair: &Pair<'_>) -> Result<Finding, String> {
    let records: Vec<Value> =
        [samples::endpoints(), samples::models(), samples::channels(), samples::sources()].concat();
    let mut written = Vec::new();
    for which in [pair.acting, pair.looking] {
        let failed = |error: Box<dyn std::error::Error>| error.to_string();
        let writer = pair.peer(which).await?;
        register_all(&writer, &records).await?;
        let stored = pair.store.stored().await.map_err(failed)?;
        let (hex, decimal) = (format!("{:x}", writer.instance), format!("{}", writer.instance));
        let anonymous = |text: String| text.replace(&hex, "OWNER").replace(&decimal, "OWNER");
        written.push(
            stored
                .into_iter()
                .map(|(name, value)| (anonymous(name), anonymous(value)))
                .collect::<BTreeMap<String, String>>(),
        );
        writer.leave().await.map_err(failed)?;
        pair.store.clear().await.map_err(failed)?;
    }
    if written[0].len() != records.len() {
        return Err(format!("{} records are stored for {}: {:?}", written[0].len(), records.len(), written[0].keys()));
    }
    for (name, text) in &written[0] {
        if written[1].get(name) != Some(text) {
            return Err(format!("{name} is {text} here and {:?} there", written[1].get(name)));
        }
    }
    // The API server keeps values, not texts.
    let how = if matches!(pair.store, Store::Kubernetes(_)) { "value by value" } else { "byte by byte" };
    Ok(Finding::Matches(format!("{} records, {how}", records.len())))
}

/// A name that another one starts with is not that one.
pub(super) async fn queries(pair: &Pair<'_>) -> Result<Finding, String> {
    let (writer, reader) = pair.start().await?;
    let mut registered = Vec::new();
    for (namespace, component, endpoint) in
        [("ns", "pool", "generate"), ("ns", "pool", "generate2"), ("ns", "pool2", "generate"), ("ns2", "pool", "x")]
    {
        let record = json!({
            "type": "Endpoint", "namespace": namespace, "component": component, "endpoint": endpoint,
            "transport": { "tcp": "10.0.0.1:1" },
        });
        registered.push(writer.register(&format!("{namespace}-{component}-{endpoint}"), &record).await?);
    }
    for (path, matching) in [
        (vec![], 0..4),
        (vec!["ns"], 0..3),
        (vec!["ns", "pool"], 0..2),
        (vec!["ns", "pool", "generate"], 0..1),
        (vec!["n"], 0..0),
    ] {
        lists(&reader, Query::under("endpoint", &path), &registered[matching]).await?;
    }
    let channels = samples::channels();
    register_all(&writer, &channels).await?;
    let escaped = ["namespace", "dy/na mo%", "topic", "kv metrics/é"];
    lists(&reader, Query::under("event_channel", &escaped), &channels[3..6]).await?;
    let scope = Query::under("event_channel", &["namespace", "dynamo"]);
    let exact = lists(&reader, scope.clone(), &channels[..3]).await;
    if reader.which == Which::Reference && exact.is_err() {
        let wider: Vec<Value> = [&channels[..3], &channels[6..]].concat();
        lists(&reader, scope, &wider).await?;
        return Ok(Finding::Differs(
            "six queries match; asked for the events of a namespace, whatever their topic, the reference answers those \
             of its components and endpoints too"
                .to_owned(),
        ));
    }
    exact?;
    Ok(Finding::Matches("seven queries".to_owned()))
}

/// A watch that is opened late begins with what is there.
pub(super) async fn late(pair: &Pair<'_>) -> Result<Finding, String> {
    let writer = pair.peer(pair.acting).await?;
    let registered = register_all(&writer, &samples::endpoints()).await?;
    let reader = pair.peer(pair.looking).await?;
    reader.watch("all", Query::all("endpoint")).await?;
    for record in &registered {
        shown(&reader, "all", record).await?;
    }
    Ok(Finding::Matches(String::new()))
}

/// An endpoint moves: the other side follows where the library can say so at all.
pub(super) async fn update(pair: &Pair<'_>) -> Result<Finding, String> {
    let (writer, reader) = pair.start().await?;
    reader.watch("all", Query::all("endpoint")).await?;
    let mut record = samples::endpoints().remove(0);
    let first = writer.register("moving", &record).await?;
    shown(&reader, "all", &first).await?;
    record["transport"] = json!({ "tcp": "10.9.9.9:9000/generate" });
    let command = discovery_peer_protocol::Command::Update { name: "moving".to_owned(), record };
    let updated = writer.ask(command).await?;
    if pair.acting == Which::Reference && !matches!(pair.store, Store::Kubernetes(_)) {
        lists(&reader, Query::all("endpoint"), &[first]).await?;
        return Ok(Finding::Differs(
            "the reference cannot update: registering again answers Ok and leaves the old value stored".to_owned(),
        ));
    }
    shown(&reader, "all", &updated).await?;
    lists(&reader, Query::all("endpoint"), std::slice::from_ref(&updated)).await?;
    if pair.acting == Which::Reference {
        return Ok(Finding::Matches("by registering again".to_owned()));
    }
    let told: Vec<Event> = reader.watched("all").log.into_iter().map(|(_, event)| event).collect();
    if told == [Event::Put(first), Event::Put(updated)] {
        return Ok(Finding::Matches("the reference tells of it as added again".to_owned()));
    }
    Err(format!("{} tells of an update by {told:?}", reader.which.name()))
}

/// One record goes, the others stay.
pub(super) async fn withdraw(pair: &Pair<'_>) -> Result<Finding, String> {
    let (writer, reader) = pair.start().await?;
    reader.watch("endpoint", Query::all("endpoint")).await?;
    reader.watch("model", Query::all("model")).await?;
    let endpoints = register_all(&writer, &samples::endpoints()).await?;
    let model = writer.register("model", &samples::base("backend")).await?;
    shown(&reader, "model", &model).await?;
    writer.unregister("0").await?;
    writer.unregister("model").await?;
    // At once, whatever the watches have told by then.
    lists(&reader, Query::all("endpoint"), &endpoints[1..]).await?;
    lists(&reader, Query::all("model"), &[]).await?;
    gone(&reader, "endpoint", &name_of(&endpoints[0]), SOON).await?;
    gone(&reader, "model", &name_of(&model), SOON).await?;
    Ok(Finding::Matches(String::new()))
}
