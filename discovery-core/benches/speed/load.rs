//! What a request pays: the newest state, and one record of it.

use std::cell::OnceCell;
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use discovery_core::{Query, Snapshot, View};

use crate::fleet_in_memory::FleetInMemory;
use crate::record::Worker;

/// The sizes of whole sets.
const SETS: [u64; 3] = [10, 10_000, 1_000_000];

/// The sizes of views inside the largest set.
const PARTS: [u64; 4] = [1, 10, 100, 1_000];

pub(crate) fn load(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("load");
    for records in SETS {
        let opened = OnceCell::new();
        group.bench_function(BenchmarkId::from_parameter(records), |bencher| {
            let (_, view): &(FleetInMemory, View<Worker>) = opened.get_or_init(|| {
                let fleet = FleetInMemory::new(records, &[]);
                let view = fleet.view(Query::all());
                (fleet, view)
            });
            assert_eq!(view.load().len() as u64, records);
            bencher.iter(|| view.load());
        });
    }
    group.finish();
}

pub(crate) fn pick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("load_and_pick");
    let opened = OnceCell::new();
    // Opened by the first benchmark that runs, whichever were asked for.
    let open = || -> &(FleetInMemory, View<Worker>) {
        opened.get_or_init(|| {
            let fleet = FleetInMemory::new(1_000_000, &PARTS);
            let whole = fleet.view(Query::all());
            (fleet, whole)
        })
    };
    for records in PARTS {
        group.bench_function(BenchmarkId::from_parameter(records), |bencher| {
            let (fleet, whole) = open();
            let view = fleet.view(Query::path(["fleet", &FleetInMemory::part(records)]));
            assert_eq!(view.load().len() as u64, records);
            assert!(whole.load().len() > 1_000_000);
            let mut number = 0_u64;
            bencher.iter(|| {
                // Any order but that of the keys.
                number = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
                let snapshot: Snapshot<Worker> = view.load();
                let worker = snapshot.pick(number >> 20).expect("a worker");
                black_box(worker.value().number)
            });
        });
        group.bench_function(BenchmarkId::new("reader", records), |bencher| {
            let (fleet, _) = open();
            let mut reader = fleet.view(Query::path(["fleet", &FleetInMemory::part(records)])).reader();
            let mut number = 0_u64;
            bencher.iter(|| {
                number = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
                black_box(reader.load().pick(number >> 20).expect("a worker").value().number)
            });
        });
    }
    group.finish();
}
