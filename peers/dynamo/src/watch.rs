//! Watches, told or counted.

use std::sync::Arc;

use anyhow::{Context, Result};
use discovery_peer_protocol::{Event, Line, Output, Tally};
use dynamo_runtime::discovery::{Discovery, DiscoveryEvent, DiscoveryInstance, DiscoveryQuery, DiscoveryStream};
use futures_util::StreamExt;

use crate::convert;

/// Tells every event, those of the first state among them. Returns when that is complete.
pub async fn tell(discovery: Arc<dyn Discovery>, name: String, query: DiscoveryQuery, output: Output) -> Result<()> {
    let mut events = discovery.list_and_watch(query, None).await?;
    while let Some(event) = events.next().await {
        let event = event?;
        let complete = matches!(event, DiscoveryEvent::Resync(_));
        output.tell(&name, told(&event));
        if complete {
            tokio::spawn(async move {
                while let Some(Ok(event)) = events.next().await {
                    output.tell(&name, told(&event));
                }
                // Whoever counts what it tells must not take its end for peace.
                output.write(&Line::Ended { reason: format!("its watch {name} ended") });
            });
            return Ok(());
        }
    }
    anyhow::bail!("the watch ended before its first state was complete")
}

/// Counts into a tally. Returns how many records the first state had.
pub async fn count(discovery: Arc<dyn Discovery>, query: DiscoveryQuery, tally: &Arc<Tally>) -> Result<usize> {
    let mut events = discovery.list_and_watch(query, None).await?;
    let records = first_state(&mut events).await.context("the watch ended before its first state was complete")?;
    let tally = tally.clone();
    tokio::spawn(async move {
        while let Some(Ok(event)) = events.next().await {
            match event {
                DiscoveryEvent::Added(DiscoveryInstance::Endpoint(instance)) => tally.put(instance.transport.address()),
                DiscoveryEvent::Added(_) | DiscoveryEvent::ModelTaintsUpdated(_) => tally.put(""),
                DiscoveryEvent::Removed(_) => tally.removed(),
                DiscoveryEvent::Resync(_) => {}
            }
        }
    });
    Ok(records)
}

async fn first_state(events: &mut DiscoveryStream) -> Option<usize> {
    loop {
        if let DiscoveryEvent::Resync(state) = events.next().await?.ok()? {
            return Some(state.len());
        }
    }
}

fn told(event: &DiscoveryEvent) -> Event {
    match event {
        DiscoveryEvent::Added(instance) => Event::Put(convert::value(instance)),
        DiscoveryEvent::ModelTaintsUpdated(update) => {
            let id = dynamo_runtime::discovery::DiscoveryInstanceId::Model(update.id.clone());
            Event::Taints { name: convert::name(&id), taints: update.taints.clone() }
        }
        DiscoveryEvent::Removed(id) => Event::Removed { name: convert::name(id) },
        DiscoveryEvent::Resync(state) => Event::State(state.iter().map(convert::value).collect()),
    }
}
