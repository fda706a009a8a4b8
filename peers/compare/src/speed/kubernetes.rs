//! What pods cost: syncing a thousand of them, listing and looking up some, seeing a change among them, a hundred that only
//! register.

use std::time::{Duration, Instant};

use discovery_peer_protocol::{Command, Query, now};
use serde_json::{Value, json};

use super::list::timed;
use super::load::WORKERS;
use super::lookup::beside_the_client;
use super::result::quantile;
use super::{Comparison, Figures, Goal, in_turns, of};
use crate::Outcome;
use crate::peer::{Peer, Which};
use crate::store::Store;

const PODS: usize = 1_000;
const ROUNDS: usize = 3;
const CHANGES: usize = 60;
const APART: Duration = Duration::from_millis(50);
const PROCESSES: usize = 100;
const LISTS: usize = 20;

pub(super) async fn measure() -> Outcome<Vec<Comparison>> {
    let mut comparisons = registering().await?;
    let store = Store::kubernetes().await?;
    let Store::Kubernetes(pods) = &store else { return Err("no control plane".into()) };
    pods.crowd(PODS).await?;
    comparisons.extend(syncing(&store).await);
    let peers = [store.peer(Which::Ours).await?, store.peer(Which::Reference).await?];
    let pool = || Query::under("endpoint", &["bench", "pool-5", "generate"]);
    comparisons.extend(listing(&peers, pool()).await);
    let among = format!("Kubernetes, one of {WORKERS} workers among {PODS} pods");
    comparisons.extend(beside_the_client(&among, &peers, pool()).await);
    drop(peers);
    comparisons.extend(changing(&store).await);
    Ok(comparisons)
}

/// From the start of a process to its first complete state: the reference begins to read when it is made, and ours when
/// it is asked.
async fn syncing(store: &Store) -> Vec<Comparison> {
    let [ours, reference] = in_turns(ROUNDS, async |which| {
        let failed = |error: Box<dyn std::error::Error>| error.to_string();
        let place = store.place().await.map_err(failed)?;
        let began = Instant::now();
        let peer = store.peer_at(which, place).await.map_err(failed)?;
        let answer = peer.ask(Command::Watches { queries: vec![Query::under("endpoint", &["bench"])] }).await?;
        let time = began.elapsed();
        if answer["records"].as_u64() != Some(PODS as u64) {
            return Err(format!("{} records in the place of {PODS}", answer["records"]));
        }
        let usage = peer.usage().await?;
        Ok(vec![time.as_secs_f64() * 1e3, usage.processor as f64 / 1e6, usage.resident as f64 / 1e6])
    })
    .await;
    let measures = [
        ("time from the start of the process", "ms", Goal::NotMore),
        ("processor time of the process", "ms", Goal::None),
        ("resident memory of the process", "MB", Goal::None),
    ];
    rows("first sync", &format!("Kubernetes, {PODS} pods"), &measures, [ours, reference])
}

/// The reference answers from what its own watches have told it up to then.
async fn listing(peers: &[Peer; 2], query: Query) -> Vec<Comparison> {
    let [ours, reference] =
        in_turns(ROUNDS, async |which| timed(of(peers, which), query.clone(), LISTS).await.map(Vec::from)).await;
    let measures = [("time", "ms", Goal::None), ("processor time", "ms", Goal::None)];
    let what = format!("Kubernetes, {WORKERS} workers among {PODS} pods");
    let mut rows = rows("one fresh list of one endpoint's workers", &what, &measures, [ours, reference]);
    let note = "ours asks the API server, which has the last word; the reference answers from what it keeps";
    rows.iter_mut().for_each(|row| row.note = note.to_owned());
    rows
}

