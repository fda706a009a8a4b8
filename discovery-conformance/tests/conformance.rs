//! The suite on the embedded backends, or on the one that `DYN_DISCOVERY_BACKEND` names.

mod backends;

use std::process::ExitCode;

fn main() -> ExitCode {
    match backends::chosen() {
        Ok(factories) => discovery_conformance::harness::main(factories),
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
