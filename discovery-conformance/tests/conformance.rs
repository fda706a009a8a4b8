//! The suite on the embedded backends, or on the one that `DYN_DISCOVERY_BACKEND` names.

use std::process::ExitCode;

use discovery_conformance::{backends, harness};

fn main() -> ExitCode {
    match backends::chosen(&std::env::var("DYN_DISCOVERY_BACKEND").unwrap_or_default()) {
        Ok(factories) => harness::main(factories),
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
