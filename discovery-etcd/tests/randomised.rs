//! Random operations and faults on servers of the test's own, and what every client saw of them.
//!
//! On a single server, or where `DYN_DISCOVERY_BACKEND` is `etcd-cluster` on three members. Which seeds run, and for how
//! long, is in the environment too ([`Soak::from_environment`]); `cargo xtask soak etcd` sets it. Without, it is one run
//! that is always the same. `RUST_LOG` has the faults and the clients tell what they do.

#[path = "conformance/mod.rs"]
mod worlds;

use discovery_conformance::history::{Soak, Until, soak};
use tracing_subscriber::EnvFilter;

#[test]
fn histories_keep_the_contract() -> Result<(), String> {
    let filter = EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let mut runs = Soak::from_environment("cargo test -p discovery-etcd --test randomised")?;
    // By a real clock one takes minutes.
    if matches!(runs.until, Until::Runs(_)) {
        runs.until = Until::Runs(1);
    }
    soak(&*worlds::forms()[0], &runs).map(drop)
}
