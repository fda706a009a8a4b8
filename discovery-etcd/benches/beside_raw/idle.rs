//! What a handle costs while nothing happens.

use std::time::Duration;

use discovery_dynamo::Endpoint;
use discovery_testbed::Etcd;
use discovery_testbed::sides::{self, Side, measured, micros, ready, report};

use crate::Outcome;
use crate::records::{all, discovery, endpoint as record};

const ROUNDS: usize = 3;
const SECONDS: usize = 20;

pub(crate) async fn measure(etcd: &Etcd) -> Outcome {
    let mut costs = Vec::new();
    for _ in 0..ROUNDS {
        costs.push(Side::start("idle", &[&etcd.endpoint(), &SECONDS.to_string()]).await?.end().await?[0]);
    }
    report("idle/processor per second, one record and one view", "us", costs);
    Ok(())
}

/// A handle with one record and one view, for so many seconds.
pub(crate) async fn handle(endpoint: &str, seconds: usize) -> Outcome {
    let discovery = discovery(endpoint).await?;
    let _mine = discovery.register(record(0, sides::now())).await?;
    let _view = discovery.view::<Endpoint>(all()).await?;
    ready();
    let before = sides::processor();
    tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
    measured(&[micros(sides::processor() - before) / seconds as f64]);
    Ok(())
}
