//! One operation so many times, for counting the instructions that it takes: see `cargo xtask instructions`.

#[path = "common/changing.rs"]
mod changing;
#[path = "common/wall_clock.rs"]
mod clock;
#[path = "common/prefixes.rs"]
mod prefixes;
#[path = "common/record.rs"]
mod record;
#[path = "common/registering.rs"]
mod registering;
#[path = "common/scripted.rs"]
mod scripted;
#[path = "common/syncing.rs"]
mod syncing;

use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;

use changing::Changing;
use discovery_core::{ExecutorKind, Query, View};
use prefixes::{MATCHING, Prefixes};
use record::{PER_SERVICE, Worker, fleet, service};
use registering::{Pace, register};
use scripted::Script;

/// The largest set here. Under valgrind a million takes minutes.
const MANY: u64 = 100_000;

/// An operation by its name. Takes how often, and does nothing that depends on it but the operation.
type Operation = (&'static str, fn(u64));

const OPERATIONS: &[Operation] = &[
    ("load", |count| load(10, count)),
    ("load_large", |count| load(MANY, count)),
    ("load_and_pick", pick),
    ("reader_and_pick", read_and_pick),
    ("change_delivered", |count| timed(Changing::new(1_000, 1_000).update(count))),
    ("change_delivered_large", |count| timed(Changing::new(MANY, MANY).update(count))),
    ("change_for_ten", |count| timed(Prefixes::new(MATCHING, 1_000).update(count))),
    ("change_for_ten_of_1000", |count| timed(Prefixes::new(1_000, 1_000).update(count))),
    ("decode", |count| timed(syncing::decode(&fleet(count)))),
    ("make_entry", |count| drop(black_box(fleet(count)))),
    ("first_sync", |count| timed(syncing::typed(fleet(count)))),
    ("make_entry_unordered", |count| drop(black_box(syncing::unordered(count)))),
    ("first_sync_unordered", |count| timed(syncing::typed(syncing::unordered(count)))),
    ("first_sync_undecoded", |count| timed(syncing::untyped(fleet(count)))),
    ("register", |count| registrations(count, Pace::Concurrent)),
    ("register_one_by_one", |count| registrations(count, Pace::OneByOne)),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let run = match arguments[..] {
        [name, count] => {
            let operation = OPERATIONS.iter().find(|(known, _)| *known == name);
            operation.zip(count.parse::<u64>().ok())
        }
        _ => None,
    };
    match run {
        Some(((_, operation), count)) => {
            operation(count);
            ExitCode::SUCCESS
        }
        None => {
            let names: Vec<_> = OPERATIONS.iter().map(|(name, _)| *name).collect();
            eprintln!("usage: instructions OPERATION COUNT\noperations: {}", names.join(" "));
            ExitCode::from(2)
        }
    }
}

/// Here the instructions count, not the time.
fn timed(_: Duration) {}

fn load(records: u64, count: u64) {
    let script = Script::new(fleet(records));
    let view: View<Worker> = script.view(Query::all());
    for _ in 0..count {
        black_box(view.load());
    }
}

fn pick(count: u64) {
    let script = Script::new(fleet(MANY));
    let view: View<Worker> = script.view(Query::path(["fleet", &service(PER_SERVICE)]));
    for number in 0..count {
        let snapshot = view.load();
        black_box(snapshot.pick(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20).expect("a worker").value().number);
    }
}

fn read_and_pick(count: u64) {
    let script = Script::new(fleet(MANY));
    let view: View<Worker> = script.view(Query::path(["fleet", &service(PER_SERVICE)]));
    let mut reader = view.reader();
    for number in 0..count {
        let snapshot = reader.load();
        black_box(snapshot.pick(number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20).expect("a worker").value().number);
    }
}

fn registrations(count: u64, pace: Pace) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    register(&runtime, ExecutorKind::Current, count, pace);
}
