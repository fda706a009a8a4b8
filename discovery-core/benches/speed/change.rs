//! From a change of the store to the consumer that waits for it.

use std::cell::{OnceCell, RefCell};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use discovery_core::Query;

use crate::changing::Changing;
use crate::fleet_in_memory::FleetInMemory;
use crate::prefixes::Prefixes;
use crate::record::{Worker, mixed};

/// The core's own path, on one thread: two wake-ups of tasks, and the decoding of one value. Any of the records changes,
/// or, `hot`, the same thousand.
pub(crate) fn delivered(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("change_delivered");
    for (name, records, among) in
        [("1000", 1_000, 1_000), ("1000000", 1_000_000, 1_000_000), ("1000000_hot", 1_000_000, 1_000)]
    {
        let changing = OnceCell::new();
        group.bench_function(name, |bencher| {
            let changing = changing.get_or_init(|| RefCell::new(Changing::new(records, among)));
            bencher.iter_custom(|count| changing.borrow_mut().update(count));
        });
    }
    group.finish();
}

/// The same from end to end: the store in memory, the handle's thread, the consumer's thread, and the wake-up of each
/// thread by the operating system.
pub(crate) fn through_threads(criterion: &mut Criterion) {
    const RECORDS: u64 = 1_000_000;
    let opened = OnceCell::new();
    criterion.bench_function("change_through_threads/1000000", |bencher| {
        let (fleet, changes) = opened.get_or_init(|| {
            let fleet = FleetInMemory::new(RECORDS, &[]);
            let mut changes = fleet.view(Query::all()).changes();
            fleet.runtime.block_on(changes.next()).expect("a first batch");
            (fleet, RefCell::new((changes, 0_u64)))
        });
        bencher.iter_custom(|count| {
            let (changes, done) = &mut *changes.borrow_mut();
            let mut spent = Duration::ZERO;
            for _ in 0..count {
                *done += 1;
                let entry = Worker::new(mixed(*done) % RECORDS, *done).entry();
                spent += fleet.runtime.block_on(async {
                    let start = Instant::now();
                    fleet.cluster.inject(&entry.key, entry.value);
                    changes.next().await.expect("a batch");
                    start.elapsed()
                });
            }
            spent
        });
    });
}

/// One change that ten prefix views show, with no other view and with 9,990 of them.
pub(crate) fn prefix_views(criterion: &mut Criterion) {
    const VIEWS: usize = 10_000;
    let mut group = criterion.benchmark_group("change_for_ten_of");
    for views in [10, VIEWS] {
        let prefixes = OnceCell::new();
        group.bench_function(BenchmarkId::from_parameter(views), |bencher| {
            let prefixes = prefixes.get_or_init(|| RefCell::new(Prefixes::new(views, VIEWS)));
            bencher.iter_custom(|count| prefixes.borrow_mut().update(count));
        });
    }
    group.finish();
}
