//! Processes: how they leave, die, idle and are replaced, seen by the other side.

use std::time::{Duration, Instant};

use discovery_peer_protocol::{Event, Query, name_of};
use serde_json::Value;

use super::pair::{Pair, SOON, gone, lists, removals, shown};
use super::{Finding, samples};
use crate::peer::{Peer, Which};
use crate::store::Store;

const WATCHED: [&str; 4] = ["endpoint", "model", "event_channel", "event_source"];

/// Everything that a process registered goes with it, at once.
pub(super) async fn leave(pair: &Pair<'_>) -> Result<Finding, String> {
    let (writer, reader) = pair.start().await?;
    let registered = one_of_each(&writer, &reader).await?;
    let failed = |error: Box<dyn std::error::Error>| error.to_string();
    let (began, pod) = (Instant::now(), writer.pod.clone());
    writer.leave().await.map_err(failed)?;
    if pair.acting == Which::Reference
        && let (Store::Kubernetes(pods), Some(pod)) = (pair.store, pod)
    {
        if gone(&reader, WATCHED[0], &name_of(&registered[0]), Duration::from_secs(3)).await.is_ok() {
            return Err("the reference withdrew a record by itself, which it was not known to do".to_owned());
        }
        let began = Instant::now();
        pods.bury(&pod).await.map_err(failed)?;
        for (kind, record) in WATCHED.iter().zip(&registered) {
            gone(&reader, kind, &name_of(record), SOON).await?;
        }
        return Ok(Finding::Differs(format!(
            "the reference withdraws nothing when it shuts down on Kubernetes: its records go with the pod's readiness, \
             {} after it",
            seconds(began)
        )));
    }
    for (kind, record) in WATCHED.iter().zip(&registered) {
        gone(&reader, kind, &name_of(record), SOON).await?;
    }
    Ok(Finding::Matches(format!("all four kinds gone after {}", seconds(began))))
}

/// Everything that a dead process registered goes within its time to live.
pub(super) async fn crash(pair: &Pair<'_>) -> Result<Finding, String> {
    let (writer, reader) = pair.start().await?;
    let registered = one_of_each(&writer, &reader).await?;
    let began = Instant::now();
    pair.store.crash(writer).await.map_err(|error| error.to_string())?;
    let within = Duration::from_secs(pair.store.expiry());
    for (kind, record) in WATCHED.iter().zip(&registered) {
        gone(&reader, kind, &name_of(record), within).await?;
        lists(&reader, Query::all(kind), &[]).await?;
    }
    Ok(Finding::Matches(format!("all four kinds gone after {}", seconds(began))))
}

/// The other side watches all kinds and sees one record of each.
async fn one_of_each(writer: &Peer, reader: &Peer) -> Result<Vec<Value>, String> {
    for kind in WATCHED {
        reader.watch(kind, Query::all(kind)).await?;
    }
    let samples = [
        samples::endpoints().remove(0),
        samples::base("backend"),
        samples::channels().remove(0),
        samples::sources().remove(0),
    ];
    let mut registered = Vec::new();
    for (kind, sample) in WATCHED.iter().zip(&samples) {
        let record = writer.register(kind, sample).await?;
        shown(reader, kind, &record).await?;
        registered.push(record);
    }
    Ok(registered)
}

/// What one side does not know does not disturb it, and is not disturbed by it.
pub(super) async fn own_kind(pair: &Pair<'_>) -> Result<Finding, String> {
    let ours = pair.peer(Which::Ours).await?;
    let reference = pair.peer(Which::Reference).await?;
    let gpu = ours.register("gpu", &samples::gpu("a100")).await?;
    let (writer, reader) = match pair.acting {
        Which::Ours => (&ours, &reference),
        Which::Reference => (&reference, &ours),
    };
    let registered = one_of_each(writer, reader).await?;
    ours.unregister("gpu").await?;
    let again = ours.register("gpu", &samples::gpu("a100")).await?;
    // Long enough for a sweep of the reference's on file.
    tokio::time::sleep(Duration::from_secs(12)).await;
    lives(reader)?;
    for (kind, record) in WATCHED.iter().zip(&registered) {
        lists(reader, Query::all(kind), std::slice::from_ref(record)).await?;
        if !removals(&reader.watched(kind)).is_empty() {
            return Err(format!("{} watching {kind} lost {:?}", reader.which.name(), removals(&reader.watched(kind))));
        }
    }
    let gpus = ours.list(Query::all("gpu")).await?;
    if gpu != again || gpus.values().ne([&again]) {
        return Err(format!("the user's own record is {gpus:?} in the place of {again}"));
    }
    Ok(Finding::Matches("four kinds and a fifth, none lost in 12 s".to_owned()))
}

