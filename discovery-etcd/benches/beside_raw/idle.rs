//! What a handle costs while nothing happens.

use std::time::Duration;

use discovery_dynamo::Endpoint;
use discovery_testbed::Etcd;

use crate::records::{all, discovery, endpoint as record};
use crate::round::{Side, measured, micros, ready, report};
use crate::{Outcome, clock};

const ROUNDS: usize = 3;
const SECONDS: usize = 20;

pub(crate) async fn measure(etcd: &Etcd) -> Outcome {
    let mut costs = Vec::new();
    for _ in 0..ROUNDS {
        costs.push(Side::start("idle", &etcd.endpoint(), SECONDS).await?.end().await?[0]);
    }
    report("idle/processor per second, one record and one view", "us", costs);
    Ok(())
}

/// A handle with one record and one view, for so many seconds.
pub(crate) async fn handle(endpoint: &str, seconds: usize) -> Outcome {
    let discovery = discovery(endpoint).await?;
    let _mine = discovery.register(record(0, clock::now())).await?;
    let _view = discovery.view::<Endpoint>(all()).await?;
    ready();
    let before = clock::processor();
    tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
    measured(&[micros(clock::processor() - before) / seconds as f64]);
    Ok(())
}
