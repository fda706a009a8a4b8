//! Lists and watches.

use std::sync::Arc;
use std::time::Duration;

use discovery_core::{Batch, Changes, Discovery, Query, Record, Registered, View, ViewChange, ViewOptions};
use discovery_dynamo::{Endpoint, EventChannel, EventSource, Model, Transport};
use discovery_peer_protocol::{Answer, Event, Output, Query as Asked, Tally, name_of, timed};
use serde_json::Value;

use super::gpu::Gpu;
use super::said;

/// For a first state, however much there is.
const PATIENCE: Duration = Duration::from_secs(150);

/// Runs an expression for the type of a kind.
macro_rules! for_kind {
    ($kind:expr, $type:ident => $body:expr) => {
        match $kind {
            "endpoint" => {
                type $type = Endpoint;
                $body
            }
            "model" => {
                type $type = Model;
                $body
            }
            "event_channel" => {
                type $type = EventChannel;
                $body
            }
            "event_source" => {
                type $type = EventSource;
                $body
            }
            "gpu" => {
                type $type = Gpu;
                $body
            }
            kind => Err(format!("there is no kind {kind:?} here")),
        }
    };
}

/// The records, read anew.
pub(super) async fn list(discovery: &Discovery, asked: &Asked) -> Answer {
    let query = query(asked);
    for_kind!(&asked.kind[..], T => {
        let found = discovery.list::<T>(query).await.map_err(said)?;
        Ok(found.iter().map(stored).collect())
    })
}

/// Fresh lists, timed.
pub(super) async fn time_list(discovery: &Discovery, asked: &Asked, times: usize) -> Answer {
    let query = query(asked);
    for_kind!(&asked.kind[..], T => {
        timed(times, || async { discovery.list::<T>(query.clone()).await.map(|found| found.len()) }).await
    })
}

/// Tells of every change, those of the first state among them. Returns when that is complete.
pub(super) async fn tell(discovery: &Discovery, name: String, asked: &Asked) -> Answer {
    let query = query(asked);
    for_kind!(&asked.kind[..], T => {
        let view = discovery.view::<T>(query).await.map_err(said)?;
        tell_view(name, view).await
    })
}

async fn tell_view<T: Record>(name: String, view: View<T>) -> Answer {
    let mut changes = view.changes();
    loop {
        let batch = changes.next().await.ok_or("the view ended before its first state was complete")?;
        let complete = batch.is_synced();
        tell_batch(&name, batch);
        if complete {
            break;
        }
    }
    Output.tell(&name, Event::State(view.load().iter().map(stored).collect()));
    tokio::spawn(async move {
        while let Some(batch) = changes.next().await {
            tell_batch(&name, batch);
        }
    });
    Ok(Value::Null)
}

fn tell_batch<T>(name: &str, batch: Batch<T>) {
    for change in batch.into_changes() {
        let event = match &change {
            ViewChange::Added(record) | ViewChange::Updated { new: record, .. } => Event::Put(stored(record)),
            ViewChange::Removed(record) => Event::Removed { name: name_of(&stored(record)) },
        };
        Output.tell(name, event);
    }
}

/// Counts changes into a tally. Returns how many records the first state had.
pub(super) async fn count(discovery: &Discovery, asked: &Asked, tally: &Arc<Tally>) -> Result<usize, String> {
    let query = query(asked);
    let records = if asked.kind == "endpoint" {
        // How long a million records take is measured, on a busy machine too.
        let patient = ViewOptions::default().deadline(PATIENCE);
        let view = discovery.view_with::<Endpoint>(query, patient).await.map_err(said)?;
        let mut changes = view.changes();
        let records = first_state(&mut changes).await?;
        let tally = tally.clone();
        tokio::spawn(async move {
            while let Some(batch) = changes.next().await {
                for change in batch.changes() {
                    match change {
                        ViewChange::Removed(_) => tally.removed(),
                        put => tally.put(address(put.record())),
                    }
                }
            }
        });
        records
    } else {
        return Err("only endpoints are counted".to_owned());
    };
    Ok(records)
}

async fn first_state(changes: &mut Changes<Endpoint>) -> Result<usize, String> {
    let mut records = 0;
    loop {
        let batch = changes.next().await.ok_or("the view ended before its first state was complete")?;
        records += batch.changes().len();
        if batch.is_synced() {
            return Ok(records);
        }
    }
}

pub(super) fn address(endpoint: &Endpoint) -> &str {
    match endpoint.transport() {
        Transport::Tcp(address) | Transport::Nats(address) => address,
        _ => "",
    }
}

fn stored<T>(record: &Registered<T>) -> Value {
    serde_json::from_slice(record.stored()).unwrap_or_default()
}

/// Events are asked for by exact scope: the literal `topic` ends it.
pub(super) fn query(asked: &Asked) -> Query {
    let query = Query::path(&asked.path);
    let scope_alone = asked.kind.starts_with("event_")
        && !asked.path.is_empty()
        && !asked.path.iter().rev().skip(1).step_by(2).any(|name| name == "topic");
    if scope_alone { query.segment("topic") } else { query }
}

/// A view of endpoints.
pub(super) async fn endpoints(discovery: &Discovery, asked: &Asked) -> Result<View<Endpoint>, String> {
    discovery.view_with(query(asked), ViewOptions::default()).await.map_err(said)
}
