//! What a machine must bring, and how it is completed where it does not.
//!
//! There is no `rust-toolchain.toml`: it would make rustup fetch one named toolchain where another that is good enough is
//! installed. `rust-version` in `Cargo.toml` says what is good enough, and cargo refuses what is older.

use std::path::Path;
use std::process::{Command, Stdio};

/// The cargo that runs this program, so that a step never mixes two toolchains.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Whether `cargo NAME` can be run.
pub(crate) fn has(name: &str) -> bool {
    silent(cargo().args([name, "--version"]))
}

/// Prints which toolchain this is, and has rustup add rustfmt and clippy where they are missing, as they are from its
/// minimal profile; completes the machine for the example on Redis. A failure is left to those that need what is missing:
/// they say so.
pub(crate) fn prepare() {
    succeeds(cargo().arg("--version"));
    if !has("fmt") || !has("clippy") {
        succeeds(Command::new("rustup").args(["component", "add", "rustfmt", "clippy"]));
    }
    if !silent(Command::new("redis-server").arg("--version")) && may_install() {
        let install = || succeeds(apt().args(["install", "--yes", "--no-install-recommends", "redis-server"]));
        // The lists of packages may be old, or none.
        if !install() && succeeds(apt().arg("update")) {
            install();
        }
    }
}

/// Whether packages can be installed here without asking anybody, and without a service being started: by the root of a
/// container, where nothing runs services.
fn may_install() -> bool {
    let root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout.trim_ascii() == b"0");
    root && !Path::new("/run/systemd/system").exists() && silent(Command::new("apt-get").arg("--version"))
}

/// In runlevel 1 a package's scripts start no service.
fn apt() -> Command {
    let mut apt = Command::new("apt-get");
    apt.args(["--quiet", "--option", "DPkg::Lock::Timeout=60"])
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("RUNLEVEL", "1");
    apt
}

/// Whether a command can be run and succeeds, of which nothing is to be seen.
fn silent(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Runs a command to its end. What keeps it from starting is printed.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            eprintln!("cannot run {}: {error}", command.get_program().to_string_lossy());
            false
        }
    }
}
