//! Resident memory: of watching everything, and of a hundred watchers more.

use std::time::{Duration, Instant};

use discovery_peer_protocol::{Command, Query};

use super::load::{self, Spread};
use super::{Comparison, Goal, Measure, PATIENCE, Side, in_memory, in_turns, rows};
use crate::Outcome;
use crate::peer::Peer;
use crate::store::Store;

const ROUNDS: usize = 3;
/// In the process, where the reference has no limit, and on etcd beyond what it can read.
const MANY: usize = 100_000;
const MORE: usize = 100;

pub(super) async fn measure() -> Vec<Comparison> {
    let note = "the process's own store holds the records already, and is not in the figures";
    let mut comparisons = lines("memory", MANY, note, in_processes().await);
    let note = "close to the most that the reference can read at once";
    comparisons.extend(lines("etcd", load::READABLE, note, on_etcd(load::READABLE).await));
    comparisons.extend(lines("etcd", MANY, "beyond what the reference can read", on_etcd(MANY).await));
    comparisons
}

fn lines(store: &str, size: usize, note: &str, sides: Outcome<[Side; 2]>) -> Vec<Comparison> {
    let measures = [("watching all of them".to_owned(), 2.0), (format!("{MORE} such watchers more"), 20.0)];
    let beyond = store == "etcd" && size > load::READABLE;
    let measure = |(what, goal)| Measure::new(what, "MB", Goal::Times(goal)).note(note).beyond_the_reference(beyond);
    rows("memory", &format!("{store}, {size} records"), measures.map(measure).into(), sides)
}

async fn in_processes() -> Outcome<[Side; 2]> {
    let round = async |which| {
        let peer = in_memory(which).await?;
        peer.ask(Command::Fill { count: MANY }).await?;
        grown(&peer, MANY).await
    };
    Ok(in_turns(ROUNDS, round).await)
}

async fn on_etcd(size: usize) -> Outcome<[Side; 2]> {
    let store = Store::etcd().await?;
    let Store::Etcd(etcd) = &store else { return Err("no etcd".into()) };
    load::load(etcd, Spread::Pools, size).await?;
    Ok(in_turns(ROUNDS, async |which| grown(&store.peer(which).await?, size).await).await)
}

/// By how much a process grows with a first watcher, and with [`MORE`], in MB.
async fn grown(peer: &Peer, size: usize) -> Outcome<Vec<f64>> {
    let watch = async || -> Outcome {
        let answer = peer.ask(Command::Watches { queries: vec![Query::all("endpoint")] }).await?;
        let seen = answer["records"].as_u64();
        if seen == Some(size as u64) { Ok(()) } else { Err(format!("{seen:?} records in the place of {size}").into()) }
    };
    let bare = resident(peer).await?;
    watch().await?;
    let one = resident(peer).await?;
    // One after the other, as they come in a process that runs: at once, the reference's copies on the way add up.
    for _ in 0..MORE {
        watch().await?;
    }
    let all = resident(peer).await?;
    Ok(vec![(one - bare) / 1e6, (all - one) / 1e6])
}

/// Once it changes no more.
async fn resident(peer: &Peer) -> Outcome<f64> {
    let deadline = Instant::now() + PATIENCE;
    let mut last = peer.usage().await?.resident;
    while Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = peer.usage().await?.resident;
        if now.abs_diff(last) < 100_000 {
            return Ok(now as f64);
        }
        last = now;
    }
    Err(format!("{}'s memory still changes after {} s", peer.which.name(), PATIENCE.as_secs()).into())
}
