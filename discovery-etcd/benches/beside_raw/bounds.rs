//! What the backend declares beside what it takes: propagation, slack and recovery.

use std::collections::HashMap;
use std::time::Duration;

use discovery_core::{Bounds, Discovery, Environment, Key, ViewChange};
use discovery_dynamo::Endpoint;
use discovery_testbed::Etcd;
use discovery_testbed::sides::{self, Side, millis, quantile, ready};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::records::{all, discovery, endpoint as record, told};
use crate::{Outcome, raw as direct};

/// How many changes are put one after the other.
const PUTS: usize = 2_000;
/// How many owners are killed, or have their record deleted, in each round.
const OWNERS: usize = 16;
const ROUNDS: usize = 6;
/// The time to live of owners that are killed, in seconds: the least that etcd grants by default.
const TTL: u64 = 2;
/// Far above each bound: what takes longer is not measured.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn measure(etcd: &Etcd, picked: impl Fn(&str) -> bool) -> Outcome {
    let reader = discovery(&etcd.endpoint()).await?;
    let bounds = reader.bounds();
    if picked("propagation") {
        propagation(etcd, &reader, &bounds).await?;
    }
    if picked("slack") {
        slack(etcd, &reader, &bounds).await?;
    }
    if picked("recovery") {
        recovery(etcd, &reader, &bounds).await?;
    }
    reader.shutdown(PATIENCE).await;
    Ok(())
}

pub(crate) fn report(name: &str, times: &[f64], bound: Duration) {
    let [median, p99, most] = [0.5, 0.99, 1.0].map(|part| quantile(times, part));
    let (count, bound) = (times.len(), millis(bound));
    println!("{name:<52} {median:>9.2} ms  p99 {p99:.2}  max {most:.2}  of {count}  (declared {bound:.0})");
}

/// What an endpoint is called, whose number is part of that.
pub(crate) fn name(key: &Key) -> String {
    key.path().segments().last().unwrap_or_default().into_owned()
}

/// What the view tells from now on, each with when it did, whatever this thread waits for meanwhile.
pub(crate) struct Seen(mpsc::UnboundedReceiver<(Duration, ViewChange<Endpoint>)>);

impl Seen {
    pub(crate) async fn by(reader: &Discovery) -> Outcome<Self> {
        let view = reader.view::<Endpoint>(all()).await?;
        let mut known = view.load().len();
        let mut changes = view.changes();
        let (told, seen) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(batch) = changes.next().await {
                let now = sides::now();
                for change in batch.into_changes() {
                    // What was there before.
                    if known > 0 {
                        known -= 1;
                    } else if told.send((now, change)).is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Self(seen))
    }

    pub(crate) async fn next(&mut self) -> Outcome<(Duration, ViewChange<Endpoint>)> {
        Ok(timeout(PATIENCE, self.0.recv()).await?.ok_or("the view ended")?)
    }
}

/// From a put to the view.
async fn propagation(etcd: &Etcd, reader: &Discovery, bounds: &Bounds) -> Outcome {
    let client = direct::client(&etcd.endpoint()).await?;
    let mut seen = Seen::by(reader).await?;
    let mut times = Vec::new();
    for number in 0..PUTS {
        direct::put(&client, std::iter::once(number % 100), 1).await?;
        let (now, change) = seen.next().await?;
        times.push(millis(now - told(change.record().value())));
        sleep(Duration::from_millis(1)).await;
    }
    report("propagation, from a put to the view", &times, bounds.propagation);
    Ok(())
}

/// From the death of an owner that has just been heard of, less its time to live, until it has left the view.
async fn slack(etcd: &Etcd, reader: &Discovery, bounds: &Bounds) -> Outcome {
    let mut seen = Seen::by(reader).await?;
    let mut times = Vec::new();
    for round in 0..ROUNDS {
        let mut killed = HashMap::new();
        let mut owners = Vec::new();
        for owner in 0..OWNERS {
            let number = (1_000 + round * OWNERS + owner).to_string();
            owners.push((number.clone(), Side::start("owner", &[&etcd.endpoint(), &number]).await?));
        }
        // Somewhere between two of its renewals.
        for (number, owner) in owners {
            sleep(Duration::from_millis(fastrand::u64(..100))).await;
            killed.insert(format!("generate-{number}"), sides::now());
            drop(owner);
        }
        while !killed.is_empty() {
            let (now, change) = seen.next().await?;
            let ViewChange::Removed(gone) = change else { continue };
            if let Some(died) = killed.remove(&name(gone.key())) {
                times.push(millis(now) - millis(died + Duration::from_secs(TTL)));
            }
        }
    }
    report("slack, from a killed process to the view, less TTL", &times, bounds.slack);
    Ok(())
}

/// An owner of one record, until it is killed.
pub(crate) async fn owner(endpoint: &str, number: usize) -> Outcome {
    let environment = Environment::default()
        .with(discovery_etcd::ENDPOINTS_VARIABLE, endpoint)
        .with(discovery_etcd::TTL_VARIABLE, TTL.to_string());
    let discovery = Discovery::builder().environment(environment).backend(discovery_etcd::NAME).build().await?;
    let _mine = discovery.register(record(number, sides::now())).await?;
    ready();
    std::future::pending().await
}

/// From a record that somebody deletes until its owner has put it back, as the view sees it.
async fn recovery(etcd: &Etcd, reader: &Discovery, bounds: &Bounds) -> Outcome {
    let client = direct::client(&etcd.endpoint()).await?;
    let mut seen = Seen::by(reader).await?;
    let (mut owners, mut times) = (Vec::new(), Vec::new());
    for number in 5_000..5_000 + OWNERS {
        let discovery = discovery(&etcd.endpoint()).await?;
        let mine = discovery.register(record(number, sides::now())).await?;
        owners.push((discovery, mine));
    }
    for _ in 0..ROUNDS {
        let (mut deleted, mut gone) = (HashMap::new(), HashMap::new());
        for (_, mine) in &owners {
            // Each owner looks at its record every four seconds and some: this is anywhere between two looks.
            sleep(Duration::from_millis(fastrand::u64(..600))).await;
            let key = mine.key().clone();
            let stored = discovery_dynamo::layout::stored_key(&key)?;
            deleted.insert(key, sides::now());
            client.kv_client().delete(stored, None).await?;
        }
        while !deleted.is_empty() || !gone.is_empty() {
            let (now, change) = seen.next().await?;
            match &change {
                ViewChange::Removed(record) => gone.extend(deleted.remove_entry(record.key())),
                // Back, and not there for the first time.
                change => times.extend(gone.remove(change.key()).map(|deleted| millis(now - deleted))),
            }
        }
    }
    report("recovery, from a deleted record until it is back", &times, bounds.recovery);
    for (discovery, mine) in owners {
        drop(mine);
        discovery.shutdown(PATIENCE).await;
    }
    Ok(())
}
