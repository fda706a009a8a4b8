//! A storm: many owners die at once. They are leases of this process, so that the machine is not busy with theirs.

use std::collections::HashMap;
use std::time::Duration;

use discovery_core::ViewChange;
use discovery_testbed::sides::{self, millis};
use discovery_testbed::{Etcd, EtcdOptions};
use etcd_client::{Client, PutOptions};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::bounds::{PATIENCE, Seen, name, report};
use crate::records::{discovery, stored};
use crate::{Outcome, raw as direct};

/// How many are made, or renewed, at once.
const AT_ONCE: usize = 64;

struct Storm {
    owners: usize,
    ttl: Duration,
    rounds: usize,
}

/// As many as the slack is declared for.
const DECLARED: Storm = Storm { owners: 1_500, ttl: Duration::from_secs(10), rounds: 3 };
/// As many as no slack is declared for.
const BEYOND: Storm = Storm { owners: 10_000, ttl: Duration::from_secs(30), rounds: 1 };

pub(crate) async fn measure() -> Outcome {
    let etcd = Etcd::start().await?;
    break_out(&etcd, &DECLARED, "storm of 1,500").await?;
    break_out(&etcd, &BEYOND, "storm of 10,000").await?;
    // The testbed's waits for no disk where it is not told otherwise.
    let flags = vec!["--unsafe-no-fsync=false".to_owned()];
    let etcd = Etcd::start_with(EtcdOptions { flags, ..EtcdOptions::default() }).await?;
    break_out(&etcd, &DECLARED, "storm of 1,500, each write waits for the disk").await
}

/// From the death of owners that have all just been renewed, less their time to live, until each has left the view.
async fn break_out(etcd: &Etcd, storm: &Storm, what: &str) -> Outcome {
    let client = direct::client(&etcd.endpoint()).await?;
    let reader = discovery(&etcd.endpoint()).await?;
    let mut times = Vec::new();
    for round in 0..storm.rounds {
        let mut seen = Seen::by(&reader).await?;
        let numbers = (round * storm.owners..).take(storm.owners);
        let born = stream::iter(numbers).map(|number| owner(&client, number, storm.ttl)).buffer_unordered(AT_ONCE);
        let owners: Vec<(usize, i64)> = born.try_collect().await?;
        let renewed = stream::iter(owners).map(|(number, lease)| renew(&client, number, lease));
        let mut dead: HashMap<String, Duration> = renewed.buffer_unordered(AT_ONCE).try_collect().await?;
        while !dead.is_empty() {
            let (now, change) = seen.next().await?;
            let ViewChange::Removed(gone) = change else { continue };
            if let Some(died) = dead.remove(&name(gone.key())) {
                times.push(millis(now) - millis(died + storm.ttl));
            }
        }
    }
    report(&format!("slack, {what}"), &times, reader.bounds().slack);
    reader.shutdown(PATIENCE).await;
    Ok(())
}

/// One lease with one record.
async fn owner(client: &Client, number: usize, ttl: Duration) -> Outcome<(usize, i64)> {
    let lease = client.lease_client().grant(ttl.as_secs().cast_signed(), None).await?.id();
    let (key, value) = stored(number, sides::now())?;
    client.kv_client().put(key, value, Some(PutOptions::new().with_lease(lease))).await?;
    Ok((number, lease))
}

/// The last renewal of an owner, which dies once it was sent.
async fn renew(client: &Client, number: usize, lease: i64) -> Outcome<(String, Duration)> {
    let sent = sides::now();
    client.lease_client().keep_alive(lease).await?;
    Ok((format!("generate-{number}"), sent))
}
