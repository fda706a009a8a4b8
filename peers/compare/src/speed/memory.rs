//! Resident memory: of watching everything, and of a hundred watchers more.

use std::time::Duration;

use discovery_peer_protocol::{Command, Query};

use super::load::{self, Spread};
use super::{Comparison, Goal, in_memory, in_turns};
use crate::Outcome;
use crate::peer::Peer;
use crate::store::Store;

const ROUNDS: usize = 3;
/// In the process, where the reference has no limit.
const MANY: usize = 100_000;
/// On etcd, where the reference's snapshots must stay below 4 MiB: 218 bytes for each of these records.
const SOME: usize = 19_000;
const MORE: usize = 100;

pub(super) async fn measure() -> Outcome<Vec<Comparison>> {
    let [ours, reference] = in_turns(ROUNDS, async |which| {
        let peer = in_memory(which).await.map_err(|error| error.to_string())?;
        peer.ask(Command::Fill { count: MANY }).await?;
        grown(&peer).await
    })
    .await;
    let note = "the process's own store holds the records already, and is not in the figures";
    let mut comparisons = rows(&format!("memory, {MANY} records"), note, [ours, reference]);

    let store = Store::etcd().await?;
    let Store::Etcd(etcd) = &store else { return Err("no etcd".into()) };
    load::load(etcd, Spread::Pools, SOME).await?;
    let sides =
        in_turns(ROUNDS, async |which| grown(&store.peer(which).await.map_err(|error| error.to_string())?).await).await;
    comparisons.extend(rows(&format!("etcd, {SOME} records"), "the most that the reference can read is close", sides));

    load::load(etcd, Spread::Pools, MANY).await?;
    let sides =
        in_turns(ROUNDS, async |which| grown(&store.peer(which).await.map_err(|error| error.to_string())?).await).await;
    let mut beyond = rows(&format!("etcd, {MANY} records"), "beyond what the reference can read", sides);
    beyond.iter_mut().for_each(|comparison| comparison.goal = Goal::Works);
    comparisons.extend(beyond);
    Ok(comparisons)
}

fn rows(what: &str, note: &str, sides: [Vec<super::Figures>; 2]) -> Vec<Comparison> {
    let [ours, reference] = sides;
    let measures = [("watching all of them".to_owned(), 2.0), (format!("{MORE} such watchers more"), 20.0)];
    let figures = ours.into_iter().zip(reference);
    measures
        .into_iter()
        .zip(figures)
        .map(|((measure, goal), (ours, reference))| Comparison {
            work: "memory".to_owned(),
            what: format!("{what}: {measure}"),
            unit: "MB".to_owned(),
            goal: Goal::Times(goal),
            ours,
            reference,
            note: note.to_owned(),
        })
        .collect()
}

/// By how much a process grows with a first watcher, and with [`MORE`].
async fn grown(peer: &Peer) -> Result<Vec<f64>, String> {
    let queries = |count: usize| vec![Query::all("endpoint"); count];
    let bare = resident(peer).await?;
    peer.ask(Command::Watches { queries: queries(1) }).await?;
    let one = resident(peer).await?;
    // One after the other, as they come in a process that runs: at once, the reference's copies on the way add up.
    for _ in 0..MORE {
        peer.ask(Command::Watches { queries: queries(1) }).await?;
    }
    let all = resident(peer).await?;
    Ok(vec![(one - bare) / 1e6, (all - one) / 1e6])
}

/// Once it changes no more.
async fn resident(peer: &Peer) -> Result<f64, String> {
    let mut last = peer.usage().await?.resident;
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = peer.usage().await?.resident;
        if now == last || now.abs_diff(last) < 100_000 {
            return Ok(now as f64);
        }
        last = now;
    }
}
