//! A router's lookup: one worker of an endpoint.

use discovery_peer_protocol::Command;
use serde_json::Value;

use super::load::{self, Spread, WORKERS};
use super::result::quantile;
use super::{Comparison, Figures, Goal, in_memory, in_turns};
use crate::Outcome;
use crate::peer::{Peer, Which};
use crate::store::Store;

const ROUNDS: usize = 5;
/// Of a thousand lookups each.
const GROUPS: usize = 300;
const RECORDS: usize = 10_000;
const MANY: usize = 100_000;

pub(super) async fn measure() -> Outcome<Vec<Comparison>> {
    let mut comparisons = beside_the_client().await?;
    comparisons.push(beside_list().await?);
    Ok(comparisons)
}

/// Beside what the reference's own client keeps.
async fn beside_the_client() -> Outcome<Vec<Comparison>> {
    let store = Store::etcd().await?;
    let Store::Etcd(etcd) = &store else { return Err("no etcd".into()) };
    load::load(etcd, Spread::Pools, RECORDS).await?;
    let peers = [store.peer(Which::Ours).await?, store.peer(Which::Reference).await?];
    let mut ways: Vec<(&str, Vec<f64>)> =
        ["read and pick", "load and pick", "in place", "one cloned", "its ids", "instances()"]
            .map(|way| (way, Vec::new()))
            .into();
    for _ in 0..ROUNDS {
        for peer in &peers {
            let query = Spread::Pools.query(RECORDS / 2);
            let answer = peer.ask(Command::Lookup { query, groups: GROUPS }).await?;
            for (way, rounds) in &mut ways {
                rounds.extend(median(&answer[*way]));
            }
        }
    }
    let mut ways = ways.into_iter();
    let mut ours = || Figures::Rounds(ways.next().map(|(_, rounds)| rounds).unwrap_or_default());
    let (read, loaded) = (ours(), ours());
    let beside = [
        (&read, Goal::NotMore, "an index into its cache, under its read lock; ours through a reader of the view"),
        (&loaded, Goal::NotMore, "a lookup that may keep what it found; ours loads the view, by a count of references"),
        (&loaded, Goal::None, "`instance_ids_avail()`: the ids alone, no address; ours loads the view"),
        (&loaded, Goal::None, "`instances()`: the call that its client offers for it; ours loads the view"),
    ];
    let row = |((way, rounds), (ours, goal, note)): ((&str, Vec<f64>), (&Figures, Goal, &str))| Comparison {
        work: "a router's lookup".to_owned(),
        what: format!("etcd, one of {WORKERS} workers among {RECORDS} records; the reference's: {way}"),
        unit: "ns".to_owned(),
        goal,
        ours: ours.clone(),
        reference: Figures::Rounds(rounds),
        note: note.to_owned(),
    };
    Ok(ways.zip(beside).map(row).collect())
}

/// Beside `list`, which the reference's routers use too.
async fn beside_list() -> Outcome<Comparison> {
    let peers = [in_memory(Which::Ours).await?, in_memory(Which::Reference).await?];
    for peer in &peers {
        peer.ask(Command::Fill { count: MANY }).await?;
    }
    let [mut ours, mut reference] = in_turns(ROUNDS, async |which| {
        let query = Spread::Single.query(MANY / 2);
        let peer: &Peer = if which == Which::Ours { &peers[0] } else { &peers[1] };
        let nanos = match which {
            Which::Ours => median(&peer.ask(Command::Lookup { query, groups: GROUPS }).await?["load and pick"]),
            Which::Reference => median(&peer.ask(Command::TimeList { query, times: 5 }).await?["nanos"]),
        };
        Ok(vec![nanos.ok_or("no times")?])
    })
    .await;
    Ok(Comparison {
        work: "a router's lookup".to_owned(),
        what: format!("memory, one endpoint among {MANY} records; the reference's: list"),
        unit: "ns".to_owned(),
        goal: Goal::Times(10_000.0),
        ours: ours.remove(0),
        reference: reference.remove(0),
        note: "etcd cannot be used here: the reference's list fails beyond 4 MB".to_owned(),
    })
}

fn median(values: &Value) -> Option<f64> {
    let values: Vec<f64> = values.as_array()?.iter().filter_map(Value::as_f64).collect();
    quantile(&values, 0.5)
}
