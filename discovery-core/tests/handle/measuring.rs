//! What the core counts.

use std::time::Duration;

use bytes::Bytes;
use discovery_core::{InstanceId, Path, Query};
use discovery_memory::Cluster;
use metrics::Key;
use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};

use crate::{Worker, handle, worker};

/// What the instruments said since the last look: looking sets counters back.
struct Look(Vec<(Key, DebugValue)>);

impl Look {
    fn at(snapshotter: &Snapshotter) -> Self {
        Self(
            snapshotter
                .snapshot()
                .into_vec()
                .into_iter()
                .map(|(key, _, _, value)| (key.key().clone(), value))
                .collect(),
        )
    }

    /// The value of the instrument of this name whose labels hold all of `labels`.
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let found = self.0.iter().find(|(key, _)| {
            let has = |(label, text): &(&str, &str)| key.labels().any(|l| l.key() == *label && l.value() == *text);
            key.name() == name && labels.iter().all(has)
        });
        found.map(|(_, value)| match value {
            DebugValue::Counter(count) => *count as f64,
            DebugValue::Gauge(gauge) => gauge.into_inner(),
            DebugValue::Histogram(samples) => samples.len() as f64,
        })
    }
}

#[test]
fn the_instruments_tell_what_happens() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    metrics::with_local_recorder(&recorder, || runtime.block_on(exercise(&snapshotter)));
}

async fn exercise(snapshotter: &Snapshotter) {
    let cluster = Cluster::new();
    let backend = cluster.connect();
    let owner = handle(&backend).await;
    let watcher = handle(&cluster.connect()).await;
    let mine = owner.register(worker("a", 1)).await.expect("registered");
    let view = watcher.view::<Worker>(Query::all()).await.expect("a view");
    let scope = [("backend", "memory"), ("scope", "worker")];
    let look = Look::at(snapshotter);
    assert_eq!(look.value("discovery_session_up", &[("backend", "memory")]), Some(1.0));
    assert_eq!(look.value("discovery_records", &scope), Some(1.0));
    assert_eq!(look.value("discovery_freshness", &scope), Some(1.0));

    let bad = discovery_core::Key::new(Path::new("worker", ["bad"]).expect("a path"), InstanceId(1));
    cluster.inject(&bad, Bytes::from_static(b"{}"));
    let stamp = mine.update(worker("a", 2)).await.expect("updated");
    view.reached(&stamp).await.expect("reached");
    let look = Look::at(snapshotter);
    assert_eq!(look.value("discovery_undecodable_total", &[("kind", "worker")]), Some(1.0));
    assert!(look.value("discovery_change_to_view_seconds", &scope) >= Some(1.0));

    cluster.revoke(mine.instance());
    mine.wait_for(|state| !state.is_registered()).await;
    mine.wait_for(|state| state.is_registered()).await;
    let look = Look::at(snapshotter);
    assert_eq!(look.value("discovery_sessions_lost_total", &[("backend", "memory")]), Some(1.0));
    assert_eq!(look.value("discovery_reregistrations_total", &[("backend", "memory")]), Some(1.0));

    // A record that others delete is put back, and its session was never lost.
    cluster.delete(mine.key());
    tokio::time::sleep(owner.bounds().recovery).await;
    assert!(cluster.owner_of(mine.key()).is_some(), "put back");
    let look = Look::at(snapshotter);
    assert_eq!(look.value("discovery_sessions_lost_total", &[("backend", "memory")]), Some(0.0));
    assert_eq!(look.value("discovery_reregistrations_total", &[("backend", "memory")]), Some(1.0));

    cluster.outage();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let look = Look::at(snapshotter);
    assert_eq!(look.value("discovery_freshness", &scope), Some(2.0));
    assert!(look.value("discovery_reconnects_total", &scope) >= Some(1.0));
}
