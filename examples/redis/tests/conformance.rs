//! The conformance suite on servers of its own.

mod support;

use std::process::ExitCode;
use std::sync::Arc;

use support::world::OnRedis;

fn main() -> ExitCode {
    discovery_conformance::harness::main(vec![Arc::new(OnRedis)])
}
