//! An outage that is longer than the time to live: how long until the fleet is whole again.

use std::time::{Duration, Instant};

use discovery_core::{Discovery, Environment};
use serde_json::json;

use super::{Comparison, Figures, Goal};
use crate::Outcome;
use crate::peer::{Peer, Which};
use crate::store::{ETCD_TTL, Store};

const ROUNDS: usize = 2;
const PROCESSES: usize = 50;
const OUTAGE: Duration = Duration::from_secs(ETCD_TTL + 5);
/// How long the server is back before who is not is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the server still has when it is back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Left {
    /// All of it.
    Everything,
    /// No record and no lease.
    Nothing,
}

pub(super) async fn measure() -> Outcome<Vec<Comparison>> {
    let recovery = declared_recovery().await?;
    let mut comparisons = Vec::new();
    for (left, how, note) in [
        (
            Left::Everything,
            "down",
            "the server gives every lease its whole time again when it is back, so that what was stored is there at once: what \
             is told here is whether it stays",
        ),
        (Left::Nothing, "down and wiped", "every record has to be written again, under a new lease"),
    ] {
        let (mut figures, mut exits) = (Vec::new(), Vec::new());
        for which in Which::BOTH {
            let (whole, exited) = rounds(which, left).await?;
            figures.push(whole);
            exits.push(Figures::Rounds(exited));
        }
        let row = |what: &str, unit: &str, goal: Goal, figures: &mut Vec<Figures>| Comparison {
            work: "an outage longer than the time to live".to_owned(),
            what: format!("etcd {how} for {} s, {PROCESSES} processes: {what}", OUTAGE.as_secs()),
            unit: unit.to_owned(),
            goal,
            ours: figures.remove(0),
            reference: figures.remove(0),
            note: format!("time to live {ETCD_TTL} s on both sides; {note}"),
        };
        comparisons.push(row("until every record is there again", "s", Goal::AtMost(recovery), &mut figures));
        comparisons.push(row("processes that gave up", "", Goal::AtMost(0.0), &mut exits));
    }
    Ok(comparisons)
}

/// A side that fails once is not asked again.
async fn rounds(which: Which, left: Left) -> Outcome<(Figures, Vec<f64>)> {
    let (mut times, mut exits) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (time, exited) = one(which, left).await?;
        exits.push(exited as f64);
        match time {
            Ok(time) => times.push(time),
            Err(error) => return Ok((Figures::Fails(error), exits)),
        }
    }
    Ok((Figures::Rounds(times), exits))
}

/// R, the bound that this project's backend declares, in seconds.
async fn declared_recovery() -> Outcome<f64> {
    // It connects with its first operation, and there is none.
    let nowhere = Environment::default().with(discovery_etcd::ENDPOINTS_VARIABLE, "http://127.0.0.1:9");
    let discovery = Discovery::builder().environment(nowhere).backend(discovery_etcd::NAME).build().await?;
    Ok(discovery.bounds().recovery.as_secs_f64())
}

/// Seconds until the fleet is whole, or what is missing, and how many processes have given up.
async fn one(which: Which, left: Left) -> Outcome<(Result<f64, String>, usize)> {
    let store = Store::etcd().await?;
    let Store::Etcd(etcd) = &store else { return Err("no etcd".into()) };
    let mut peers: Vec<Peer> = Vec::new();
    for number in 0..PROCESSES {
        let peer = store.peer(which).await?;
        let record = json!({
            "type": "Endpoint", "namespace": "bench", "component": "pool", "endpoint": "generate",
            "transport": { "tcp": format!("10.0.0.{number}:9000") },
        });
        peer.register("worker", &record).await?;
        peers.push(peer);
    }
    let there = async || -> Outcome<usize> {
        Ok(store.stored().await?.keys().filter(|name| name.starts_with("v1/instances/")).count())
    };
    if there().await? != PROCESSES {
        return Err("the fleet is not whole at the beginning".into());
    }
    etcd.kill().await?;
    tokio::time::sleep(OUTAGE).await;
    match left {
        Left::Everything => {
            etcd.launch()?;
            etcd.wait().await?;
        }
        Left::Nothing => etcd.wipe().await?,
    }
    let back = Instant::now();
    // What was stored is there until its leases end, which the server gives their whole time after a restart: who has
    // given up shows then.
    let mut whole_since = None;
    while back.elapsed() < PATIENCE {
        let whole = there().await? == PROCESSES;
        whole_since = if whole { whole_since.or(Some(back.elapsed())) } else { None };
        let leases_ended = back.elapsed() > Duration::from_secs(2 * ETCD_TTL + 2);
        if whole && leases_ended {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let exited = peers.iter().filter(|peer| peer.gave_up().is_some()).count();
    let figures = match whole_since {
        Some(since) => Ok(since.as_secs_f64()),
        None => {
            let left = there().await?;
            Err(format!("{left} of {PROCESSES} records are there after {} s", PATIENCE.as_secs()))
        }
    };
    Ok((figures, exited))
}