/// A process of ours changes its endpoint, and both look on, in turns.
async fn changing(store: &Store) -> Vec<Comparison> {
    let [ours, reference] = in_turns(ROUNDS, async |which| {
        let failed = |error: Box<dyn std::error::Error>| error.to_string();
        let writer = store.peer(Which::Ours).await.map_err(failed)?;
        let peer = store.peer(which).await.map_err(failed)?;
        let query = Query::under("endpoint", &["changing", "pool", "generate"]);
        let record = |told: u64| {
            json!({
                "type": "Endpoint", "namespace": "changing", "component": "pool", "endpoint": "generate",
                "transport": { "tcp": format!("10.0.0.1:9000/{told:020}") },
            })
        };
        writer.register("worker", &record(0)).await?;
        peer.ask(Command::Watches { queries: vec![query] }).await?;
        peer.ask(Command::Tally).await?;
        for _ in 0..CHANGES {
            writer.ask(Command::Update { name: "worker".to_owned(), record: record(now()) }).await?;
            tokio::time::sleep(APART).await;
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        let tally = peer.ask(Command::Tally).await?;
        let delays: Vec<f64> = tally["delays"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        writer.leave().await.map_err(failed)?;
        let part = |part: f64| quantile(&delays, part).ok_or("no change was seen").map(|delay| delay / 1e6);
        Ok(vec![part(0.5)?, part(0.99)?, delays.len() as f64])
    })
    .await;
    let measures = [
        ("median", "ms", Goal::NotMore),
        ("p99", "ms", Goal::NotMore),
        ("changes told: the others were overtaken", "", Goal::None),
    ];
    let what = format!("Kubernetes, {PODS} pods, {CHANGES} changes of one, {} ms apart", APART.as_millis());
    let mut rows = rows("a change seen by a watcher", &what, &measures, [ours, reference]);
    rows.iter_mut()
        .for_each(|row| row.note = "from the request to change it, the same process of ours for both".to_owned());
    rows
}

async fn registering() -> Outcome<Vec<Comparison>> {
    let mut sides = Vec::new();
    for which in Which::BOTH {
        let store = Store::kubernetes().await?;
        let Store::Kubernetes(pods) = &store else { return Err("no control plane".into()) };
        let mut places = Vec::new();
        for _ in 0..PROCESSES {
            places.push(store.place().await?);
        }
        // What the pods themselves cause has passed.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let before = pods.served().await?;
        let mut peers = Vec::new();
        for (number, place) in places.into_iter().enumerate() {
            let peer = store.peer_at(which, place).await?;
            let record = json!({
                "type": "Endpoint", "namespace": "bench", "component": "pool", "endpoint": "generate",
                "transport": { "tcp": format!("10.0.0.{number}:9000/generate") },
            });
            peer.register("endpoint", &record).await?;
            peers.push(peer);
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        let after = pods.served().await?;
        let grown = after.iter().zip(before).map(|(after, before)| Figures::Rounds(vec![after - before]));
        sides.push(grown.collect::<Vec<_>>());
    }
    let (reference, ours) = (sides.pop().ok_or("no figures")?, sides.pop().ok_or("no figures")?);
    let measures = [
        ("watches", "", Goal::AtMost(0.0)),
        ("requests", "", Goal::None),
        ("kB to clients", "kB", Goal::Times(5.0)),
        ("processor time of the API server", "ms", Goal::None),
    ];
    let work = format!("load on the server by {PROCESSES} registering processes");
    Ok(rows(&work, "Kubernetes, one endpoint each", &measures, [ours, reference]))
}

fn rows(work: &str, what: &str, measures: &[(&str, &str, Goal)], sides: [Vec<Figures>; 2]) -> Vec<Comparison> {
    let [ours, reference] = sides;
    // A side that failed has one column, which holds for all.
    let column = |side: &[Figures], at: usize| side.get(at).or(side.first()).cloned();
    let row = |(at, &(measure, unit, goal)): (usize, &(&str, &str, Goal))| {
        Some(Comparison {
            work: work.to_owned(),
            what: format!("{what}: {measure}"),
            unit: unit.to_owned(),
            goal,
            ours: column(&ours, at)?,
            reference: column(&reference, at)?,
            note: String::new(),
        })
    };
    measures.iter().enumerate().filter_map(row).collect()
}
