//! 200 changes and 1,000 watchers of different endpoints: what they cost the process, and the server.

use std::time::{Duration, Instant};

use discovery_peer_protocol::{Command, Query};
use etcd_client::Client;

use super::load::{self, Spread};
use super::{Comparison, Goal, Measure, PATIENCE, Side, in_memory, in_memory_with, in_turns, of, rows};
use crate::Outcome;
use crate::ours::SHARES_RUNTIME;
use crate::peer::{Peer, Which};
use crate::store::Store;

const ROUNDS: usize = 5;
const WATCHERS: usize = 1_000;
const CHANGES: usize = 200;
const PAUSE: Duration = Duration::from_millis(250);
const TEAR_DOWN: Duration = Duration::from_secs(1);

pub(super) async fn measure() -> Vec<Comparison> {
    let work = format!("{CHANGES} changes, {WATCHERS} watchers of different endpoints");
    let millis = |what: &str, goal, note: &str| Measure::new(what, "ms", goal).note(note);
    let measures = vec![
        millis(
            "processor time of the process, changes made by itself",
            Goal::Times(20.0),
            "the records are registered in the measured process, so the work of registering is in the figure",
        ),
        millis("the same time by the clock without any change", Goal::None, "watched as before"),
        millis("the same without any watcher", Goal::None, ""),
        millis("what the watchers add", Goal::None, "round by round, watched less unwatched"),
        millis(
            "the first, ours without a thread of its own",
            Goal::None,
            "ours on its caller's runtime, where the reference works too; ours has a thread of its own otherwise, so that a \
             caller that blocks its runtime loses no lease",
        ),
    ];
    let mut comparisons = rows(&work, "memory", measures, on_memory().await);
    let measures = vec![
        millis("processor time of the process", Goal::Times(20.0), ""),
        millis("processor time of the process, the same time by the clock without any change", Goal::None, ""),
        millis(
            "processor time of the server, less what it takes idle",
            Goal::Times(50.0),
            "round by round, for both sides alike: with the changes less the same time by the clock with the same watchers and \
             without any change; the writing of the changes itself, the same for both, is in it",
        ),
        millis("processor time of the server, idling included", Goal::None, ""),
        millis("processor time of the server, the same time by the clock without any change", Goal::None, ""),
        millis(
            "processor time of the server, the same changes without any watcher",
            Goal::None,
            "in the same time by the clock, idling included",
        ),
        millis("what the watchers add to the server", Goal::None, "round by round, watched less unwatched"),
        Measure::new("watches on the server", "", Goal::None),
    ];
    comparisons.extend(rows(&work, "etcd", measures, on_etcd().await));
    comparisons
}

async fn on_memory() -> Outcome<[Side; 2]> {
    let shared = [(SHARES_RUNTIME, "1")];
    let watched = Pair::start(WATCHERS, &[]).await?;
    let unwatched = Pair::start(0, &[]).await?;
    // What a thread of its own costs: the reference has none.
    let sharing = Pair::start(WATCHERS, &shared).await?;
    let round = async |which| {
        let ((all, took), (alone, _)) = (watched.churned(which).await?, unwatched.churned(which).await?);
        let idle = idled(of(&watched.peers, which), took).await?;
        Ok(vec![all, idle, alone, all - alone, sharing.churned(which).await?.0])
    };
    Ok(in_turns(ROUNDS, round).await)
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

    /// The processor time of the changes, in milliseconds, and how long it was watched. Each is a removal and an addition.
    async fn churned(&self, which: Which) -> Outcome<(f64, Duration)> {
        let peer = of(&self.peers, which);
        peer.ask(Command::Tally).await?;
        let (began, before) = (Instant::now(), peer.usage().await?.processor);
        peer.ask(Command::Churn { count: CHANGES / 2 }).await?;
        let after = settled(peer).await?;
        let took = began.elapsed();
        if self.watchers > 0 {
            told(peer, CHANGES / 2, CHANGES / 2).await?;
        }
        Ok(((after - before) as f64 / 1e6, took))
    }
}

/// The processor time of a process that is left alone for a while, in milliseconds.
async fn idled(peer: &Peer, time: Duration) -> Outcome<f64> {
    let before = peer.usage().await?.processor;
    tokio::time::sleep(time).await;
    Ok((peer.usage().await?.processor - before) as f64 / 1e6)
}

async fn on_etcd() -> Outcome<[Side; 2]> {
    let store = Store::etcd().await?;
    let Store::Etcd(etcd) = &store else { return Err("no etcd".into()) };
    load::load(etcd, Spread::Single, WATCHERS).await?;
    let mut client = load::client(etcd).await?;
    let round = async |which| {
        // Alone on the server, whose processor time is then this side's doing.
        let peer = store.peer(which).await?;
        peer.ask(Command::Watches { queries: queries() }).await?;
        change(&mut client).await?;
        told(&peer, CHANGES, 0).await?;
        settled(&peer).await?;
        let server = || load::processor(etcd);
        let (began, before, server_before) = (Instant::now(), peer.usage().await?.processor, server()?);
        change(&mut client).await?;
        told(&peer, CHANGES, 0).await?;
        let process = (settled(&peer).await? - before) as f64 / 1e6;
        let watched = server()? - server_before;
        let took = began.elapsed();

        let server_before = server()?;
        let process_idle = idled(&peer, took).await?;
        let idle = server()? - server_before;

        let watches = load::metric(etcd, "etcd_debugging_mvcc_watcher_total").await?;
        drop(peer);
        // The server takes down the watches of a client that is gone.
        tokio::time::sleep(TEAR_DOWN).await;
        // What the same changes cost the server when nobody watches, in the time that it took with the watchers.
        let (began, server_before) = (Instant::now(), server()?);
        change(&mut client).await?;
        tokio::time::sleep(took.saturating_sub(began.elapsed())).await;
        let alone = server()? - server_before;
        Ok(vec![process, process_idle, watched - idle, watched, idle, alone, watched - alone, watches])
    };
    Ok(in_turns(ROUNDS, round).await)
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
async fn settled(peer: &Peer) -> Outcome<u64> {
    const PAUSE: Duration = Duration::from_millis(500);
    /// Half a percent of a processor.
    const IDLE: u64 = 2_500_000;
    /// A machine that does other things may give it nothing for a while, though there is something to do.
    const QUIET: usize = 3;
    let deadline = Instant::now() + PATIENCE;
    let mut last = peer.usage().await?.processor;
    let mut quiet = 0;
    while quiet < QUIET {
        if Instant::now() > deadline {
            return Err(format!("{} is still busy after {} s", peer.which.name(), PATIENCE.as_secs()).into());
        }
        tokio::time::sleep(PAUSE).await;
        let now = peer.usage().await?.processor;
        quiet = if now - last < IDLE { quiet + 1 } else { 0 };
        last = now;
    }
    Ok(last)
}

/// Waits until every change was seen by its watcher, once. A removal that an addition follows may be told as one update.
async fn told(peer: &Peer, puts: usize, removals: usize) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    let mut seen = [0; 2];
    while seen[0] < puts as u64 && Instant::now() < deadline {
        let tally = peer.ask(Command::Tally).await?;
        for (seen, name) in seen.iter_mut().zip(["puts", "removals"]) {
            *seen += tally[name].as_u64().unwrap_or_default();
        }
        tokio::time::sleep(PAUSE).await;
    }
    if seen[0] == puts as u64 && seen[1] <= removals as u64 {
        return Ok(());
    }
    Err(format!("{} saw {seen:?} of {puts} additions and {removals} removals", peer.which.name()).into())
}
