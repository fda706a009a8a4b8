//! The suite on real etcd servers, with every fault that can be done to them: a single one, and three members.

#[path = "etcd/mod.rs"]
mod etcd;

use std::process::ExitCode;
use std::sync::Arc;

use discovery_conformance::harness;
use etcd::{Form, OnEtcd};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // What `RUST_LOG` asks for.
    let filter = EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    harness::main(vec![Arc::new(OnEtcd::new(Form::Single)), Arc::new(OnEtcd::new(Form::Cluster))])
}
