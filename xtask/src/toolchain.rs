//! What a machine and its toolchain must bring, and how it is completed where it does not.
//!
//! There is no `rust-toolchain.toml`: it would make rustup fetch one named toolchain where another that is good enough is
//! installed. `rust-version` in `Cargo.toml` says what is good enough, and cargo refuses what is older.

use std::process::{Command, Stdio};

/// What a build of everything from nothing takes, GiB, with the servers that Go builds and what it keeps of them.
const NEEDED_GIB: u32 = 10;

/// The cargo that runs this program, so that a step never mixes two toolchains.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Whether `cargo NAME` can be run.
pub(crate) fn has(name: &str) -> bool {
    succeeds(cargo().args([name, "--version"]).stdout(Stdio::null()).stderr(Stdio::null()))
}

/// Prints which toolchain this is, and has rustup add rustfmt and clippy where they are missing, as they are from its
/// minimal profile. A failure is left to the steps that need them: they say what they miss.
pub(crate) fn prepare() {
    succeeds(cargo().arg("--version"));
    if !has("fmt") || !has("clippy") {
        succeeds(Command::new("rustup").args(["component", "add", "rustfmt", "clippy"]));
    }
}

/// Says how much disk is free here, and what is needed. A full disk shows as anything else: the linker ends with a bus
/// error, a server with a broken log.
pub(crate) fn tell_disk() {
    let Ok(df) = Command::new("df").args(["-Pk", "."]).output() else { return };
    let Some(free) = free_kib(&String::from_utf8_lossy(&df.stdout)) else { return };
    let gib = free as f64 / f64::from(1 << 20);
    println!("{gib:.1} GiB of disk are free here; where nothing is built yet, about {NEEDED_GIB} GiB are needed");
}

/// The fourth field of the line below the heading, as POSIX has it for `df -Pk`.
fn free_kib(df: &str) -> Option<u64> {
    df.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()
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
