//! A router's lookups in what the reference's own client keeps.

use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use discovery_peer_protocol::{Query, time_lookups};
use dynamo_runtime::DistributedRuntime;
use serde_json::{Value, json};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

/// Picks one instance after the other, by each way that the client offers.
pub async fn measure(runtime: &DistributedRuntime, query: &Query, groups: usize, records: usize) -> Result<Value> {
    let [namespace, component, endpoint] = &query.path[..] else { bail!("a lookup is for one endpoint") };
    let endpoint = runtime.namespace(namespace)?.component(component)?.endpoint(endpoint);
    let client = endpoint.client().await?;
    // It tells of one after the other, and of none, for ever, where its watch cannot read what is stored.
    let (mut seen, mut routable) = (client.instance_source.as_ref().clone(), client.instance_avail_watcher());
    let all = async {
        seen.wait_for(|instances| instances.len() >= records).await?;
        routable.wait_for(|ids| ids.len() >= records).await?;
        anyhow::Ok(())
    };
    timeout(PATIENCE, all).await.with_context(|| {
        format!("its client sees {} of {records} instances after a minute", client.instances().len())
    })??;
    let records = client.instances().len();
    let kept = &client.instance_source;
    // What it keeps, read in place: the least that a lookup can cost here.
    let in_place = time_lookups(groups, |number| {
        let instances = kept.borrow();
        black_box(instances[number % instances.len()].transport.address());
    });
    let one = time_lookups(groups, |number| {
        let instances = kept.borrow();
        let one = instances[number % instances.len()].clone();
        black_box(one.transport.address());
    });
    let known = client.instance_ids_avail();
    // As its `instance_by_id` does it, which is its own: a router calls that for every request.
    let by_id = time_lookups(groups, |number| {
        let id = known[number % known.len()];
        let found = kept.borrow().iter().find(|instance| instance.id() == id).cloned();
        black_box(found.as_ref().map(|instance| instance.transport.address()));
    });
    let ids = time_lookups(groups, |number| {
        let ids = client.instance_ids_avail();
        black_box(ids[number % ids.len()]);
    });
    let all = time_lookups(groups, |number| {
        let instances = client.instances();
        black_box(instances[number % instances.len()].transport.address());
    });
    Ok(json!({
        "records": records, "in place": in_place, "one cloned": one, "by id": by_id, "its ids": ids, "instances()": all,
    }))
}
