//! Random operations and faults on a control plane of the test's own, and what every client saw of them.
//!
//! Which seeds run, and for how long, is in the environment ([`Soak::from_environment`]). Without, it is one short run
//! that is always the same.

#[path = "support/client.rs"]
mod client;
#[path = "conformance/mod.rs"]
mod worlds;

use discovery_conformance::history::{Config, SECONDS_VARIABLE, SEED_VARIABLE, Soak, run, soak};
use discovery_deploy::Mode;
use worlds::OnKubernetes;

const AGAIN: &str = "cargo test -p discovery-k8s --test randomised";

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|text| !text.is_empty())
}

#[test]
fn histories_keep_the_contract() -> Result<(), String> {
    let [factory] = OnKubernetes::in_modes([Mode::Pod]);
    if is_set(SEED_VARIABLE) || is_set(SECONDS_VARIABLE) {
        return soak(&factory, &Soak::from_environment(AGAIN)?).map(drop);
    }
    let summary = run(&factory, &Config::new(1).rounds(2))?;
    println!("{summary}");
    if summary.violations.is_empty() { Ok(()) } else { Err(format!("{:#?}", summary.violations)) }
}
