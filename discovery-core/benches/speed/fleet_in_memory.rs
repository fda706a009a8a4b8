//! A fleet in a cluster in memory, watched by a handle with a thread of its own, as in production.

use std::sync::Arc;
use std::time::Duration;

use discovery_core::{Discovery, Query, View};
use discovery_memory::Cluster;
use tokio::runtime::Runtime;

use crate::record::{Worker, fleet};

pub(crate) struct FleetInMemory {
    pub(crate) runtime: Runtime,
    pub(crate) cluster: Cluster,
    handle: Discovery,
}

impl FleetInMemory {
    /// A fleet of so many workers, and beside it services of the sizes in `parts`.
    pub(crate) fn new(records: u64, parts: &[u64]) -> Self {
        // Without a history, which would hold every record twice.
        let cluster = Cluster::builder().history(1).build();
        for entry in fleet(records) {
            cluster.inject(&entry.key, entry.value);
        }
        for &size in parts {
            for number in 0..size {
                let worker = Worker { component: Self::part(size), ..Worker::new(number, 0) };
                let entry = worker.entry();
                cluster.inject(&entry.key, entry.value);
            }
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let minutes = Duration::from_secs(600);
        let handle = Discovery::builder()
            .with_backend(Arc::new(cluster.connect()))
            .operation_timeout(minutes)
            .sync_timeout(minutes);
        let handle = runtime.block_on(handle.build()).expect("a handle");
        Self { runtime, cluster, handle }
    }

    /// The name of the service of this size.
    pub(crate) fn part(size: u64) -> String {
        format!("part-{size}")
    }

    pub(crate) fn view(&self, query: Query) -> View<Worker> {
        self.runtime.block_on(self.handle.view(query)).expect("a view")
    }
}
