//! The suite on real etcd servers, with every fault that can be done to them: a single one, and three members.

#[path = "etcd/mod.rs"]
mod etcd;

use std::process::ExitCode;
use std::sync::Arc;

use discovery_conformance::harness;
use etcd::{Form, OnEtcd};

fn main() -> ExitCode {
    harness::main(vec![Arc::new(OnEtcd::new(Form::Single)), Arc::new(OnEtcd::new(Form::Cluster))])
}
