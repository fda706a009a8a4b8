//! The conformance suite on servers of its own, with every fault that can be done to them: on a single one, `etcd`, and on
//! three members, `etcd-cluster`.
//!
//! `DYN_DISCOVERY_BACKEND` picks one of the two, as the first part of each case's name does. `RUST_LOG` has the faults and
//! the clients tell what they do. On an etcd that runs already, as a black box:
//! `DYN_DISCOVERY_BACKEND=etcd cargo test -p discovery-conformance --features etcd --test conformance`.

#[path = "conformance/mod.rs"]
mod worlds;

use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let filter = EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    discovery_conformance::harness::main(worlds::forms())
}
