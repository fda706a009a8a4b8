//! A router's lookup: one worker of an endpoint.

use discovery_peer_protocol::{Command, Query};
use serde_json::Value;

use super::load::{self, Spread, WORKERS};
use super::result::quantile;
use super::{Comparison, Goal, Measure, Side, in_memory, in_turns, of, rows};
use crate::Outcome;
use crate::peer::{Peer, Which};
use crate::store::Store;

const WORK: &str = "a router's lookup";
const ROUNDS: usize = 5;
/// Of a thousand lookups each.
const GROUPS: usize = 300;
/// On etcd, by what else is stored there.
const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
const MANY: usize = 100_000;

/// The ways of ours, as a process of ours calls them.
const OURS: [&str; 3] = ["read and pick", "load and pick", "load by id"];

/// The ways of the reference's client, each with the one of ours that it stands beside.
const WAYS: [(&str, usize, Goal, &str); 5] = [
    ("in place", 0, Goal::NotMore, "an index into its cache, under its read lock; ours through a reader of the view"),
    (
        "one cloned",
        1,
        Goal::NotMore,
        "a lookup that may keep what it found; ours loads the view, by a count of references",
    ),
    (
        "by id",
        2,
        Goal::None,
        "what its routers do for every request, once an id is chosen: `instance_by_id`, a scan and a clone; ours looks the \
         key of that id up in a view",
    ),
    ("its ids", 1, Goal::None, "`instance_ids_avail()`: the ids alone, no address; ours loads the view"),
    ("instances()", 1, Goal::None, "`instances()`: the call that its client offers for it; ours loads the view"),
];

pub(super) async fn measure() -> Vec<Comparison> {
    let mut comparisons = Vec::new();
    for size in SIZES {
        let among = format!("etcd, one of {WORKERS} workers among {size} records");
        comparisons.extend(lines(&among, size > load::READABLE, on_etcd(size).await));
    }
    let among = format!("memory, one endpoint among {MANY} records");
    let measure = Measure::new("list", "ns", Goal::Times(10_000.0))
        .note("etcd cannot be used here: the reference's list fails beyond 4 MB");
    let (beside_the_client, beside_list) = match in_processes().await {
        Ok((beside_the_client, beside_list)) => (Ok(beside_the_client), Ok(beside_list)),
        Err(error) => (Err(error.to_string().into()), Err(error)),
    };
    comparisons.extend(lines(&among, false, beside_the_client));
    comparisons.extend(rows(WORK, &format!("{among}; the reference's"), vec![measure], beside_list));
    comparisons
}

async fn on_etcd(size: usize) -> Outcome<[Side; 2]> {
    let store = Store::etcd().await?;
    let Store::Etcd(etcd) = &store else { return Err("no etcd".into()) };
    load::load(etcd, Spread::Pools, size).await?;
    let peers = [store.peer(Which::Ours).await?, store.peer(Which::Reference).await?];
    Ok(beside_the_client(&peers, Spread::Pools.query(size / 2), WORKERS).await)
}

async fn in_processes() -> Outcome<([Side; 2], [Side; 2])> {
    let peers = [in_memory(Which::Ours).await?, in_memory(Which::Reference).await?];
    for peer in &peers {
        peer.ask(Command::Fill { count: MANY }).await?;
    }
    let query = Spread::Single.query(MANY / 2);
    Ok((beside_the_client(&peers, query.clone(), 1).await, beside_list(&peers, query).await))
}

/// Beside what the reference's own client keeps: for each of [`WAYS`] a figure of each side.
pub(super) async fn beside_the_client(peers: &[Peer; 2], query: Query, workers: usize) -> [Side; 2] {
    in_turns(ROUNDS, async |which| {
        let command = Command::Lookup { query: query.clone(), groups: GROUPS, records: workers };
        let answer = of(peers, which).ask(command).await?;
        if answer["records"].as_u64() != Some(workers as u64) {
            return Err(format!("{} records to choose from in the place of {workers}", answer["records"]).into());
        }
        let times = |way: &str| median(&answer[way]).ok_or_else(|| format!("no times of {way:?}").into());
        WAYS.iter().map(|(way, beside, ..)| times(if which == Which::Ours { OURS[*beside] } else { way })).collect()
    })
    .await
}

/// The lines of [`beside_the_client`], where the reference may see nothing because it is too much.
pub(super) fn lines(among: &str, beyond: bool, sides: Outcome<[Side; 2]>) -> Vec<Comparison> {
    let measures =
        WAYS.map(|(way, _, goal, note)| Measure::new(way, "ns", goal).note(note).beyond_the_reference(beyond));
    rows(WORK, &format!("{among}; the reference's"), measures.into(), sides)
}

/// Beside `list`, which the reference's routers use too.
async fn beside_list(peers: &[Peer; 2], query: Query) -> [Side; 2] {
    in_turns(ROUNDS, async |which| {
        let query = query.clone();
        let (command, times) = match which {
            Which::Ours => (Command::Lookup { query, groups: GROUPS, records: 1 }, OURS[1]),
            Which::Reference => (Command::TimeList { query, times: 5 }, "nanos"),
        };
        let answer = of(peers, which).ask(command).await?;
        if answer["records"].as_u64() != Some(1) {
            return Err(format!("{} records in the place of 1", answer["records"]).into());
        }
        Ok(vec![median(&answer[times]).ok_or("no times")?])
    })
    .await
}

fn median(values: &Value) -> Option<f64> {
    let values: Vec<f64> = values.as_array()?.iter().filter_map(Value::as_f64).collect();
    quantile(&values, 0.5)
}
