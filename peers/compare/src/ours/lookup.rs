//! A router's lookups in a view.

use std::hint::black_box;

use discovery_core::{Discovery, Key};
use discovery_peer_protocol::{Answer, Query, time_lookups};
use serde_json::json;

use super::read::{address, endpoints};

/// Picks one record after the other.
pub(super) async fn measure(discovery: &Discovery, query: &Query, groups: usize) -> Answer {
    let view = endpoints(discovery, query).await?;
    let first = view.load();
    let records = first.len();
    let Some(path) = first.nth(0).map(|worker| worker.key().path().clone()) else {
        return Err("there is nothing to look up".to_owned());
    };
    let mut reader = view.reader();
    let read = time_lookups(groups, |number| {
        let workers = reader.load();
        black_box(workers.nth(number % workers.len()).map(|worker| address(worker)));
    });
    let loaded = time_lookups(groups, |number| {
        let workers = view.load();
        black_box(workers.nth(number % workers.len()).map(|worker| address(worker)));
    });
    let known: Vec<_> = first.iter().map(|worker| worker.key().instance()).collect();
    let by_id = time_lookups(groups, |number| {
        let key = Key::new(path.clone(), known[number % known.len()]);
        let workers = view.load();
        black_box(workers.get(&key).map(|worker| address(worker)));
    });
    Ok(json!({ "records": records, "read and pick": read, "load and pick": loaded, "load by id": by_id }))
}
