//! How soon a change is seen by a watcher.

use std::fs;
use std::path::Path;
use std::time::Duration;

use discovery_peer_protocol::{Command, Query};
use etcd_client::Client;
use serde_json::Value;

use super::load::{self, Spread};
use super::result::quantile;
use super::{Comparison, Goal, Measure, Side, in_turns, rows};
use crate::Outcome;
use crate::peer::Peer;
use crate::store::Store;

const ROUNDS: usize = 7;
const CHANGES: usize = 300;
const APART: Duration = Duration::from_millis(5);

pub(super) async fn measure() -> Vec<Comparison> {
    let mut comparisons = Vec::new();
    for (name, store) in [("etcd", Store::etcd().await), ("file", Store::file())] {
        let sides = match store {
            Ok(store) => on(&store).await,
            Err(error) => Err(error),
        };
        let measures = vec![
            Measure::new("median", "us", Goal::NotMore),
            Measure::new("p99", "us", Goal::NotMore),
            Measure::new("processor time for each change", "us", Goal::None),
        ];
        let what = format!("{name}, {CHANGES} additions, {} ms apart", APART.as_millis());
        comparisons.extend(rows("a change seen by a watcher", &what, measures, sides));
    }
    comparisons
}

async fn on(store: &Store) -> Outcome<[Side; 2]> {
    let mut client = match store {
        Store::Etcd(etcd) => Some(load::client(etcd).await?),
        Store::File(_) | Store::Kubernetes(_) => None,
    };
    let mut number = 0;
    let round = async |which| {
        store.clear().await?;
        let peer = store.peer(which).await?;
        peer.ask(Command::Watches { queries: vec![Query::all("endpoint")] }).await?;
        // The first ones pay for what is prepared lazily.
        round(&peer, store, client.as_mut(), &mut number, 20).await?;
        round(&peer, store, client.as_mut(), &mut number, CHANGES).await
    };
    Ok(in_turns(ROUNDS, round).await)
}

async fn round(
    peer: &Peer,
    store: &Store,
    mut client: Option<&mut Client>,
    number: &mut usize,
    changes: usize,
) -> Outcome<Vec<f64>> {
    peer.ask(Command::Tally).await?;
    let before = peer.usage().await?.processor;
    for _ in 0..changes {
        *number += 1;
        add(store, client.as_deref_mut(), *number).await?;
        tokio::time::sleep(APART).await;
    }
    let mut delays: Vec<f64> = Vec::new();
    let mut last = Duration::ZERO;
    while delays.len() < changes && last < Duration::from_secs(10) {
        tokio::time::sleep(APART).await;
        last += APART;
        let tally = peer.ask(Command::Tally).await?;
        delays.extend(tally["delays"].as_array().into_iter().flatten().filter_map(Value::as_f64));
    }
    if delays.len() != changes {
        return Err(format!("{} of {changes} changes were seen", delays.len()).into());
    }
    let processor = (peer.usage().await?.processor - before) as f64 / 1e3 / changes as f64;
    let part = |part: f64| quantile(&delays, part).unwrap_or(f64::NAN) / 1e3;
    Ok(vec![part(0.5), part(0.99), processor])
}

/// Adds a record past both libraries, that tells when it was written.
async fn add(store: &Store, client: Option<&mut Client>, number: usize) -> Outcome {
    match (store, client) {
        (Store::File(directory), _) => {
            let (bucket, name, value) = Spread::Pools.file(number)?;
            put(&directory.path().join("v1").join(bucket.trim_start_matches("v1/")), &name, &value)
        }
        (Store::Etcd(_), Some(client)) => {
            let (key, value) = Spread::Pools.stored(number)?;
            client.put(key, value, None).await?;
            Ok(())
        }
        (Store::Etcd(_) | Store::Kubernetes(_), _) => Err(format!("no client of {}", store.name()).into()),
    }
}

/// As both libraries do it: written whole beside, then linked to its name.
fn put(bucket: &Path, name: &str, value: &[u8]) -> Outcome {
    fs::create_dir_all(bucket)?;
    let written = bucket.join(format!(".tmp_{name}"));
    fs::write(&written, value)?;
    fs::hard_link(&written, bucket.join(name))?;
    fs::remove_file(&written)?;
    Ok(())
}
