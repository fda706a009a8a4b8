//! What pods cost: syncing a thousand of them, listing and looking up some, seeing a change among them, a hundred that only
//! register.

use std::time::{Duration, Instant};

use discovery_peer_protocol::{Command, Query, now};
use serde_json::{Value, json};

use super::list::timed;
use super::load::WORKERS;
use super::lookup::{beside_the_client, lines};
use super::result::quantile;
use super::{Comparison, Goal, Measure, PATIENCE, Side, in_turns, of, rows};
use crate::Outcome;
use crate::peer::{Peer, Which};
use crate::store::Store;

const PODS: usize = 1_000;
const ROUNDS: usize = 3;
/// Of changes, whose times spread most.
const CHANGE_ROUNDS: usize = 5;
/// The first ones pay for what is prepared lazily.
const WARM_UP: usize = 20;
const CHANGES: usize = 100;
const APART: Duration = Duration::from_millis(50);
const PROCESSES: usize = 100;
const IDLE: Duration = Duration::from_secs(20);
const LISTS: usize = 20;

pub(super) async fn measure() -> Vec<Comparison> {
    let mut comparisons = of_registering(registering().await);
    let measured = among_pods().await;
    // Each part of it that was reached has its own sides; without a control plane none has.
    let why = measured.error;
    let sides = |part: Option<Outcome<[Side; 2]>>| {
        part.unwrap_or_else(|| Err(why.clone().unwrap_or_else(|| "it was not reached".to_owned()).into()))
    };
    let empty = sides(measured.empty);
    comparisons.extend(of_syncing("Kubernetes, no pods", Goal::None, empty));
    comparisons.extend(of_syncing(&format!("Kubernetes, {PODS} pods"), Goal::NotMore, sides(measured.full)));
    comparisons.extend(of_listing(sides(measured.lists)));
    let among = format!("Kubernetes, one of {WORKERS} workers among {PODS} pods");
    comparisons.extend(lines(&among, false, sides(measured.lookups)));
    comparisons.extend(of_changing(sides(measured.changes)));
    comparisons
}

/// What is measured in one namespace, as far as it came.
#[derive(Default)]
struct Among {
    empty: Option<Outcome<[Side; 2]>>,
    full: Option<Outcome<[Side; 2]>>,
    lists: Option<Outcome<[Side; 2]>>,
    lookups: Option<Outcome<[Side; 2]>>,
    changes: Option<Outcome<[Side; 2]>>,
    error: Option<String>,
}

async fn among_pods() -> Among {
    let mut measured = Among::default();
    if let Err(error) = measured.fill().await {
        measured.error = Some(error.to_string());
    }
    measured
}

impl Among {
    async fn fill(&mut self) -> Outcome {
        let store = Store::kubernetes().await?;
        let Store::Kubernetes(pods) = &store else { return Err("no control plane".into()) };
        self.empty = Some(Ok(syncing(&store, 0).await));
        pods.crowd(PODS).await?;
        self.full = Some(Ok(syncing(&store, PODS).await));
        let pool = || Query::under("endpoint", &["bench", "pool-5", "generate"]);
        match both(&store).await {
            Ok(peers) => {
                let list = async |which| Ok(timed(of(&peers, which), pool(), LISTS).await?.into());
                self.lists = Some(Ok(in_turns(ROUNDS, list).await));
                self.lookups = Some(Ok(beside_the_client(&peers, pool(), WORKERS).await));
            }
            Err(error) => {
                self.lists = Some(Err(error.to_string().into()));
                self.lookups = Some(Err(error));
            }
        }
        self.changes = Some(Ok(in_turns(CHANGE_ROUNDS, async |which| changing(&store, which).await).await));
        Ok(())
    }
}

async fn both(store: &Store) -> Outcome<[Peer; 2]> {
    Ok([store.peer(Which::Ours).await?, store.peer(Which::Reference).await?])
}

/// From the start of a process to its first complete state: the reference begins to read when it is made, and ours when
/// it is asked.
async fn syncing(store: &Store, count: usize) -> [Side; 2] {
    in_turns(ROUNDS, async |which| {
        let place = store.place().await?;
        let began = Instant::now();
        let peer = store.peer_at(which, place).await?;
        let answer = peer.ask(Command::Watches { queries: vec![Query::under("endpoint", &["bench"])] }).await?;
        let time = began.elapsed();
        if answer["records"].as_u64() != Some(count as u64) {
            return Err(format!("{} records in the place of {count}", answer["records"]).into());
        }
        let usage = peer.usage().await?;
        Ok(vec![time.as_secs_f64() * 1e3, usage.processor as f64 / 1e6, usage.resident as f64 / 1e6])
    })
    .await
}

fn of_syncing(on: &str, time: Goal, sides: Outcome<[Side; 2]>) -> Vec<Comparison> {
    let note = "the reference begins to read when its process starts, and ours when it is asked: with no pods it is what a \
                process takes to start";
    let measures = vec![
        Measure::new("time from the start of the process", "ms", time).note(note),
        Measure::new("processor time of the process", "ms", Goal::None),
        Measure::new("resident memory of the process", "MB", Goal::None),
    ];
    rows("first sync", on, measures, sides)
}

