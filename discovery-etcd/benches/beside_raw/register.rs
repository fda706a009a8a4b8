//! Many registrations by one process.

use discovery_testbed::Etcd;
use discovery_testbed::sides::{self, Side, beside, measured, micros, ready};
use etcd_client::PutOptions;
use futures_util::{StreamExt, TryStreamExt, future, stream};

use crate::records::{discovery, endpoint as record, stored};
use crate::{Outcome, raw as direct};

const ROUNDS: usize = 5;
const RECORDS: usize = 10_000;
/// How many raw puts are on their way at any time.
const AT_ONCE: usize = 256;

pub(crate) async fn compare(etcd: &Etcd) -> Outcome {
    let (mut times, mut costs) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        let raw = Side::start("register-raw", &[&etcd.endpoint(), &RECORDS.to_string()]).await?.end().await?;
        let ours = Side::start("register-ours", &[&etcd.endpoint(), &RECORDS.to_string()]).await?.end().await?;
        if round > 0 {
            times.push((raw[0] / 1_000.0, ours[0] / 1_000.0));
            costs.push((raw[1] / 1_000.0, ours[1] / 1_000.0));
        }
    }
    beside("register_10000/time", "ms", &times);
    beside("register_10000/processor", "ms", &costs);
    Ok(())
}

/// One lease, and one put for each record.
pub(crate) async fn raw(endpoint: &str, count: usize) -> Outcome {
    let mut client = direct::client(endpoint).await?;
    ready();
    let (began, before) = (sides::now(), sides::processor());
    let lease = client.lease_grant(60, None).await?.id();
    stream::iter(0..count)
        .map(|number| {
            let mut kv = client.kv_client();
            async move {
                let (key, value) = stored(number, sides::now())?;
                kv.put(key, value, Some(PutOptions::new().with_lease(lease))).await?;
                Ok::<_, Box<dyn std::error::Error>>(())
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_collect::<()>()
        .await?;
    let (time, cost) = (sides::now() - began, sides::processor() - before);
    client.lease_revoke(lease).await?;
    measured(&[micros(time), micros(cost)]);
    Ok(())
}

/// All registrations at once.
pub(crate) async fn ours(endpoint: &str, count: usize) -> Outcome {
    let discovery = discovery(endpoint).await?;
    discovery.health().await?;
    ready();
    let (began, before) = (sides::now(), sides::processor());
    let registering = (0..count).map(|number| discovery.register(record(number, sides::now())));
    let registered = future::try_join_all(registering).await?;
    let (time, cost) = (sides::now() - began, sides::processor() - before);
    drop(registered);
    let report = discovery.shutdown(std::time::Duration::from_secs(60)).await;
    if !report.is_clean() {
        return Err(format!("{} records were left behind", report.not_withdrawn.len()).into());
    }
    measured(&[micros(time), micros(cost)]);
    Ok(())
}
