//! From a write to whoever watches: latency and processor time.

use std::collections::HashMap;
use std::time::Duration;

use discovery_core::ViewChange;
use discovery_dynamo::Endpoint;
use discovery_testbed::Etcd;
use discovery_testbed::sides::{self, Side, beside, measured, micros, quantile, ready, report};
use etcd_client::{EventType, WatchOptions};

use crate::records::{PREFIX, all, discovery, told};
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

pub(crate) async fn compare(etcd: &Etcd, name: &str, pace: Pace) -> Outcome {
    let client = direct::client(&etcd.endpoint()).await?;
    direct::load(&client, ENDPOINTS + 1).await?;
    let changes = if pace == Pace::Burst { 20_000 } else { 1_000 };
    let (mut halves, mut tails, mut costs) = (Vec::new(), Vec::new(), Vec::new());
    // The first round warms the server up.
    for round in 0..=ROUNDS {
        let mut results = Vec::new();
        for side in ["watch-raw", "watch-view"] {
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
        if let ([raw, ours], true) = (&results[..], round > 0) {
            halves.push((raw[0], ours[0]));
            tails.push((raw[1], ours[1]));
            costs.push((raw[2], ours[2]));
        }
    }
    if pace == Pace::OneByOne {
        beside(&format!("{name}/median"), "us", &halves);
        report(&format!("{name}/median/ours less raw"), "us", halves.iter().map(|(raw, ours)| ours - raw));
        beside(&format!("{name}/p99"), "us", &tails);
    }
    beside(&format!("{name}/processor per change"), "us", &costs);
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

/// A watcher that keeps the decoded endpoints in a map, as a client without this backend would.
pub(crate) async fn raw(endpoint: &str, count: usize) -> Outcome {
    let mut client = direct::client(endpoint).await?;
    let mut known: HashMap<Vec<u8>, Endpoint> = HashMap::new();
    let mut stream = client.watch(PREFIX, Some(WatchOptions::new().with_prefix())).await?;
    // The server's word that the watch is there.
    stream.message().await?;
    let mut meter = Meter::start(count);
    while let Some(message) = stream.message().await? {
        for event in message.events() {
            let Some(record) = event.kv() else { continue };
            if event.event_type() == EventType::Delete {
                known.remove(record.key());
                continue;
            }
            let endpoint: Endpoint = serde_json::from_slice(record.value())?;
            let told = told(&endpoint);
            known.insert(record.key().to_vec(), endpoint);
            let path = record.key_str()?.rsplit_once('/').map_or("", |(path, _)| path);
            if meter.is_last(told, path) {
                meter.end();
                return Ok(());
            }
        }
    }
    Err("the watch ended".into())
}

pub(crate) async fn view(endpoint: &str, count: usize) -> Outcome {
    let discovery = discovery(endpoint).await?;
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
