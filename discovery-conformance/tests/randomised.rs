//! Random operations and faults on memory, and what every client saw of them.
//!
//! On memory, or on the backend that `DYN_DISCOVERY_BACKEND` names. `DYN_DISCOVERY_CONFORMANCE_SEED` sets the first seed, `DYN_DISCOVERY_CONFORMANCE_RUNS` how many runs there are.

#[path = "randomised/planted.rs"]
mod planted;
// The broken backends of the suite's own teeth: those of them that a history can show.
#[allow(dead_code, reason = "not every one of them shows in a history")]
#[path = "teeth/watching.rs"]
mod watching;
#[path = "teeth/wrap.rs"]
mod wrap;
#[allow(dead_code, reason = "not every one of them shows in a history")]
#[path = "teeth/writing.rs"]
mod writing;

use std::sync::Arc;
use std::time::Duration;

use discovery_conformance::Factory;
use discovery_conformance::backends::{self, Memory};
use discovery_conformance::history::{Config, RUNS_VARIABLE, SEED_VARIABLE, Summary, run};
use discovery_conformance::wrappers::{Chaos, Distribution, Latency, Rates};
use discovery_core::backend::Backend;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

fn played(factory: &dyn Factory, config: &Config) -> Summary {
    run(factory, config).unwrap_or_else(|error| panic!("seed {}: no run: {error}", config.seed))
}

/// Memory, where an hour takes no time, unless another backend is asked for.
fn factories() -> Vec<Arc<dyn Factory>> {
    let asked = std::env::var("DYN_DISCOVERY_BACKEND").ok().filter(|name| !name.is_empty());
    backends::chosen(asked.as_deref().unwrap_or("memory")).unwrap_or_else(|text| panic!("{text}"))
}

/// The seeds to run: those asked for, or a few that stay the same.
fn seeds() -> impl Iterator<Item = u64> {
    let first = number(SEED_VARIABLE);
    let runs = number(RUNS_VARIABLE).unwrap_or(if first.is_some() { 1 } else { 3 });
    let first = first.unwrap_or(1);
    first..first + runs
}

#[test]
fn histories_keep_the_contract() {
    for factory in factories() {
        let mut broken = Vec::new();
        for seed in seeds() {
            let summary = played(&*factory, &Config::new(seed));
            println!("{}: {summary}", factory.name());
            if !summary.violations.is_empty() {
                broken.push(seed);
            }
        }
        assert!(broken.is_empty(), "{}: the runs of these seeds break the contract: {broken:?}", factory.name());
    }
}

/// Two runs of one seed are the same story: the same operations, the same faults, the same judgement.
#[test]
fn the_seed_decides_the_run() {
    let story = |seed| {
        let summary = played(&Memory, &Config::new(seed).rounds(2));
        (summary.operations, summary.faults, summary.views, summary.violations)
    };
    let (one, again, other) = (story(77), story(77), story(78));
    assert_eq!(one, again);
    assert_ne!(one, other);
}

/// What goes wrong by chance besides the faults that the world does is mended as they are.
#[test]
fn histories_keep_the_contract_under_chaos_and_latency() {
    let chaos = |n: usize, backend: Arc<dyn Backend>| -> Arc<dyn Backend> {
        Chaos::around(backend, n as u64, Rates::default().sessions(0.0))
    };
    let latency = |n: usize, backend: Arc<dyn Backend>| -> Arc<dyn Backend> {
        let by = Distribution::Tail(Duration::from_millis(3), Duration::from_millis(20));
        Latency::around(backend, n as u64, by)
    };
    for config in [Config::new(5).rounds(2).wrap(chaos), Config::new(6).rounds(2).wrap(latency)] {
        let summary = played(&Memory, &config);
        println!("{summary}");
        assert!(summary.violations.is_empty(), "{summary}");
    }
}
