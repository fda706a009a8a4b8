//! A rollout of all pods, and what it costs to follow it.

use std::time::Duration;

use discovery_core::ViewChange;
use discovery_dynamo::Endpoint;
use discovery_testbed::sides::{self, Side, measured, millis, ready, report};
use futures_util::StreamExt;

use crate::fleet::{Fleet, all, connect, discovery, generation_of, pod_of};
use crate::{Outcome, PODS, raw as direct};

const ROUNDS: usize = 3;

/// Both sides follow the same rollouts.
pub(crate) async fn compare(fleet: &mut Fleet) -> Outcome {
    let (mut raw, mut view, mut took) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let (mut direct, mut ours) =
            (Side::start("roll-raw", &fleet.place()).await?, Side::start("roll-view", &fleet.place()).await?);
        let began = sides::now();
        fleet.roll().await?;
        took.push(millis(sides::now() - began) / 1_000.0);
        raw.push(direct.hear().await?[0]);
        view.push(ours.hear().await?[0]);
    }
    report("roll/rollout of all", "s", took.iter().copied());
    report("roll/processor/raw", "ms", raw.iter().copied());
    report("roll/processor/view", "ms", view.iter().copied());
    let over: Vec<f64> = raw.iter().zip(&view).map(|(raw, view)| view / raw).collect();
    report("roll/processor/view over raw", "times", over.iter().copied());
    Ok(())
}

fn end(before: Duration) {
    measured(&[millis(sides::processor() - before)]);
}

/// Keeps both resources until they hold the next generation and nothing else.
pub(crate) async fn raw(kubeconfig: &str, namespace: &str) -> Outcome {
    let client = connect(kubeconfig).await?;
    let (mut slices, mut resources) = (direct::slices(&client, namespace), direct::resources(&client, namespace));
    tokio::try_join!(slices.list(), resources.list())?;
    let old = resources.known.keys().find_map(|name| generation_of(name)).ok_or("no pods")?;
    let (mut of_slices, mut of_resources) = tokio::try_join!(slices.watch(), resources.watch())?;
    let before = sides::processor();
    ready();
    // Counted as they come, so that to look for the end costs nothing.
    let mut left = PODS;
    loop {
        tokio::select! {
            Some(event) = of_slices.next() => slices.hear(event?)?,
            Some(event) = of_resources.next() => {
                let event = event?;
                if matches!(&event, kube::api::WatchEvent::Deleted(_)) {
                    left -= 1;
                }
                resources.hear(event)?;
            }
            else => return Err("a watch ended".into()),
        }
        if left == 0 {
            let mut ready = slices.known.values().flat_map(direct::ready);
            if ready.all(|name| generation_of(name) == Some(old + 1) && resources.known.contains_key(name)) {
                end(before);
                return Ok(());
            }
        }
    }
}

/// Follows a view until it shows the next generation and nothing else.
pub(crate) async fn view(kubeconfig: &str, namespace: &str) -> Outcome {
    let discovery = discovery(kubeconfig, namespace).await?;
    let view = discovery.view::<Endpoint>(all()).await?;
    let old = view.load().iter().find_map(|endpoint| generation_of(pod_of(endpoint))).ok_or("no pods")?;
    let mut changes = view.changes();
    // What was there before; a batch without changes brings news of freshness alone.
    while changes.next().await.is_some_and(|batch| batch.changes().is_empty()) {}
    let before = sides::processor();
    ready();
    let (mut added, mut removed) = (0, 0);
    while let Some(batch) = changes.next().await {
        for change in batch.changes() {
            let is_old = generation_of(pod_of(change.record().value())) == Some(old);
            match change {
                ViewChange::Added(_) if !is_old => added += 1,
                ViewChange::Removed(_) if is_old => removed += 1,
                _ => {}
            }
        }
        if (added, removed) == (PODS, PODS) {
            end(before);
            return Ok(());
        }
    }
    Err("the view ended".into())
}
