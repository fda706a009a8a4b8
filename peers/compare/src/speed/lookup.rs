//! A router's lookup: one worker of an endpoint.

use discovery_peer_protocol::{Command, Query};
use serde_json::Value;

use super::load::{self, Spread, WORKERS};
use super::result::quantile;
use super::{Comparison, Figures, Goal, in_memory, in_turns, of};
use crate::Outcome;
use crate::peer::{Peer, Which};
use crate::store::Store;

const ROUNDS: usize = 5;
/// Of a thousand lookups each.
const GROUPS: usize = 300;
/// On etcd, by what else is stored there.
const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
const MANY: usize = 100_000;

/// The ways of ours, as a process of ours calls them.
const OURS: [&str; 2] = ["read and pick", "load and pick"];

/// The ways of the reference's client, each with the one of ours that it stands beside.
const WAYS: [(&str, usize, Goal, &str); 4] = [
    ("in place", 0, Goal::NotMore, "an index into its cache, under its read lock; ours through a reader of the view"),
    (
        "one cloned",
        1,
        Goal::NotMore,
        "a lookup that may keep what it found; ours loads the view, by a count of references",
    ),
    ("its ids", 1, Goal::None, "`instance_ids_avail()`: the ids alone, no address; ours loads the view"),
    ("instances()", 1, Goal::None, "`instances()`: the call that its client offers for it; ours loads the view"),
];

pub(super) async fn measure() -> Outcome<Vec<Comparison>> {
    let mut comparisons = Vec::new();
    let store = Store::etcd().await?;
    let Store::Etcd(etcd) = &store else { return Err("no etcd".into()) };
    for size in SIZES {
        load::load(etcd, Spread::Pools, size).await?;
        let peers = [store.peer(Which::Ours).await?, store.peer(Which::Reference).await?];
        let among = format!("etcd, one of {WORKERS} workers among {size} records");
        comparisons.extend(beside_the_client(&among, &peers, Spread::Pools.query(size / 2)).await);
    }
    let peers = [in_memory(Which::Ours).await?, in_memory(Which::Reference).await?];
    for peer in &peers {
        peer.ask(Command::Fill { count: MANY }).await?;
    }
    let among = format!("memory, one endpoint among {MANY} records");
    comparisons.extend(beside_the_client(&among, &peers, Spread::Single.query(MANY / 2)).await);
    comparisons.push(beside_list(&among, &peers).await);
    Ok(comparisons)
}

/// Beside what the reference's own client keeps.
pub(super) async fn beside_the_client(among: &str, peers: &[Peer; 2], query: Query) -> Vec<Comparison> {
    let [ours, reference] = in_turns(ROUNDS, async |which| {
        let ways = match which {
            Which::Ours => &OURS[..],
            Which::Reference => &WAYS.map(|(way, ..)| way)[..],
        };
        let answer = of(peers, which).ask(Command::Lookup { query: query.clone(), groups: GROUPS }).await?;
        ways.iter().map(|way| median(&answer[*way]).ok_or_else(|| format!("no times of {way:?}"))).collect()
    })
    .await;
    // A side that failed says so in every column.
    let row = |(number, (way, beside, goal, note)): (usize, (&str, usize, Goal, &str))| {
        let reference = reference.get(number)?.clone();
        // There is nothing to be compared with where the reference has no figures.
        let goal = if matches!(reference, Figures::Rounds(_)) { goal } else { Goal::Works };
        Some(Comparison {
            work: "a router's lookup".to_owned(),
            what: format!("{among}; the reference's: {way}"),
            unit: "ns".to_owned(),
            goal,
            ours: ours.get(beside)?.clone(),
            reference,
            note: note.to_owned(),
        })
    };
    WAYS.into_iter().enumerate().filter_map(row).collect()
}

/// Beside `list`, which the reference's routers use too.
async fn beside_list(among: &str, peers: &[Peer; 2]) -> Comparison {
    let [mut ours, mut reference] = in_turns(ROUNDS, async |which| {
        let query = Spread::Single.query(MANY / 2);
        let (command, times) = match which {
            Which::Ours => (Command::Lookup { query, groups: GROUPS }, OURS[1]),
            Which::Reference => (Command::TimeList { query, times: 5 }, "nanos"),
        };
        let nanos = median(&of(peers, which).ask(command).await?[times]);
        Ok(vec![nanos.ok_or("no times")?])
    })
    .await;
    Comparison {
        work: "a router's lookup".to_owned(),
        what: format!("{among}; the reference's: list"),
        unit: "ns".to_owned(),
        goal: Goal::Times(10_000.0),
        ours: ours.remove(0),
        reference: reference.remove(0),
        note: "etcd cannot be used here: the reference's list fails beyond 4 MB".to_owned(),
    }
}

fn median(values: &Value) -> Option<f64> {
    let values: Vec<f64> = values.as_array()?.iter().filter_map(Value::as_f64).collect();
    quantile(&values, 0.5)
}
