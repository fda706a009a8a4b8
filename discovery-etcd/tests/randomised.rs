//! Random operations and faults on a server of the test's own, and what every client saw of them.
//!
//! Which seeds run, and for how long, is in the environment ([`Soak::from_environment`]); `cargo xtask soak etcd` sets
//! it. Without, it is one run that is always the same. `RUST_LOG` has the faults and the clients tell what they do.

#[path = "conformance/mod.rs"]
mod worlds;

use discovery_conformance::history::{Soak, Until, soak};
use tracing_subscriber::EnvFilter;
use worlds::{Form, OnEtcd};

#[test]
fn histories_keep_the_contract() -> Result<(), String> {
    let filter = EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let mut runs = Soak::from_environment("cargo test -p discovery-etcd --test randomised")?;
    // By a real clock one takes minutes.
    if matches!(runs.until, Until::Runs(_)) {
        runs.until = Until::Runs(1);
    }
    soak(&OnEtcd::new(Form::Single), &runs).map(drop)
}