/// Nobody expires what the other one keeps alive.
pub(super) async fn idle(pair: &Pair<'_>) -> Result<Finding, String> {
    let (writer, reader) = pair.start().await?;
    let theirs = one_of_each(&writer, &reader).await?;
    tokio::time::sleep(Duration::from_secs(25)).await;
    lives(&reader)?;
    for (kind, record) in WATCHED.iter().zip(&theirs) {
        let lost = removals(&reader.watched(kind));
        if !lost.is_empty() {
            return Err(format!("{} watching {kind} lost {lost:?}", reader.which.name()));
        }
        lists(&reader, Query::all(kind), std::slice::from_ref(record)).await?;
    }
    Ok(Finding::Matches("nothing was lost".to_owned()))
}

/// A watch that ended tells of no removal either.
fn lives(reader: &Peer) -> Result<(), String> {
    match reader.gave_up() {
        Some(why) => Err(format!("{} no longer looks on: {why}", reader.which.name())),
        None => Ok(()),
    }
}

const FLEET: usize = 6;

/// Every worker of one side is replaced by one of the other, one after the other, half of them by a crash.
pub(super) async fn replaced(pair: &Pair<'_>) -> Result<Finding, String> {
    let watchers = [pair.peer(Which::Ours).await?, pair.peer(Which::Reference).await?];
    for watcher in &watchers {
        watcher.watch("fleet", Query::under("endpoint", &["fleet", "backend", "generate"])).await?;
    }
    let mut alive: Vec<(Peer, Value)> = Vec::new();
    for number in 0..FLEET {
        alive.push(worker(pair, pair.looking, number).await?);
    }
    all_see(&watchers, &alive, SOON).await?;
    let mut departed = Vec::new();
    for number in 0..FLEET {
        alive.push(worker(pair, pair.acting, FLEET + number).await?);
        all_see(&watchers, &alive, SOON).await?;
        // Before the next one goes: a removal told while its worker lived is found, also of one that goes later.
        none_missed(pair, &watchers, &alive, &departed).await?;
        let (old, record) = alive.remove(0);
        departed.push(name_of(&record));
        let within = if number % 2 == 0 {
            pair.store.retire(old).await.map_err(|error| error.to_string())?;
            SOON
        } else {
            pair.store.crash(old).await.map_err(|error| error.to_string())?;
            Duration::from_secs(pair.store.expiry())
        };
        all_see(&watchers, &alive, within).await?;
    }
    none_missed(pair, &watchers, &alive, &departed).await?;
    for watcher in &watchers {
        let watched = watcher.watched("fleet");
        let told = removals(&watched);
        if let Some(name) = departed.iter().find(|name| told.iter().filter(|told| told == name).count() != 1) {
            return Err(format!("{} was not told once that {name} went: {told:?}", watcher.which.name()));
        }
        let resyncs = watched.log.iter().filter(|(_, event)| matches!(event, Event::State(_))).count();
        if resyncs > 0 {
            return Err(format!("{} had to start over {resyncs} times", watcher.which.name()));
        }
    }
    Ok(Finding::Matches(format!("{FLEET} workers, two watchers: nobody missing, nobody dead kept")))
}

/// Nobody was told that a worker went which has not.
async fn none_missed(
    pair: &Pair<'_>,
    watchers: &[Peer],
    alive: &[(Peer, Value)],
    departed: &[String],
) -> Result<(), String> {
    for watcher in watchers {
        let watched = watcher.watched("fleet");
        let missed: Vec<_> = removals(&watched).into_iter().filter(|name| !departed.contains(name)).collect();
        if !missed.is_empty() {
            let stored = pair.store.stored().await.map_err(|error| error.to_string())?;
            let ends: Vec<_> = alive.iter().map(|(peer, record)| (name_of(record), peer.gave_up())).collect();
            return Err(format!(
                "{} was told that {missed:?} went; the processes that should live say {ends:?}; stored are {:?}; its log \
                 is {:?}",
                watcher.which.name(),
                stored.keys(),
                watched.log
            ));
        }
    }
    Ok(())
}

async fn worker(pair: &Pair<'_>, which: Which, number: usize) -> Result<(Peer, Value), String> {
    let peer = pair.peer(which).await?;
    let record = peer.register("worker", &samples::worker(&format!("10.1.0.{number}:9000"))).await?;
    Ok((peer, record))
}

/// Waits until every watcher sees those alive and nobody else.
async fn all_see(watchers: &[Peer], alive: &[(Peer, Value)], within: Duration) -> Result<(), String> {
    let wanted = alive.iter().map(|(_, record)| (name_of(record), record.clone())).collect();
    for watcher in watchers {
        if !watcher.sees("fleet", within, |watched| watched.state == wanted).await {
            let seen = watcher.watched("fleet").state;
            return Err(format!(
                "{} sees {:?} in the place of {:?} after {} s",
                watcher.which.name(),
                seen.keys(),
                wanted.keys(),
                within.as_secs()
            ));
        }
    }
    Ok(())
}

fn seconds(began: Instant) -> String {
    format!("{:.1} s", began.elapsed().as_secs_f64())
}
