//! A thousand registrations by one process.

use criterion::{Criterion, SamplingMode};
use discovery_core::ExecutorKind;

use crate::registering::{Pace, register};

pub(crate) fn thousand(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut group = criterion.benchmark_group("register_1000");
    group.sampling_mode(SamplingMode::Flat).sample_size(20);
    for (name, pace) in [("concurrently", Pace::Concurrent), ("one_by_one", Pace::OneByOne)] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                (0..count).map(|_| register(&runtime, ExecutorKind::Dedicated, 1_000, pace)).sum()
            });
        });
    }
    group.finish();
}
