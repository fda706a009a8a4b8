//! One fresh list of one endpoint's workers, among ever more of others.

use discovery_peer_protocol::{Command, Query};
use serde_json::Value;

use super::load::{self, Spread, WORKERS};
use super::result::quantile;
use super::{Comparison, Goal, Measure, Side, in_turns, of, rows};
use crate::Outcome;
use crate::peer::{Peer, Which};
use crate::store::Store;

const ROUNDS: usize = 5;

pub(super) async fn measure() -> Vec<Comparison> {
    let mut comparisons = Vec::new();
    for (size, times, goal) in [(1_000, 40, Goal::None), (10_000, 20, Goal::Times(10.0)), (100_000, 10, Goal::Works)] {
        let beyond = size > load::READABLE;
        let measures =
            [("time", "ms", goal), ("processor time", "ms", Goal::None), ("sent by the server", "kB", Goal::None)];
        let measures = measures.map(|(what, unit, goal)| Measure::new(what, unit, goal).beyond_the_reference(beyond));
        let on = format!("etcd, {WORKERS} workers among {size} records");
        comparisons.extend(rows(
            "one fresh list of one endpoint's workers",
            &on,
            measures.into(),
            among(size, times).await,
        ));
    }
    comparisons
}

async fn among(size: usize, times: usize) -> Outcome<[Side; 2]> {
    let store = Store::etcd().await?;
    let Store::Etcd(etcd) = &store else { return Err("no etcd".into()) };
    load::load(etcd, Spread::Pools, size).await?;
    let peers = [store.peer(Which::Ours).await?, store.peer(Which::Reference).await?];
    let round = async |which: Which| {
        let sent = async || load::metric(etcd, "etcd_network_client_grpc_sent_bytes_total").await;
        let before = sent().await?;
        let [time, processor] = timed(of(&peers, which), Spread::Pools.query(size / 2), times).await?;
        let bytes = sent().await? - before;
        // One list more than those that were timed.
        Ok(vec![time, processor, bytes / 1e3 / (times + 1) as f64])
    };
    Ok(in_turns(ROUNDS, round).await)
}

/// What a list of the [`WORKERS`] of one endpoint takes by the clock, its median, and of the processor, in milliseconds.
pub(super) async fn timed(peer: &Peer, query: Query, times: usize) -> Result<[f64; 2], String> {
    let answer = peer.ask(Command::TimeList { query, times }).await?;
    if answer["records"].as_u64() != Some(WORKERS as u64) {
        return Err(format!("the list has {} records", answer["records"]));
    }
    let nanos: Vec<f64> = answer["nanos"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
    let time = quantile(&nanos, 0.5).ok_or("no times")?;
    let processor = answer["processor"].as_f64().ok_or("no processor time")? / times as f64;
    Ok([time / 1e6, processor / 1e6])
}
