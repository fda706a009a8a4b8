//! Random operations and faults, and what every client saw of them.
//!
//! On memory, or on the backend that `DYN_DISCOVERY_BACKEND` names: `file`, say. Which seeds run, and for how long, is in
//! the environment too ([`Soak::from_environment`]); `cargo xtask soak` sets it.

mod docs;
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

use async_trait::async_trait;
use discovery_conformance::backends::{self, Memory};
use discovery_conformance::history::{Config, Soak, Summary, Until, run, soak};
use discovery_conformance::wrappers::{Chaos, Distribution, Latency, Rates};
use discovery_conformance::{Clock, Factory, Fault, Hook, World};
use discovery_core::backend::Backend;
use discovery_core::{Error, ErrorKind, Result};

fn played(factory: &dyn Factory, config: &Config) -> Summary {
    run(factory, config).unwrap_or_else(|error| panic!("seed {}: no run: {error}", config.seed))
}

/// Memory, where an hour takes no time, unless another backend is asked for.
fn factories() -> Vec<Arc<dyn Factory>> {
    let asked = std::env::var("DYN_DISCOVERY_BACKEND").ok().filter(|name| !name.is_empty());
    backends::chosen(asked.as_deref().unwrap_or("memory")).unwrap_or_else(|text| panic!("{text}"))
}

#[test]
fn histories_keep_the_contract() -> Result<(), String> {
    let runs = Soak::from_environment("cargo test -p discovery-conformance --test randomised")?;
    factories().iter().try_for_each(|factory| soak(&**factory, &runs).map(drop))
}

/// On a real store too, where nobody names a backend: a short run, since its clock is the one on the wall.
#[cfg(feature = "file")]
#[test]
fn a_short_history_on_file_keeps_the_contract() {
    let summary = played(&backends::File::new(), &Config::new(17).rounds(1).operations(100));
    println!("{summary}");
    assert!(summary.violations.is_empty(), "{summary}: {:#?}", summary.violations);
    assert!(summary.operations >= 100 && summary.fault_count() > 0 && summary.observations > 100, "{summary}");
}

/// Runs that broke the contract once: by a defect of the core that is mended (905, 3089), or to the eyes of a validator
/// that asked too much.
const ONCE_BROKEN: [u64; 7] = [902, 905, 908, 938, 1911, 3063, 3089];

#[test]
fn histories_that_once_broke_the_contract_keep_it() {
    for seed in ONCE_BROKEN {
        // By the faults that there were then: with one more it would be another story.
        let then = Hook::ALL.into_iter().filter(|hook| *hook != Hook::LoseMember);
        let summary = played(&Memory, &Config::new(seed).faults(then));
        assert!(summary.violations.is_empty(), "{summary}: {:#?}", summary.violations);
        // What docs/conformance.md says of a run.
        assert!(summary.operations >= 2_000 && summary.fault_count() >= 40 && summary.faults.len() >= 12, "{summary}");
        assert!(summary.observations >= 10_000 && summary.views >= 100, "{summary}");
    }
}

/// Whoever finds a violation after a night learns which of all the runs to do again.
#[test]
fn a_soak_ends_with_the_first_run_that_breaks_the_contract() {
    let broken = wrap::Twisted { factory: Arc::new(Memory), make: || Arc::new(watching::LosesRemovals) };
    let runs = Soak { seed: 7, until: Until::Elapsed(Duration::from_secs(3600)), command: "cargo test".to_owned() };
    let told = soak(&broken, &runs).expect_err("what is not removed is found");
    assert!(told.contains("seed 7 breaks the contract"), "{told}");
    assert!(told.ends_with("DYN_DISCOVERY_BACKEND=twisted DYN_DISCOVERY_CONFORMANCE_SEED=7 cargo test"), "{told}");
}

/// Memory whose worlds cannot do one of the faults that they offer.
struct Unable;

struct WithoutCuts(Box<dyn World>);

#[async_trait]
impl Factory for Unable {
    fn name(&self) -> &str {
        "unable"
    }

    fn clock(&self) -> Clock {
        Memory.clock()
    }

    fn hooks(&self) -> Vec<Hook> {
        Memory.hooks()
    }

    async fn world(&self) -> Result<Box<dyn World>> {
        Ok(Box::new(WithoutCuts(Memory.world().await?)))
    }
}

#[async_trait]
impl World for WithoutCuts {
    async fn owner(&self, n: usize) -> Result<Arc<dyn Backend>> {
        self.0.owner(n).await
    }

    async fn inject(&self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Cut(_) => Err(Error::new(ErrorKind::Unavailable, "there is nothing to be cut")),
            fault => self.0.inject(fault).await,
        }
    }
}

/// Else a hook that is lost would go unnoticed, in runs that keep the contract because nothing happens.
#[test]
fn a_fault_that_fails_each_time_is_no_fault_and_fails_the_soak() {
    let summary = played(&Unable, &Config::new(1));
    assert!(!summary.faults.contains_key(&Hook::Cut) && summary.failed.contains_key(&Hook::Cut), "{summary}");
    assert!(summary.violations.is_empty(), "{summary}: {:#?}", summary.violations);
    let runs = Soak { seed: 1, until: Until::Runs(3), command: "cargo test".to_owned() };
    let told = soak(&Unable, &runs).expect_err("what cannot be done is offered");
    assert!(told.starts_with("unable: faults that failed each time: cut "), "{told}");
}

/// Two runs of one seed are the same story: the same operations, the same faults, the same judgement, all at the same time.
#[test]
fn the_seed_decides_the_run() {
    let story = |seed| {
        let summary = played(&Memory, &Config::new(seed).rounds(2));
        // The digest tells a difference that has changed no count yet.
        (summary.operations, summary.faults, summary.views, summary.violations, summary.digest)
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
        assert!(summary.violations.is_empty(), "{summary}: {:#?}", summary.violations);
    }
}
