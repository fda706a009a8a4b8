//! The conformance suite on servers of its own, a single one and three members, with every fault that can be done to
//! them.
//!
//! The names of the cases say which: `cargo test -p discovery-etcd --test conformance -- etcd::`, or `etcd-cluster::`.
//! `DYN_DISCOVERY_BACKEND=etcd cargo test -p discovery-conformance --features etcd` runs it on an etcd that runs already,
//! as a black box.

#[path = "conformance/mod.rs"]
mod worlds;

use std::process::ExitCode;
use std::sync::Arc;

use discovery_conformance::harness;
use tracing_subscriber::EnvFilter;
use worlds::{Form, OnEtcd};

fn main() -> ExitCode {
    // What `RUST_LOG` asks for.
    let filter = EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    harness::main(vec![Arc::new(OnEtcd::new(Form::Single)), Arc::new(OnEtcd::new(Form::Cluster))])
}
