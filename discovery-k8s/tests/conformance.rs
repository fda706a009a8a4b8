//! The conformance suite on a real control plane, with every fault that can be done to one.

mod suite;
mod support {
    pub(crate) mod client;
}

use std::process::ExitCode;
use std::sync::Arc;

use discovery_conformance::harness;
use suite::OnKubernetes;

fn main() -> ExitCode {
    harness::main(vec![Arc::new(OnKubernetes::default())])
}
