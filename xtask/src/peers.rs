//! The project beside the reference, NVIDIA Dynamo's own runtime.

use std::process::ExitCode;

use crate::toolchain::{cargo, succeeds};

/// Builds the reference's side, which is no part of the workspace, and ours; then runs both against each other.
pub(crate) fn peers(what: &[&str]) -> ExitCode {
    println!("== the reference");
    // In its own directory, whose settings it needs.
    if !succeeds(
        cargo()
            // Where the other side looks for it, whatever directory the environment names.
            .args(["build", "--release", "--locked", "--target-dir", "target"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../peers/dynamo")),
    ) {
        return ExitCode::FAILURE;
    }
    println!("== servers");
    if !succeeds(cargo().args(["run", "--quiet", "--package", "discovery-testbed", "--", "build"])) {
        return ExitCode::FAILURE;
    }
    println!("== side by side");
    let mut run = cargo();
    run.args(["run", "--release", "--package", "discovery-compare", "--"]).args(what);
    if succeeds(&mut run) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
