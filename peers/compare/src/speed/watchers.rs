//! 200 changes and 1,000 watchers of different endpoints: what they cost the process, and the server.

use std::time::{Duration, Instant};

use discovery_peer_protocol::{Command, Query};
use etcd_client::Client;

use super::load::{self, Spread};
use super::{Comparison, Figures, Goal, in_memory, in_memory_with, in_turns, of};
use crate::Outcome;
use crate::ours::SHARES_RUNTIME;
use crate::peer::{Peer, Which};
use crate::store::Store;

const ROUNDS: usize = 5;
const WATCHERS: usize = 1_000;
const CHANGES: usize = 200;
const PATIENCE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(250);

pub(super) async fn measure() -> Outcome<Vec<Comparison>> {
    let mut comparisons = on_memory().await?;
    comparisons.extend(on_etcd().await?);
    Ok(comparisons)
}

async fn on_memory() -> Outcome<Vec<Comparison>> {
    let shared = [(SHARES_RUNTIME, "1")];
    let watched = Pair::start(WATCHERS, &[]).await?;
    let unwatched = Pair::start(0, &[]).await?;
    // What a thread of its own costs: the reference has none.
    let sharing = Pair::start(WATCHERS, &shared).await?;
    let [ours, reference] = in_turns(ROUNDS, async |which| {
        let (all, alone) = (watched.churned(which).await?, unwatched.churned(which).await?);
        Ok(vec![all, alone, all - alone, sharing.churned(which).await?])
    })
    .await;
    let measures = [
        (
            "memory: processor time of the process, changes made by itself",
            Goal::Times(20.0),
            "the records are registered in the measured process, so the work of registering is in the figure",
        ),
        ("memory: the same without any watcher", Goal::None, ""),
        ("memory: what the watchers add", Goal::None, "round by round, the first figure less the second"),
        (
            "memory: the first, ours without a thread of its own",
            Goal::None,
            "ours on its caller's runtime, where the reference works too; ours has a thread of its own otherwise, so that a \
             caller that blocks its runtime loses no lease",
        ),
    ];
    let rows = measures.into_iter().zip(ours.into_iter().zip(reference));
    Ok(rows.map(|((what, goal, note), (ours, reference))| comparison(what, goal, ours, reference, note)).collect())
}

/// A process of each side that holds all records in its memory, and watches some of them.
struct Pair {
    peers: [Peer; 2],
    watchers: usize,
}

impl Pair {
    async fn start(watchers: usize, of_ours: &[(&str, &str)]) -> Outcome<Self> {
        let peers = [in_memory_with(Which::Ours, of_ours).await?, in_memory(Which::Reference).await?];
        for peer in &peers {
            peer.ask(Command::Fill { count: WATCHERS }).await?;
            peer.ask(Command::Watches { queries: queries().into_iter().take(watchers).collect() }).await?;
            // The first changes pay for what is prepared lazily.
            peer.ask(Command::Churn { count: CHANGES / 2 }).await?;
            settled(peer).await?;
        }
        Ok(Self { peers, watchers })
    }

    /// The processor time of the changes, in milliseconds. Each is a removal and an addition.
    async fn churned(&self, which: Which) -> Result<f64, String> {
        let peer = of(&self.peers, which);
        peer.ask(Command::Tally).await?;
        let before = peer.usage().await?.processor;
        peer.ask(Command::Churn { count: CHANGES / 2 }).await?;
        let after = settled(peer).await?;
        if self.watchers > 0 {
            told(peer, CHANGES / 2, CHANGES / 2).await?;
        }
        Ok((after - before) as f64 / 1e6)
    }
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
        told(&peer, CHANGES, 0).await?;
        settled(&peer).await?;
        let server = || load::processor(etcd).map_err(|error| error.to_string());
        let began = Instant::now();
        let (before, server_before) = (peer.usage().await?.processor, server()?);
        change(&mut client).await.map_err(|error| error.to_string())?;
        told(&peer, CHANGES, 0).await?;
        let (after, server_after) = (settled(&peer).await?, server()?);
        let watches = load::metric(etcd, "etcd_debugging_mvcc_watcher_total", "").await;
        let watches = watches.map_err(|error| error.to_string())?;
        let took = began.elapsed();
        drop(peer);
        // What the same changes cost the server when nobody watches, in the time that it took with the watchers.
        let unwatched = server()?;
        let began = Instant::now();
        change(&mut client).await.map_err(|error| error.to_string())?;
        tokio::time::sleep(took.saturating_sub(began.elapsed())).await;
        let (watched, alone) = ((server_after - server_before) * 1e3, (server()? - unwatched) * 1e3);
        Ok(vec![(after - before) as f64 / 1e6, watched, alone, watched - alone, watches])
    })
    .await;
    let measures = [
        ("etcd: processor time of the process", Goal::Times(20.0), ""),
        (
            "etcd: processor time of the server",
            Goal::Times(50.0),
            "counted by the kernel in hundredths of a second; the writing of the changes itself, the same for both, is in it",
        ),
        (
            "etcd: processor time of the server, the same without any watcher",
            Goal::None,
            "in the same time by the clock",
        ),
        (
            "etcd: what the watchers add to the server",
            Goal::None,
            "round by round, watched less unwatched; below 10 ms it is nothing that can be told",
        ),
        ("etcd: watches on the server", Goal::None, ""),
    ];
    let rows = measures.into_iter().zip(ours.into_iter().zip(reference));
    Ok(rows.map(|((what, goal, note), (ours, reference))| comparison(what, goal, ours, reference, note)).collect())
}

fn comparison(what: &str, goal: Goal, ours: Figures, reference: Figures, note: &str) -> Comparison {
    Comparison {
        work: format!("{CHANGES} changes, {WATCHERS} watchers of different endpoints"),
        what: what.to_owned(),
        unit: if what.ends_with("watches on the server") { "" } else { "ms" }.to_owned(),
        goal,
        ours,
        reference,
        note: note.to_owned(),
    }
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
    /// A machine that does other things may give it nothing for a while, though there is something to do.
    const QUIET: usize = 3;
    let mut last = peer.usage().await?.processor;
    let mut quiet = 0;
    while quiet < QUIET {
        tokio::time::sleep(PAUSE).await;
        let now = peer.usage().await?.processor;
        quiet = if now - last < IDLE { quiet + 1 } else { 0 };
        last = now;
    }
    Ok(last)
}

/// Waits until every change was seen by its watcher, once. A removal that an addition follows may be told as one update.
async fn told(peer: &Peer, puts: usize, removals: usize) -> Result<(), String> {
    let (mut seen, mut waited) = ([0; 2], Duration::ZERO);
    while seen[0] < puts as u64 && waited < PATIENCE {
        let tally = peer.ask(Command::Tally).await?;
        for (seen, name) in seen.iter_mut().zip(["puts", "removals"]) {
            *seen += tally[name].as_u64().unwrap_or_default();
        }
        tokio::time::sleep(PAUSE).await;
        waited += PAUSE;
    }
    if seen[0] == puts as u64 && seen[1] <= removals as u64 {
        return Ok(());
    }
    Err(format!("{} saw {seen:?} of {puts} additions and {removals} removals", peer.which.name()))
}
