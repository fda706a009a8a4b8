//! A crash on file, seen by a watcher of the same library.

use std::time::Duration;

use discovery_peer_protocol::{Event, Query, name_of, now};
use serde_json::json;

use super::{Comparison, Figures, Goal};
use crate::Outcome;
use crate::peer::{Peer, Which};
use crate::store::Store;

/// Processes that crash, at different moments of their renewals.
const CRASHES: usize = 8;
const APART: Duration = Duration::from_millis(700);

pub(super) async fn measure() -> Outcome<Vec<Comparison>> {
    let mut figures = Vec::new();
    for which in Which::BOTH {
        figures.push(match crashes(which).await {
            Ok(delays) => Figures::Rounds(delays),
            Err(error) => Figures::Fails(error.to_string()),
        });
    }
    let reference = figures.pop().ok_or("no figures")?;
    let ours = figures.pop().ok_or("no figures")?;
    Ok(vec![Comparison {
        work: "a crash seen by a watcher".to_owned(),
        what: format!("file, {CRASHES} processes killed, {} s apart", APART.as_secs_f64()),
        unit: "ms".to_owned(),
        goal: Goal::Times(50.0),
        ours,
        reference,
        note: "from the kill to the event in the watcher's process".to_owned(),
    }])
}

async fn crashes(which: Which) -> Outcome<Vec<f64>> {
    let store = Store::file()?;
    let watcher = store.peer(which).await?;
    watcher.watch("workers", Query::all("endpoint")).await?;
    let mut workers: Vec<(Peer, String)> = Vec::new();
    for number in 0..CRASHES {
        let record = json!({
            "type": "Endpoint", "namespace": "bench", "component": "pool", "endpoint": "generate",
            "transport": { "tcp": format!("10.0.0.{number}:9000") },
        });
        let peer = store.peer(which).await?;
        let name = name_of(&peer.register("worker", &record).await?);
        workers.push((peer, name));
    }
    let seen = watcher.sees("workers", Duration::from_secs(10), |watched| watched.state.len() == CRASHES).await;
    if !seen {
        return Err("the watcher does not see all workers".into());
    }
    let mut killed = Vec::new();
    for (peer, name) in workers {
        killed.push((name, now()));
        peer.crash().await?;
        tokio::time::sleep(APART).await;
    }
    if !watcher.sees("workers", Duration::from_secs(60), |watched| watched.state.is_empty()).await {
        return Err("the watcher keeps dead workers for a minute".into());
    }
    let log = watcher.watched("workers").log;
    let delay = |(name, at): &(String, u64)| {
        let gone = log.iter().find(|(_, event)| matches!(event, Event::Removed { name: gone } if gone == name));
        gone.map(|(seen, _)| seen.saturating_sub(*at) as f64 / 1e6).ok_or("a removal was not told")
    };
    Ok(killed.iter().map(delay).collect::<Result<_, _>>()?)
}