fn of_listing(sides: Outcome<[Side; 2]>) -> Vec<Comparison> {
    let note =
        "ours asks the API server, which has the last word; the reference answers from what its watches have told it";
    let measures = ["time", "processor time"].map(|what| Measure::new(what, "ms", Goal::None).note(note));
    let on = format!("Kubernetes, {WORKERS} workers among {PODS} pods");
    rows("one fresh list of one endpoint's workers", &on, measures.into(), sides)
}

/// A process of ours changes its endpoint, and this side looks on.
async fn changing(store: &Store, which: Which) -> Outcome<Vec<f64>> {
    let writer = store.peer(Which::Ours).await?;
    let peer = store.peer(which).await?;
    let query = Query::under("endpoint", &["changing", "pool", "generate"]);
    let record = |told: u64| {
        json!({
            "type": "Endpoint", "namespace": "changing", "component": "pool", "endpoint": "generate",
            "transport": { "tcp": format!("10.0.0.1:9000/{told:020}") },
        })
    };
    writer.register("worker", &record(0)).await?;
    peer.ask(Command::Watches { queries: vec![query] }).await?;
    let change = async |changes: usize| -> Outcome<Vec<f64>> {
        peer.ask(Command::Tally).await?;
        for _ in 0..changes {
            writer.ask(Command::Update { name: "worker".to_owned(), record: record(now()) }).await?;
            tokio::time::sleep(APART).await;
        }
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut delays: Vec<f64> = Vec::new();
        while delays.len() < changes && Instant::now() < deadline {
            let tally = peer.ask(Command::Tally).await?;
            delays.extend(tally["delays"].as_array().into_iter().flatten().filter_map(Value::as_f64));
            tokio::time::sleep(APART).await;
        }
        if delays.len() == changes {
            return Ok(delays);
        }
        Err(format!("{} of {changes} changes were told of", delays.len()).into())
    };
    change(WARM_UP).await?;
    let delays = change(CHANGES).await?;
    writer.leave().await?;
    let part = |part: f64| quantile(&delays, part).ok_or("no change was seen").map(|delay| delay / 1e6);
    Ok(vec![part(0.5)?, part(0.99)?])
}

fn of_changing(sides: Outcome<[Side; 2]>) -> Vec<Comparison> {
    let note = "from the request to change it, the same process of ours for both";
    let measures = ["median", "p99"].map(|what| Measure::new(what, "ms", Goal::NotMore).note(note));
    let on = format!("Kubernetes, {PODS} pods, {CHANGES} changes of one, {} ms apart", APART.as_millis());
    rows("a change seen by a watcher", &on, measures.into(), sides)
}

async fn registering() -> Outcome<[Side; 2]> {
    let store = Store::kubernetes().await?;
    let Store::Kubernetes(pods) = &store else { return Err("no control plane".into()) };
    let mut places = Vec::new();
    for _ in 0..PROCESSES {
        places.push(store.place().await?);
    }
    let round = async |which| {
        // The pods stay what they are; what the processes of the round before left in them, and their watches, go.
        pods.forget().await?;
        let before = pods.quiet(PATIENCE).await?;
        let mut peers = Vec::new();
        for (number, place) in places.iter().enumerate() {
            let peer = store.peer_at(which, place.clone()).await?;
            let record = json!({
                "type": "Endpoint", "namespace": "bench", "component": "pool", "endpoint": "generate",
                "transport": { "tcp": format!("10.0.0.{number}:9000/generate") },
            });
            peer.register("endpoint", &record).await?;
            peers.push(peer);
        }
        // What the last ones cause has passed.
        tokio::time::sleep(Duration::from_secs(3)).await;
        let registered = pods.served().await?;
        tokio::time::sleep(IDLE).await;
        let idled = pods.served().await?;
        let grown = registered.iter().zip(before).map(|(after, before)| after - before);
        // Requests and kB: what is open is what it was, and the server's own time has much else in it.
        Ok(grown.chain([idled[1] - registered[1], idled[2] - registered[2]]).collect())
    };
    Ok(in_turns(ROUNDS, round).await)
}

fn of_registering(sides: Outcome<[Side; 2]>) -> Vec<Comparison> {
    let note = "counted by the server: its own metrics, for the two kinds of resource that discovery reads";
    let measures = vec![
        Measure::new("watches", "", Goal::AtMost(0.0)).note(note),
        Measure::new("requests to register", "", Goal::None).note(note),
        Measure::new("kB to clients, to register", "kB", Goal::Times(5.0)).note(note),
        Measure::new("processor time of the API server, to register", "ms", Goal::None),
        Measure::new("requests in 20 s of idling", "", Goal::None).note(note),
        Measure::new("kB to clients in 20 s of idling", "kB", Goal::None).note(note),
    ];
    let work = format!("load on the server by {PROCESSES} registering processes");
    rows(&work, "Kubernetes, one endpoint each", measures, sides)
}
