//! Random operations and faults on a server of the test's own, and what every client saw of them.
//!
//! Which seeds run, and for how long, is in the environment ([`Soak::from_environment`]); `cargo xtask soak etcd` sets
//! it. Without, it is one short run that is always the same.

#[path = "conformance/mod.rs"]
mod worlds;

use discovery_conformance::history::{Config, SECONDS_VARIABLE, SEED_VARIABLE, Soak, run, soak};
use tracing_subscriber::EnvFilter;
use worlds::{Form, OnEtcd};

const AGAIN: &str = "cargo test -p discovery-etcd --test randomised";

fn is_set(variable: &str) -> bool {
    std::env::var_os(variable).is_some_and(|text| !text.is_empty())
}

#[test]
fn histories_keep_the_contract() -> Result<(), String> {
    // What `RUST_LOG` asks for.
    let filter = EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let single = OnEtcd::new(Form::Single);
    if is_set(SEED_VARIABLE) || is_set(SECONDS_VARIABLE) {
        return soak(&single, &Soak::from_environment(AGAIN)?).map(drop);
    }
    let summary = run(&single, &Config::new(1).rounds(3))?;
    println!("{summary}");
    if summary.violations.is_empty() { Ok(()) } else { Err(format!("{:#?}", summary.violations)) }
}
