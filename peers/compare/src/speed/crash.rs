//! A crash on file, seen by a watcher of the same library.

use std::time::Duration;

use discovery_peer_protocol::{Event, Query, name_of, now};
use serde_json::json;

use super::{Comparison, Goal, Measure, Side, rows};
use crate::Outcome;
use crate::peer::{Peer, Which};
use crate::store::Store;

/// Processes that crash, at different moments of their renewals.
const CRASHES: usize = 8;
const APART: Duration = Duration::from_millis(700);
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn measure() -> Vec<Comparison> {
    let mut sides: [Side; 2] = Default::default();
    for (side, which) in sides.iter_mut().zip(Which::BOTH) {
        match crashes(which).await {
            Ok(delays) => delays.into_iter().for_each(|delay| side.add(delay.map(|delay| vec![delay]))),
            Err(error) => side.error = Some(error.to_string()),
        }
    }
    let measure =
        Measure::new("time", "ms", Goal::Times(50.0)).note("from the kill to the event in the watcher's process");
    let on = format!("file, {CRASHES} processes killed, {} s apart", APART.as_secs_f64());
    rows("a crash seen by a watcher", &on, vec![measure], Ok(sides))
}

/// How long it took until each was seen, in milliseconds.
async fn crashes(which: Which) -> Outcome<Vec<Result<f64, String>>> {
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
    // Who is not seen by then has no removal in the log.
    watcher.sees("workers", PATIENCE, |watched| watched.state.is_empty()).await;
    let log = watcher.watched("workers").log;
    let delay = |(name, killed): (String, u64)| {
        let gone = log.iter().find(|(_, event)| matches!(event, Event::Removed { name: gone } if *gone == name));
        let (seen, _) = gone.ok_or_else(|| format!("a dead worker is still shown after {} s", PATIENCE.as_secs()))?;
        let late = seen.checked_sub(killed).ok_or("a worker was told to be gone before it was killed")?;
        Ok(late as f64 / 1e6)
    };
    Ok(killed.into_iter().map(delay).collect())
}
