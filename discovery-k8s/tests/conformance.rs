//! The conformance suite on real control planes, with every fault that can be done to them.

#[path = "support/client.rs"]
mod client;
#[path = "conformance/mod.rs"]
mod worlds;

use std::process::ExitCode;
use std::sync::Arc;

use discovery_conformance::harness;
use worlds::OnKubernetes;

fn main() -> ExitCode {
    harness::main(vec![Arc::new(OnKubernetes::default())])
}
