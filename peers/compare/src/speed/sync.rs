//! The first state of a watch of everything.

use discovery_peer_protocol::{Command, Query};

use super::load::{self, Spread};
use super::{Comparison, Goal, Measure, Side, in_turns, rows};
use crate::Outcome;
use crate::peer::Which;
use crate::store::Store;

const SIZES: [(usize, usize, Goal); 3] =
    [(10_000, 7, Goal::NotMore), (100_000, 3, Goal::Works), (1_000_000, 1, Goal::Works)];

pub(super) async fn measure() -> Vec<Comparison> {
    let mut comparisons = Vec::new();
    for (size, rounds, goal) in SIZES {
        let beyond = size > load::READABLE;
        let measures = [("time", goal), ("processor time", Goal::None)];
        let measures = measures.map(|(what, goal)| Measure::new(what, "ms", goal).beyond_the_reference(beyond));
        let on = format!("etcd, {size} records");
        comparisons.extend(rows("first sync", &on, measures.into(), of_all(size, rounds).await));
    }
    comparisons
}

async fn of_all(size: usize, rounds: usize) -> Outcome<[Side; 2]> {
    let store = Store::etcd().await?;
    let Store::Etcd(etcd) = &store else { return Err("no etcd".into()) };
    load::load(etcd, Spread::Pools, size).await?;
    let round = async |which| {
        let peer = store.peer(which).await?;
        // Connected and warm, as a process is that opens a watch.
        peer.ask(Command::List { query: Query::under("endpoint", &["nothing"]) }).await.ok();
        let before = peer.usage().await?.processor;
        let answer = peer.ask(Command::Watches { queries: vec![Query::all("endpoint")] }).await?;
        let after = peer.usage().await?.processor;
        if answer["records"].as_u64() != Some(size as u64) {
            return Err(format!("{} records in the place of {size}", answer["records"]).into());
        }
        Ok(vec![answer["nanos"].as_f64().ok_or("no time")? / 1e6, (after - before) as f64 / 1e6])
    };
    // What the server reads for the first time is not in a figure. Who fails here fails again, and says so.
    for which in Which::BOTH {
        round(which).await.ok();
    }
    Ok(in_turns(rounds, round).await)
}
