//! A router's lookups in what the reference's own client keeps.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use discovery_peer_protocol::{Query, now};
use dynamo_runtime::DistributedRuntime;
use serde_json::{Value, json};
use tokio::time::timeout;

const GROUP: usize = 1_000;
const PATIENCE: Duration = Duration::from_secs(60);

/// Picks one instance after the other, by each way that the client offers.
pub async fn measure(runtime: &DistributedRuntime, query: &Query, groups: usize) -> Result<Value> {
    let [namespace, component, endpoint] = &query.path[..] else { bail!("a lookup is for one endpoint") };
    let endpoint = runtime.namespace(namespace)?.component(component)?.endpoint(endpoint);
    let client = endpoint.client().await?;
    // It waits for ever where its watch cannot read what is stored.
    let routable = timeout(PATIENCE, client.wait_for_routable_instances()).await;
    let records = routable.context("its client sees no instance in a minute")??.len();
    let time = |mut lookup: Box<dyn FnMut(usize) + Send>| -> Vec<f64> {
        let group = |_| {
            let began = now();
            (0..GROUP).for_each(&mut lookup);
            (now() - began) as f64 / GROUP as f64
        };
        (0..groups).map(group).collect()
    };
    // What it keeps, read in place: the least that a lookup can cost here.
    let kept = client.instance_source.clone();
    let in_place = time(Box::new(move |number| {
        let instances = kept.borrow();
        black_box(&instances[number % instances.len()].transport);
    }));
    let kept = client.instance_source.clone();
    let one = time(Box::new(move |number| {
        let instances = kept.borrow();
        black_box(instances[number % instances.len()].clone());
    }));
    let of = client.clone();
    let ids = time(Box::new(move |number| {
        let ids = of.instance_ids_avail();
        black_box(ids[number % ids.len()]);
    }));
    let all = time(Box::new(move |number| {
        let instances = client.instances();
        black_box(&instances[number % instances.len()].transport);
    }));
    Ok(json!({ "records": records, "in place": in_place, "one cloned": one, "its ids": ids, "instances()": all }))
}
