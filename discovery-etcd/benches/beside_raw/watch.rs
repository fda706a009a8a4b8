//! From a write to whoever watches: latency and processor time.

use std::collections::HashMap;
use std::time::Duration;

use discovery_core::{ExecutorKind, ViewChange};
use discovery_dynamo::Endpoint;
use discovery_testbed::Etcd;
use discovery_testbed::sides::{self, Side, beside, measured, micros, quantile, ready, report};
use etcd_client::{EventType, WatchOptions};

use crate::records::{PREFIX, all, discovery_on, told};
use crate::{Outcome, raw as direct};

const ROUNDS: usize = 7;

/// How many endpoints change, in turn.
const ENDPOINTS: usize = 100;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// The next change is written a millisecond after the answer to the one before.
    OneByOne,
    /// Sixty-four writes are on their way at any time.
    Burst,
}

/// Both sides on one thread, as a client in a program of its own is; and both with the consumer on another thread than the
/// connection, so that a consumer that blocks delays no renewal, as ours is by default.
const SIDES: [&str; 4] = ["watch-raw", "watch-view-shared", "watch-raw-apart", "watch-view"];

pub(crate) async fn compare(etcd: &Etcd, name: &str, pace: Pace) -> Outcome {
    let client = direct::client(&etcd.endpoint()).await?;
    direct::load(&client, ENDPOINTS + 1).await?;
    let changes = if pace == Pace::Burst { 20_000 } else { 1_000 };
    let mut rounds = Vec::new();
    // The first round warms the server up.
    for round in 0..=ROUNDS {
        let mut results = Vec::new();
        for side in SIDES {
            let side = Side::start(side, &[&etcd.endpoint(), &changes.to_string()]).await?;
            let numbers = (0..changes).map(|change| change % ENDPOINTS);
            match pace {
                Pace::Burst => direct::put(&client, numbers, 64).await?,
                Pace::OneByOne => {
                    for number in numbers {
                        direct::put(&client, std::iter::once(number), 1).await?;
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
            }
            // What ends the round. Other changes may have been taken together.
            direct::put(&client, std::iter::once(ENDPOINTS), 1).await?;
            results.push(side.end().await?);
        }
        if round > 0 {
            rounds.push(results);
        }
    }
    for (threads, raw, ours) in [("one thread", 0, 1), ("a thread apart", 2, 3)] {
        let pairs =
            |figure: usize| rounds.iter().map(|round| (round[raw][figure], round[ours][figure])).collect::<Vec<_>>();
        if pace == Pace::OneByOne {
            let halves = pairs(0);
            beside(&format!("{name}/{threads}/median"), "us", &halves);
            report(
                &format!("{name}/{threads}/median/ours less raw"),
                "us",
                halves.iter().map(|(raw, ours)| ours - raw),
            );
            beside(&format!("{name}/{threads}/p99"), "us", &pairs(1));
        }
        beside(&format!("{name}/{threads}/processor per change"), "us", &pairs(2));
    }
    Ok(())
}

/// Collects what a watcher measures until it sees the endpoint that ends a round.
struct Meter {
    count: usize,
    latencies: Vec<f64>,
    before: Duration,
}

impl Meter {
    fn start(count: usize) -> Self {
        // Read first: on a busy machine the changes are there before this thread goes on.
        let before = sides::processor();
        ready();
        Self { count, latencies: Vec::with_capacity(count), before }
    }

    /// Takes note of one version of an endpoint, and answers whether it is the one that ends the round.
    fn is_last(&mut self, told: Duration, name: &str) -> bool {
        self.latencies.push(micros(sides::now() - told));
        name.ends_with(&format!("/generate-{ENDPOINTS}"))
    }

    fn end(self) {
        let cost = micros(sides::processor() - self.before) / self.count as f64;
        measured(&[quantile(&self.latencies, 0.5), quantile(&self.latencies, 0.99), cost]);
    }
}

/// What the watch of a client without this backend tells, kept decoded in a map.
struct Raw {
    stream: etcd_client::WatchStream,
    known: HashMap<Vec<u8>, Endpoint>,
}

impl Raw {
    async fn open(endpoint: &str) -> Outcome<Self> {
        let mut client = direct::client(endpoint).await?;
        let mut stream = client.watch(PREFIX, Some(WatchOptions::new().with_prefix())).await?;
        // The server's word that the watch is there.
        stream.message().await?;
        Ok(Self { stream, known: HashMap::new() })
    }

    /// Shows each changed endpoint, with its key, until it is told that this was the last.
    async fn follow(&mut self, mut show: impl FnMut(&str, &Endpoint) -> bool) -> Outcome {
        while let Some(message) = self.stream.message().await? {
            for event in message.events() {
                let Some(record) = event.kv() else { continue };
                if event.event_type() == EventType::Delete {
                    self.known.remove(record.key());
                    continue;
                }
                let endpoint: Endpoint = serde_json::from_slice(record.value())?;
                let last = show(record.key_str()?, &endpoint);
                self.known.insert(record.key().to_vec(), endpoint);
                if last {
                    return Ok(());
                }
            }
        }
        Err("the watch ended".into())
    }
}

fn path_of(key: &str) -> &str {
    key.rsplit_once('/').map_or("", |(path, _)| path)
}

/// The map and the watch on the consumer's thread.
pub(crate) async fn raw(endpoint: &str, count: usize) -> Outcome {
    let mut raw = Raw::open(endpoint).await?;
    let mut meter = Meter::start(count);
    raw.follow(|key, endpoint| meter.is_last(told(endpoint), path_of(key))).await?;
    meter.end();
    Ok(())
}

/// The map and the watch on a thread of their own, which hands each change on.
pub(crate) async fn raw_apart(endpoint: &str, count: usize) -> Outcome {
    let (changed, mut changes) = tokio::sync::mpsc::unbounded_channel();
    let endpoint = endpoint.to_owned();
    let watching = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let followed = runtime.block_on(async {
            let mut raw = Raw::open(&endpoint).await?;
            let _ = changed.send(None);
            // The consumer hangs up after the last.
            raw.follow(|key, endpoint| changed.send(Some((path_of(key).to_owned(), endpoint.clone()))).is_err()).await
        });
        followed.map_err(|error| error.to_string())
    });
    changes.recv().await.ok_or("the watch ended")?;
    let mut meter = Meter::start(count);
    while let Some(Some((path, endpoint))) = changes.recv().await {
        if meter.is_last(told(&endpoint), &path) {
            meter.end();
            return Ok(());
        }
    }
    drop(changes);
    Err(format!("the watch ended: {:?}", watching.join()).into())
}

pub(crate) async fn view(endpoint: &str, count: usize, executor: ExecutorKind) -> Outcome {
    let discovery = discovery_on(endpoint, executor).await?;
    let view = discovery.view::<Endpoint>(all()).await?;
    let mut changes = view.changes();
    // What was there before; a batch without changes brings news of freshness alone.
    while changes.next().await.is_some_and(|batch| batch.changes().is_empty()) {}
    let mut meter = Meter::start(count);
    while let Some(batch) = changes.next().await {
        for change in batch.changes() {
            if matches!(change, ViewChange::Removed(_)) {
                continue;
            }
            if meter.is_last(told(change.record().value()), change.key().path().as_str().trim_end_matches('/')) {
                meter.end();
                return Ok(());
            }
        }
    }
    Err("the view ended".into())
}
