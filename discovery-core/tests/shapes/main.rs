//! Three toy stores of the shapes that the traits must fit: one with revisions and leases as etcd has, one that joins
//! two collections as Kubernetes does, and one that can only be listed, as a directory can.

mod directory;
mod joined;
mod revisions;

use std::sync::Arc;
use std::time::Duration;

use discovery_core::backend::Backend;
use discovery_core::{Discovery, ExecutorKind, Path, Query, Record, Result, ViewChange};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Worker {
    pool: String,
    address: String,
}

impl Record for Worker {
    const KIND: &'static str = "worker";

    fn path(&self) -> Result<Path> {
        Path::new(Self::KIND, [&self.pool])
    }
}

pub(crate) fn worker(pool: &str, address: &str) -> Worker {
    Worker { pool: pool.to_owned(), address: address.to_owned() }
}

pub(crate) async fn handle(backend: Arc<dyn Backend>) -> Discovery {
    Discovery::builder().with_backend(backend).executor(ExecutorKind::Current).build().await.expect("a handle")
}

/// What every shape must carry: a registration is listed and seen, changes without a gap, and leaves.
pub(crate) async fn carries_a_registration(owner: Arc<dyn Backend>, watcher: Arc<dyn Backend>) {
    let owner = handle(owner).await;
    let watcher = handle(watcher).await;
    let view = watcher.view::<Worker>(Query::path(["a"])).await.expect("a live view");
    let mut changes = view.changes();
    let first = changes.next().await.expect("the first batch");
    assert!(first.is_synced() && first.changes().is_empty());

    let mine = owner.register(worker("a", "one")).await.expect("registered");
    let other = owner.register(worker("ab", "elsewhere")).await.expect("registered");
    let listed = watcher.list::<Worker>(Query::all()).await.expect("a list");
    assert_eq!(listed.len(), 2);
    view.reached(&mine.stamp()).await.expect("the view reaches the write");
    assert_eq!(view.load().iter().map(|w| w.address.clone()).collect::<Vec<_>>(), ["one"]);
    let batch = changes.next().await.expect("a batch");
    assert!(matches!(batch.changes(), [ViewChange::Added(w)] if w.address == "one"), "{batch:?}");

    mine.update(worker("a", "two")).await.expect("updated");
    let batch = changes.next().await.expect("a batch");
    assert!(
        matches!(batch.changes(), [ViewChange::Updated { old, new }] if old.address == "one" && new.address == "two"),
        "{batch:?}"
    );

    mine.deregister().await.expect("deregistered");
    mine.deregister().await.expect("idempotent");
    let batch = changes.next().await.expect("a batch");
    assert!(matches!(batch.changes(), [ViewChange::Removed(w)] if w.address == "two"), "{batch:?}");
    assert_eq!(watcher.list::<Worker>(Query::all()).await.expect("a list").len(), 1);

    drop(other);
    let report = owner.shutdown(Duration::from_secs(5)).await;
    assert!(report.not_withdrawn.is_empty(), "{report:?}");
    assert!(watcher.list::<Worker>(Query::all()).await.expect("a list").is_empty());
    drop(view);
    let report = watcher.shutdown(Duration::from_secs(5)).await;
    assert!(report.not_withdrawn.is_empty() && report.error.is_none(), "{report:?}");
    assert!(changes.next().await.is_none(), "a stream ends at shutdown");
}
