//! A router's lookups in a view.

use std::hint::black_box;

use discovery_core::Discovery;
use discovery_peer_protocol::{Answer, Query, now};
use serde_json::json;

use super::read::{address, endpoints};

const GROUP: usize = 1_000;

/// Picks one record after the other.
pub(super) async fn measure(discovery: &Discovery, query: &Query, groups: usize) -> Answer {
    let view = endpoints(discovery, query).await?;
    let records = view.load().len();
    let mut reader = view.reader();
    if records == 0 {
        return Err("there is nothing to look up".to_owned());
    }
    let loaded: Vec<f64> = (0..groups)
        .map(|_| {
            timed(|number| {
                let workers = view.load();
                black_box(workers.nth(number % workers.len()).map(|worker| address(worker)));
            })
        })
        .collect();
    let read: Vec<f64> = (0..groups)
        .map(|_| {
            timed(|number| {
                let workers = reader.load();
                black_box(workers.nth(number % workers.len()).map(|worker| address(worker)));
            })
        })
        .collect();
    Ok(json!({ "records": records, "load and pick": loaded, "read and pick": read }))
}

/// Nanoseconds for each lookup of a group.
fn timed(mut look_up: impl FnMut(usize)) -> f64 {
    let began = now();
    (0..GROUP).for_each(&mut look_up);
    (now() - began) as f64 / GROUP as f64
}
