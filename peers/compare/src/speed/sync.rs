//! The first state of a watch of everything.

use discovery_peer_protocol::{Command, Query};

use super::load::{self, Spread};
use super::{Comparison, Goal, in_turns};
use crate::Outcome;
use crate::store::Store;

const SIZES: [(usize, usize, Goal); 3] =
    [(10_000, 7, Goal::NotMore), (100_000, 3, Goal::Works), (1_000_000, 1, Goal::Works)];

pub(super) async fn measure() -> Outcome<Vec<Comparison>> {
    let store = Store::etcd().await?;
    let Store::Etcd(etcd) = &store else { return Err("no etcd".into()) };
    let mut comparisons = Vec::new();
    for (size, rounds, goal) in SIZES {
        load::load(etcd, Spread::Pools, size).await?;
        let [ours, reference] = in_turns(rounds, async |which| {
            let peer = store.peer(which).await.map_err(|error| error.to_string())?;
            // Connected and warm, as a process is that opens a watch.
            peer.ask(Command::List { query: Query::under("endpoint", &["nothing"]) }).await.ok();
            let before = peer.usage().await?.processor;
            let answer = peer.ask(Command::Watches { queries: vec![Query::all("endpoint")] }).await?;
            let after = peer.usage().await?.processor;
            if answer["records"].as_u64() != Some(size as u64) {
                return Err(format!("{} records in the place of {size}", answer["records"]));
            }
            Ok(vec![answer["nanos"].as_f64().ok_or("no time")? / 1e6, (after - before) as f64 / 1e6])
        })
        .await;
        let measures = [("time", goal), ("processor time", Goal::None)];
        for (((measure, goal), ours), reference) in measures.into_iter().zip(ours).zip(reference) {
            comparisons.push(Comparison {
                work: "first sync".to_owned(),
                what: format!("etcd, {size} records: {measure}"),
                unit: "ms".to_owned(),
                goal,
                ours,
                reference,
                note: String::new(),
            });
        }
    }
    Ok(comparisons)
}
