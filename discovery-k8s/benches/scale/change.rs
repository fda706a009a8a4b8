//! From a pod's readiness to whoever watches: a view and a raw watch, both in one process.

use std::time::Duration;

use discovery_dynamo::Endpoint;
use discovery_testbed::sides::{self, Side, measured, millis, quantile, ready, report};
use futures_util::StreamExt;
use kube::api::WatchEvent;
use tokio::sync::watch;

use crate::fleet::{Fleet, all, connect, discovery, name, pod_of};
use crate::{Outcome, raw as direct};

const CHANGES: usize = 200;

/// Both sides see the same changes, one at a time.
pub(crate) async fn compare(fleet: &Fleet) -> Outcome {
    let mut side = Side::start("change", &fleet.place()).await?;
    let (mut raw, mut view, mut over) = (Vec::new(), Vec::new(), Vec::new());
    for change in 0..CHANGES {
        let began = millis(sides::now());
        fleet.report(fleet.generation, 0, change % 2 == 1).await?;
        let seen = side.hear().await?;
        raw.push(seen[0] - began);
        view.push(seen[1] - began);
        over.push(seen[1] - seen[0]);
    }
    report("change/raw watch", "ms", raw.iter().copied());
    report("change/view", "ms", view.iter().copied());
    report("change/view over raw watch", "ms", over.iter().copied());
    for (name, values) in [("raw watch", &raw), ("view", &view), ("view over raw watch", &over)] {
        println!("{:<52} {:>9.2} ms", format!("change/{name}/p99"), quantile(values, 0.99));
    }
    Ok(())
}

/// Says of each change when the watch and when the view showed it.
pub(crate) async fn both(kubeconfig: &str, namespace: &str) -> Outcome {
    let pod = name(0, 0);
    let client = connect(kubeconfig).await?;
    let mut slices = direct::slices(&client, namespace);
    slices.list().await?;
    let mut events = slices.watch().await?;
    let discovery = discovery(kubeconfig, namespace).await?;
    let view = discovery.view::<Endpoint>(all()).await?;
    let mut changes = view.changes();
    let (told_raw, mut heard_raw) = watch::channel((true, Duration::ZERO));
    let (told_view, mut heard_view) = watch::channel((true, Duration::ZERO));
    let watching = async {
        while let Some(event) = events.next().await {
            let (WatchEvent::Added(slice) | WatchEvent::Modified(slice)) = event? else { continue };
            let holds = |endpoint: &k8s_openapi::api::discovery::v1::Endpoint| {
                endpoint.target_ref.as_ref().is_some_and(|target| target.name.as_deref() == Some(&*pod))
            };
            if slice.endpoints.iter().any(holds) {
                note(&told_raw, direct::ready(&slice).any(|name| name == pod));
            }
        }
        Outcome::Err("the watch ended".into())
    };
    let viewing = async {
        while changes.next().await.is_some() {
            note(&told_view, view.load().iter().any(|endpoint| pod_of(endpoint) == pod));
        }
        Outcome::Err("the view ended".into())
    };
    let saying = async {
        ready();
        for change in 0..CHANGES {
            let wanted = change % 2 == 1;
            let raw = heard_raw.wait_for(|(shown, _)| *shown == wanted).await?.1;
            let view = heard_view.wait_for(|(shown, _)| *shown == wanted).await?.1;
            measured(&[millis(raw), millis(view)]);
        }
        Outcome::Ok(())
    };
    tokio::select! {
        ended = watching => ended,
        ended = viewing => ended,
        said = saying => said,
    }
}

/// The first moment at which a state is shown.
fn note(told: &watch::Sender<(bool, Duration)>, shown: bool) {
    let at = sides::now();
    told.send_if_modified(|last| {
        let is_new = last.0 != shown;
        if is_new {
            *last = (shown, at);
        }
        is_new
    });
}
