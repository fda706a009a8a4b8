//! What grows with the set and what does not, and the first sync: see `docs/benchmarks.md`.
//!
//! The sides of each comparison take turns in one process, so that whatever else the machine does meets both alike.
//! Times are those that the processor gave to the process. Each line is the median of its rounds, with the smallest and
//! the largest.

#[path = "common/changing.rs"]
mod changing;
#[path = "common/processor_clock.rs"]
mod clock;
#[path = "common/prefixes.rs"]
mod prefixes;
#[path = "common/record.rs"]
mod record;
#[path = "common/scripted.rs"]
mod scripted;
#[path = "common/syncing.rs"]
mod syncing;

use std::time::Duration;

use changing::Changing;
use discovery_core::backend::Entry;
use prefixes::Prefixes;
use record::fleet;

const ROUNDS: usize = 15;

/// How many changes one round makes on each side.
const CHANGES: u64 = 2_000;

fn main() {
    // `cargo bench` passes `--bench`; what is no flag picks benchmarks by a part of their name.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let picked = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part));
    if picked("change_delivered") {
        change_delivered();
    }
    if picked("change_for_ten_of") {
        change_for_ten();
    }
    for records in [100_000, 1_000_000] {
        for (name, made) in [("ordered", fleet as fn(u64) -> _), ("unordered", syncing::unordered)] {
            let name = format!("first_sync/{records}/{name}");
            if picked(&name) {
                first_sync(&name, records, made);
            }
        }
    }
}

/// One change delivered among a thousand records, and among a million: to any of them, and to the same thousand.
fn change_delivered() {
    let (few, many) = (1_000, 1_000_000);
    let mut small = Changing::new(few, few);
    let mut large = Changing::new(many, many);
    compare("change_delivered", few, many, |_| small.update(CHANGES), |_| large.update(CHANGES));
    drop(large);
    let mut large = Changing::new(many, few);
    compare("change_delivered_hot", few, many, |_| small.update(CHANGES), |_| large.update(CHANGES));
}

/// One change for ten views, where there are no others, and where there are 9,990.
fn change_for_ten() {
    let (few, many) = (prefixes::MATCHING, 10_000);
    let (mut small, mut large) = (Prefixes::new(few, many), Prefixes::new(many, many));
    compare("change_for_ten_of", few as u64, many as u64, |_| small.update(CHANGES), |_| large.update(CHANGES));
}

fn compare(
    name: &str,
    few: u64,
    many: u64,
    mut small: impl FnMut(usize) -> Duration,
    mut large: impl FnMut(usize) -> Duration,
) {
    let each = |spent: Duration| spent.as_nanos() as f64 / CHANGES as f64;
    // The first round warms both sides up.
    let rounds: Vec<(f64, f64)> = (0..=ROUNDS).map(|round| (each(small(round)), each(large(round)))).skip(1).collect();
    report(&format!("{name}/{few}"), "ns", rounds.iter().map(|(small, _)| *small));
    report(&format!("{name}/{many}"), "ns", rounds.iter().map(|(_, large)| *large));
    report(&format!("{name}/{many} over {few}"), "times", rounds.iter().map(|(small, large)| large / small));
}

/// The first sync of a set: as a whole, undecoded, and beyond what decoding the same values takes.
fn first_sync(name: &str, records: u64, made: fn(u64) -> Vec<Entry>) {
    const SYNCS: usize = 7;
    let each = |spent: Duration| spent.as_nanos() as f64 / records as f64;
    let rounds: Vec<[f64; 3]> = (0..=SYNCS)
        .map(|_| {
            let entries = made(records);
            let decoding = syncing::decode(&entries);
            let typed = syncing::typed(entries);
            let untyped = syncing::untyped(made(records));
            [decoding, typed, untyped].map(each)
        })
        .skip(1)
        .collect();
    report(&format!("{name}/decoding alone"), "ns per record", rounds.iter().map(|round| round[0]));
    report(&format!("{name}/typed view"), "ns per record", rounds.iter().map(|round| round[1]));
    report(&format!("{name}/beyond decoding"), "ns per record", rounds.iter().map(|round| round[1] - round[0]));
    report(&format!("{name}/undecoded view"), "ns per record", rounds.iter().map(|round| round[2]));
}

fn report(name: &str, unit: &str, figures: impl Iterator<Item = f64>) {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_unstable_by(f64::total_cmp);
    let (median, least, most) = (figures[figures.len() / 2], figures[0], figures[figures.len() - 1]);
    let digits = if median < 100.0 { 2 } else { 0 };
    println!("{name:<55} {median:>9.digits$} {unit}  [{least:.digits$} .. {most:.digits$}]");
}
