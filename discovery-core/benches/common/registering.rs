//! Registrations by one process.

use std::sync::Arc;
use std::time::{Duration, Instant};

use discovery_core::{Discovery, ExecutorKind};
use discovery_memory::Cluster;
use futures_util::future::join_all;
use tokio::runtime::Runtime;

use crate::record::Worker;

/// Whether registrations wait for each other.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    Concurrent,
    OneByOne,
}

/// Registers so many workers with a new process on an empty cluster, and answers how long it took until the last one
/// was stored. Opening the session is part of it; withdrawing them all is not.
pub(crate) fn register(runtime: &Runtime, executor: ExecutorKind, count: u64, pace: Pace) -> Duration {
    runtime.block_on(async {
        let cluster = Cluster::new();
        let handle = Discovery::builder().with_backend(Arc::new(cluster.connect())).executor(executor);
        let handle = handle.build().await.expect("a handle");
        // Each in a service of its own, so that every key differs in its path.
        let workers = (0..count).map(|number| Worker::new(number * 1_000, 0));
        let start = Instant::now();
        let held = match pace {
            Pace::Concurrent => join_all(workers.map(|worker| handle.register(worker))).await,
            Pace::OneByOne => {
                let mut held = Vec::new();
                for worker in workers {
                    held.push(handle.register(worker).await);
                }
                held
            }
        };
        let spent = start.elapsed();
        assert!(held.iter().all(|registration| registration.is_ok()));
        assert_eq!(cluster.record_count() as u64, count);
        assert!(handle.shutdown(Duration::from_secs(30)).await.is_clean());
        spent
    })
}
