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
    if records == 0 {
        return Err("there is nothing to look up".to_owned());
    }
    let group = |_| {
        let began = now();
        for number in 0..GROUP {
            let workers = view.load();
            black_box(workers.nth(number % workers.len()).map(|worker| address(worker)));
        }
        (now() - began) as f64 / GROUP as f64
    };
    let nanos: Vec<f64> = (0..groups).map(group).collect();
    Ok(json!({ "records": records, "load and pick": nanos }))
}
