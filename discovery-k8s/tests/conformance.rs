//! The conformance suite on real control planes, with every fault that can be done to them: in pod mode, and in container
//! mode.

#[path = "support/client.rs"]
mod client;
#[path = "conformance/mod.rs"]
mod worlds;

use std::process::ExitCode;
use std::sync::Arc;

use discovery_conformance::harness;
use discovery_deploy::Mode;
use worlds::OnKubernetes;

fn main() -> ExitCode {
    harness::main(OnKubernetes::in_modes(Mode::ALL).into_iter().map(|factory| Arc::new(factory) as _).collect())
}
