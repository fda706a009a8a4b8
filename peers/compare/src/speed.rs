//! What does the same work cost on each side? Same data, same machine, one run.
//!
//! The sides take turns, each in a process of its own, so that its processor time and its memory are its own. See
//! `docs/benchmarks.md` for the method.

mod crash;
mod delay;
mod fleet;
mod kubernetes;
mod list;
mod load;
mod lookup;
mod memory;
mod outage;
mod result;
mod sync;
mod watchers;

use futures_util::future::LocalBoxFuture;

use crate::Outcome;
use crate::peer::{Peer, Which};

pub(crate) use result::{Comparison, Figures, Goal};

type Measurement = fn() -> LocalBoxFuture<'static, Outcome<Vec<Comparison>>>;

/// What is measured, first what other work on the machine disturbs least.
const MEASUREMENTS: &[(&str, Measurement)] = &[
    ("watchers", || Box::pin(watchers::measure())),
    ("memory", || Box::pin(memory::measure())),
    ("fleet", || Box::pin(fleet::measure())),
    ("list", || Box::pin(list::measure())),
    ("lookup", || Box::pin(lookup::measure())),
    ("crash", || Box::pin(crash::measure())),
    ("outage", || Box::pin(outage::measure())),
    ("sync", || Box::pin(sync::measure())),
    ("delay", || Box::pin(delay::measure())),
    ("kubernetes", || Box::pin(kubernetes::measure())),
];

/// The names of all measurements.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    MEASUREMENTS.iter().map(|(name, _)| *name)
}

/// Measures whatever `part` is a part of the name of, and hands each result over as soon as it is there. Answers which
/// could not be measured, and why: the others are.
pub(crate) async fn run(part: &str, mut keep: impl FnMut(&str, Vec<Comparison>) -> Outcome) -> Outcome<Vec<String>> {
    let mut failed = Vec::new();
    for (name, measure) in MEASUREMENTS.iter().filter(|(name, _)| name.contains(part)) {
        println!("-- {name}");
        match measure().await {
            Ok(comparisons) => {
                comparisons.iter().for_each(|comparison| println!("{}", crate::report::line(comparison)));
                keep(name, comparisons)?;
            }
            Err(error) => {
                println!("not measured: {error}");
                failed.push(format!("{name}: {error}"));
            }
        }
    }
    Ok(failed)
}

/// That side of two.
fn of(peers: &[Peer; 2], which: Which) -> &Peer {
    if which == Which::Ours { &peers[0] } else { &peers[1] }
}

/// A store inside the process.
async fn in_memory(which: Which) -> Outcome<Peer> {
    in_memory_with(which, &[]).await
}

/// The same, with more in its environment.
async fn in_memory_with(which: Which, more: &[(&str, &str)]) -> Outcome<Peer> {
    let name = if which == Which::Ours { "memory" } else { "mem" };
    let environment = [("DYN_EVENT_PLANE", "zmq"), ("DYN_REQUEST_PLANE", "tcp"), ("DYN_DISCOVERY_BACKEND", name)];
    let environment: Vec<_> =
        environment.iter().chain(more).map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    Peer::start(which, &environment).await
}

/// Both sides' figures, round by round in turns, from what one round of one side comes to. A side that fails once has no
/// figures but its error.
async fn in_turns(rounds: usize, mut round: impl AsyncFnMut(Which) -> Result<Vec<f64>, String>) -> [Vec<Figures>; 2] {
    let mut sides: [Vec<Vec<f64>>; 2] = Default::default();
    let mut failed: [Option<String>; 2] = Default::default();
    for _ in 0..rounds {
        for (side, which) in Which::BOTH.into_iter().enumerate() {
            if failed[side].is_some() {
                continue;
            }
            match round(which).await {
                Ok(values) => {
                    sides[side].resize(values.len(), Vec::new());
                    sides[side].iter_mut().zip(values).for_each(|(column, value)| column.push(value));
                }
                Err(error) => failed[side] = Some(error),
            }
        }
    }
    let columns = sides.iter().map(Vec::len).max().unwrap_or_default().max(1);
    [0, 1].map(|side| match &failed[side] {
        Some(error) => vec![Figures::Fails(error.clone()); columns],
        None => sides[side].iter().cloned().map(Figures::Rounds).collect(),
    })
}
