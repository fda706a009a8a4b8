//! What a record costs in memory: see `docs/benchmarks.md`.
//!
//! Counted at the allocator: the bytes that were asked for, and in how many pieces. What the allocator adds to each
//! piece shows in the resident set, on Linux.

#[path = "common/record.rs"]
mod record;
#[path = "common/scripted.rs"]
mod scripted;

use std::alloc::System;

use bytes::Bytes;
use discovery_core::backend::{Change, Entry};
use discovery_core::{Query, Record, View, ViewOptions};
use record::{PER_SERVICE, Worker, fleet, mixed};
use scripted::Script;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const RECORDS: u64 = 1_000_000;

/// What is in use.
#[derive(Clone, Copy)]
struct Used {
    bytes: f64,
    pieces: f64,
    resident: Option<f64>,
}

impl Used {
    fn now() -> Self {
        let stats = ALLOCATOR.stats();
        // A piece that grows or shrinks in place counts as allocated and freed by the difference.
        let bytes = stats.bytes_allocated as f64 - stats.bytes_deallocated as f64;
        Self { bytes, pieces: stats.allocations as f64 - stats.deallocations as f64, resident: resident() }
    }

    fn report(self, name: &str, before: Self, payload: f64) {
        let each = |after: f64, before: f64| (after - before) / RECORDS as f64;
        let (bytes, pieces) = (each(self.bytes, before.bytes), each(self.pieces, before.pieces));
        let resident = match (self.resident, before.resident) {
            (Some(after), Some(before)) => format!("{:>7.1} resident", each(after, before)),
            _ => "resident set unknown".to_owned(),
        };
        println!("{name:<40} {bytes:>7.1} bytes in {pieces:>5.2} pieces, {resident}; payload {payload:.1}");
    }
}

fn main() {
    println!("per record, {RECORDS} records");
    raw_and_decoded();
    path_each();
}

/// The fleet: first the raw store with no view over it but an empty one, then views over the same store.
fn raw_and_decoded() {
    let nothing = Used::now();
    let entries = fleet(RECORDS);
    let payload = payload(&entries);
    Used::now().report("the store's answer, in entries", nothing, payload);
    let script = Script::new(entries);

    let empty: View<Worker> = script.view(Query::path(["nowhere"]));
    assert!(empty.load().is_empty());
    let raw = Used::now();
    raw.report("raw store", nothing, payload);

    churn(&script, &empty);
    let raw = Used::now();
    raw.report("raw store, after as many changes", nothing, payload);

    let undecoded = script.discovery.entries(Query::kind(Worker::KIND), ViewOptions::default());
    let undecoded: View<Bytes> = script.runtime.block_on(undecoded).expect("a view");
    assert_eq!(undecoded.load().len() as u64, RECORDS);
    let with_undecoded = Used::now();
    with_undecoded.report("undecoded view, apart", raw, payload);

    let decoded: View<Worker> = script.view(Query::all());
    assert_eq!(decoded.load().len() as u64, RECORDS);
    let with_decoded = Used::now();
    with_decoded.report("decoded view, apart", with_undecoded, payload);
}

/// Changes as many records as there are, here and there.
fn churn(script: &Script, view: &View<Worker>) {
    const AT_ONCE: u64 = 100;
    for first in (0..RECORDS).step_by(AT_ONCE as usize) {
        let change = |step: u64| Change::Put(Worker::new(mixed(step) % RECORDS, 1).entry());
        script.commit((first..first + AT_ONCE).map(change).collect());
        script.runtime.block_on(tokio::task::yield_now());
    }
    assert!(view.load().is_synced());
}

/// The worst case for paths: no two records share one.
fn path_each() {
    let nothing = Used::now();
    let numbers = (0..RECORDS).map(|number| Worker::new(number * PER_SERVICE, 0));
    let mut entries: Vec<Entry> = numbers.map(|worker| worker.entry()).collect();
    entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    let payload = payload(&entries);
    let script = Script::new(entries);
    let _view: View<Worker> = script.view(Query::path(["nowhere"]));
    Used::now().report("raw store, a path for each record", nothing, payload);
}

/// The bytes of a key's path and instance, and of the value.
fn payload(entries: &[Entry]) -> f64 {
    let bytes = entries.iter().map(|entry| entry.key.path().as_str().len() + size_of::<u64>() + entry.value.len());
    bytes.sum::<usize>() as f64 / entries.len() as f64
}

fn resident() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}
