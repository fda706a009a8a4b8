//! Random operations and faults on a control plane of the test's own, and what every client saw of them.
//!
//! Pods register, or where `DYN_DISCOVERY_BACKEND` is `kubernetes-containers` one container of each. Which seeds run, and
//! for how long, is in the environment too ([`Soak::from_environment`]). Without, it is one short run that is always the
//! same.

#[path = "support/client.rs"]
mod client;
#[path = "conformance/mod.rs"]
mod worlds;

use discovery_conformance::Factory;
use discovery_conformance::history::{Config, SECONDS_VARIABLE, SEED_VARIABLE, Soak, run, soak};
use discovery_deploy::Mode;
use worlds::OnKubernetes;

const AGAIN: &str = "cargo test -p discovery-k8s --test randomised";

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|text| !text.is_empty())
}

/// In the mode that is asked for, or else by pods.
fn factory() -> OnKubernetes {
    let asked = std::env::var("DYN_DISCOVERY_BACKEND").unwrap_or_default();
    let [pods, containers] = OnKubernetes::in_modes([Mode::Pod, Mode::Container]);
    if asked == containers.name() { containers } else { pods }
}

#[test]
fn histories_keep_the_contract() -> Result<(), String> {
    let factory = factory();
    if is_set(SEED_VARIABLE) || is_set(SECONDS_VARIABLE) {
        return soak(&factory, &Soak::from_environment(AGAIN)?).map(drop);
    }
    let summary = run(&factory, &Config::new(1).rounds(2))?;
    println!("{summary}");
    // Where nothing happens the contract is kept too.
    assert!(summary.operations >= 400 && summary.fault_count() >= 8 && summary.faults.len() >= 4, "{summary}");
    assert!(summary.observations >= 1_000, "{summary}");
    if summary.violations.is_empty() { Ok(()) } else { Err(format!("{:#?}", summary.violations)) }
}
