//! The first sync, and the memory that stays.

use discovery_dynamo::Endpoint;
use discovery_testbed::sides::{self, Side, measured, millis, ready, report};

use crate::fleet::{Fleet, all, connect, discovery};
use crate::{Outcome, PODS, raw as direct};

const ROUNDS: usize = 7;

pub(crate) async fn compare(fleet: &Fleet) -> Outcome {
    for name in ["sync-raw", "sync-view"] {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            rounds.push(Side::start(name, &fleet.place()).await?.hear().await?);
        }
        for (column, (what, unit)) in
            [("time", "ms"), ("processor", "ms"), ("memory per pod", "KiB")].iter().enumerate()
        {
            let column: Vec<f64> = rounds.iter().map(|round| round[column]).collect();
            report(&format!("first_sync/{what}/{name}"), unit, column);
        }
    }
    Ok(())
}

/// Resident memory in KiB.
fn resident() -> Outcome<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

struct Meter {
    time: std::time::Duration,
    cost: std::time::Duration,
    memory: f64,
}

impl Meter {
    fn start() -> Outcome<Self> {
        ready();
        Ok(Self { time: sides::now(), cost: sides::processor(), memory: resident()? })
    }

    fn end(self, pods: usize) -> Outcome {
        if pods != PODS {
            return Err(format!("saw {pods} of {PODS} pods").into());
        }
        let (time, cost) = (sides::now() - self.time, sides::processor() - self.cost);
        measured(&[millis(time), millis(cost), (resident()? - self.memory) / pods as f64]);
        Ok(())
    }
}

/// Reads both resources and keeps them. The connection stands before.
pub(crate) async fn raw(kubeconfig: &str, namespace: &str) -> Outcome {
    let client = connect(kubeconfig).await?;
    client.apiserver_version().await?;
    let (mut slices, mut resources) = (direct::slices(&client, namespace), direct::resources(&client, namespace));
    let meter = Meter::start()?;
    tokio::try_join!(slices.list(), resources.list())?;
    let pods = slices.known.values().flat_map(direct::ready).filter(|pod| resources.known.contains_key(*pod)).count();
    meter.end(pods)
}

/// Opens a view until it is live.
pub(crate) async fn view(kubeconfig: &str, namespace: &str) -> Outcome {
    let discovery = discovery(kubeconfig, namespace).await?;
    discovery.health().await?;
    let meter = Meter::start()?;
    let view = discovery.view::<Endpoint>(all()).await?;
    meter.end(view.load().len())
}
