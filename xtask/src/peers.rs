//! The project beside the reference, NVIDIA Dynamo's own runtime.

use std::process::{Command, ExitCode};

use crate::toolchain::{cargo, succeeds};

/// What would build one of the sides in another way than its own settings say, or put it where nobody looks.
const SETTINGS: [&str; 4] = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "CARGO_BUILD_TARGET"];

/// Builds the reference's side, which is no part of the workspace, and ours; then runs both against each other.
pub(crate) fn peers(what: &[&str]) -> ExitCode {
    println!("== the reference");
    // In its own directory, whose settings it needs.
    if !succeeds(
        plain_cargo()
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
    let mut run = plain_cargo();
    run.args(["run", "--release", "--package", "discovery-compare", "--"]).args(what);
    if succeeds(&mut run) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// [`cargo`] without what the environment says of flags.
fn plain_cargo() -> Command {
    let mut cargo = cargo();
    SETTINGS.iter().for_each(|name| {
        cargo.env_remove(name);
    });
    cargo
}
