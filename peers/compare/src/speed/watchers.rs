//! 200 changes and 1,000 watchers of different endpoints: what they cost the process, and the server.

use std::time::Duration;

use discovery_peer_protocol::{Command, Query};
use etcd_client::Client;

use super::load::{self, Spread};
use super::{Comparison, Figures, Goal, in_memory, in_turns};
use crate::Outcome;
use crate::peer::{Peer, Which};
use crate::store::Store;

const ROUNDS: usize = 5;
const WATCHERS: usize = 1_000;
const CHANGES: usize = 200;

pub(super) async fn measure() -> Outcome<Vec<Comparison>> {
    let mut comparisons = on_memory().await?;
    comparisons.extend(on_etcd().await?);
    Ok(comparisons)
}

async fn on_memory() -> Outcome<Vec<Comparison>> {
    let peers = [in_memory(Which::Ours).await?, in_memory(Which::Reference).await?];
    for peer in &peers {
        peer.ask(Command::Fill { count: WATCHERS }).await?;
        peer.ask(Command::Watches { queries: queries() }).await?;
        // The first changes pay for what is prepared lazily.
        peer.ask(Command::Churn { count: CHANGES / 2 }).await?;
        settled(peer).await?;
    }
    let [mut ours, mut reference] = in_turns(ROUNDS, async |which| {
        let peer = of(&peers, which);
        peer.ask(Command::Tally).await?;
        let before = peer.usage().await?.processor;
        // Each is a removal and an addition.
        peer.ask(Command::Churn { count: CHANGES / 2 }).await?;
        let after = settled(peer).await?;
        told(peer, CHANGES / 2, CHANGES / 2).await?;
        Ok(vec![(after - before) as f64 / 1e6])
    })
    .await;
    Ok(vec![comparison(
        "memory: processor time of the process, changes made by itself",
        Goal::Times(20.0),
        ours.remove(0),
        reference.remove(0),
        "the records are registered in the measured process, so its own registrations are in the figure",
    )])
}

async fn on_etcd() -> Outcome<Vec<Comparison>> {
    let store = Store::etcd().await?;
    let Store::Etcd(etcd) = &store else { return Err("no etcd".into()) };
    load::load(etcd, Spread::Single, WATCHERS).await?;
    let mut client = load::client(etcd).await?;
    let [ours, reference] = in_turns(ROUNDS, async |which| {
        // Alone on the server, whose processor time is then this side's doing.
        let peer = store.peer(which).await.map_err(|error| error.to_string())?;
        peer.ask(Command::Watches { queries: queries() }).await?;
        change(&mut client).await.map_err(|error| error.to_string())?;
        settled(&peer).await?;
        peer.ask(Command::Tally).await?;
        let server = || load::processor(etcd).map_err(|error| error.to_string());
        let (before, server_before) = (peer.usage().await?.processor, server()?);
        change(&mut client).await.map_err(|error| error.to_string())?;
        let (after, server_after) = (settled(&peer).await?, server()?);
        told(&peer, CHANGES, 0).await?;
        let watches = load::metric(etcd, "etcd_debugging_mvcc_watcher_total", "").await;
        let watches = watches.map_err(|error| error.to_string())?;
        Ok(vec![(after - before) as f64 / 1e6, (server_after - server_before) * 1e3, watches])
    })
    .await;
    let measures = [
        ("etcd: processor time of the process", Goal::Times(20.0), ""),
        (
            "etcd: processor time of the server",
            Goal::Times(50.0),
            "counted by the kernel in hundredths of a second; the writing of the changes itself, the same for both, is in it",
        ),
        ("etcd: watches on the server (a count, not ms)", Goal::None, ""),
    ];
    let rows = measures.into_iter().zip(ours.into_iter().zip(reference));
    Ok(rows.map(|((what, goal, note), (ours, reference))| comparison(what, goal, ours, reference, note)).collect())
}

fn comparison(what: &str, goal: Goal, ours: Figures, reference: Figures, note: &str) -> Comparison {
    Comparison {
        work: format!("{CHANGES} changes, {WATCHERS} watchers of different endpoints"),
        what: what.to_owned(),
        unit: "ms".to_owned(),
        goal,
        ours,
        reference,
        note: note.to_owned(),
    }
}

fn of(peers: &[Peer; 2], which: Which) -> &Peer {
    if which == Which::Ours { &peers[0] } else { &peers[1] }
}

fn queries() -> Vec<Query> {
    (0..WATCHERS).map(|number| Spread::Single.query(number)).collect()
}

/// Changes so many endpoints, one after the other.
async fn change(client: &mut Client) -> Outcome {
    for number in 0..CHANGES {
        let (key, value) = Spread::Single.stored(number * (WATCHERS / CHANGES))?;
        client.put(key, value, None).await?;
    }
    Ok(())
}

/// Waits until the process has nothing more to do; answers the processor time that it has used.
async fn settled(peer: &Peer) -> Result<u64, String> {
    const PAUSE: Duration = Duration::from_millis(500);
    /// Half a percent of a processor.
    const IDLE: u64 = 2_500_000;
    let mut last = peer.usage().await?.processor;
    loop {
        tokio::time::sleep(PAUSE).await;
        let now = peer.usage().await?.processor;
        if now - last < IDLE {
            return Ok(now);
        }
        last = now;
    }
}

/// Checks that every change was seen by its watcher, once. A removal that an addition follows may be told as one update.
async fn told(peer: &Peer, puts: usize, removals: usize) -> Result<(), String> {
    let tally = peer.ask(Command::Tally).await?;
    let seen = [&tally["puts"], &tally["removals"]].map(|count| count.as_u64().unwrap_or_default());
    if seen[0] == puts as u64 && seen[1] <= removals as u64 {
        return Ok(());
    }
    Err(format!("{} saw {seen:?} of {puts} additions and {removals} removals", peer.which.name()))
}
