//! An outage that is longer than the time to live: how long until the fleet is whole again.

use std::time::{Duration, Instant};

use discovery_core::{Discovery, Environment};
use serde_json::json;

use super::{Comparison, Goal, Measure, Side, in_turns, rows};
use crate::Outcome;
use crate::peer::{Peer, Which};
use crate::store::{ETCD_TTL, Store};

const WORK: &str = "an outage longer than the time to live";
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

pub(super) async fn measure() -> Vec<Comparison> {
    let recovery = declared_recovery().await;
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
        let on = format!("etcd {how} for {} s, {PROCESSES} processes", OUTAGE.as_secs());
        let (recovery, unknown) = match &recovery {
            Ok(recovery) => (*recovery, None),
            Err(error) => (0.0, Some(format!("our bound is not known: {error}"))),
        };
        let measure = |what: &str, unit, goal| {
            Measure::new(what, unit, goal).note(format!("time to live {ETCD_TTL} s on both sides; {note}"))
        };
        // Its processes end when their lease does, and nobody starts them again.
        let whole = Measure {
            reference_fails: true,
            ..measure("until every record is there again", "s", Goal::AtMost(recovery))
        };
        let exits = measure("processes that gave up", "", Goal::AtMost(0.0));
        let (times, gave_up) = match unknown {
            Some(error) => (Err(error.clone().into()), Err(error.into())),
            None => {
                let (times, gave_up) = in_rounds(left).await;
                (Ok(times), Ok(gave_up))
            }
        };
        comparisons.extend(rows(WORK, &on, vec![whole], times));
        comparisons.extend(rows(WORK, &on, vec![exits], gave_up));
    }
    comparisons
}

/// For each side the times until its fleet was whole, and how many processes had given up, which is known of a fleet that
/// was not whole again too.
async fn in_rounds(left: Left) -> ([Side; 2], [Side; 2]) {
    let mut gave_up: [Side; 2] = Default::default();
    let times = in_turns(ROUNDS, async |which| {
        let exits = &mut gave_up[usize::from(which == Which::Reference)];
        let (time, exited) = one(which, left).await.inspect_err(|error| exits.error = Some(error.to_string()))?;
        exits.add(Ok(vec![exited as f64]));
        Ok(vec![time?])
    })
    .await;
    (times, gave_up)
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
    let gave_up = || peers.iter().filter(|peer| peer.gave_up().is_some()).count();
    // What was stored is there until its leases end, which the server gives their whole time after a restart: who has
    // given up shows then.
    let mut whole_since = None;
    // A server that has just come back may refuse to answer for a moment.
    let mut last = Err("nothing was read".to_owned());
    while back.elapsed() < PATIENCE {
        last = there().await.map_err(|error| error.to_string());
        let whole = last == Ok(PROCESSES);
        whole_since = if whole { whole_since.or(Some(back.elapsed())) } else { None };
        let leases_ended = back.elapsed() > Duration::from_secs(2 * ETCD_TTL + 2);
        // Nobody is left who could write a record.
        let over = last == Ok(0) && gave_up() == PROCESSES;
        if leases_ended && (whole || over) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let figures = match (whole_since, last) {
        (Some(since), _) => Ok(since.as_secs_f64()),
        (None, Ok(left)) => {
            Err(format!("{left} of {PROCESSES} records are there after {:.0} s", back.elapsed().as_secs_f64()))
        }
        (None, Err(error)) => Err(format!("no records can be read: {error}")),
    };
    Ok((figures, gave_up()))
}
