//! The project's own tasks, run as `cargo xtask TASK`.
//!
//! Needs git and a Rust toolchain, and has no dependencies, so that the first run starts at once. What can be checked by
//! reading the tree (public API, licences, boundaries between crates, house rules) is a test in `tests/guards`.

mod instructions;
mod peers;
mod soak;
mod steps;
mod toolchain;

use std::process::ExitCode;

use soak::Soak;

const USAGE: &str = "\
usage: cargo xtask TASK

tasks:
  test                format, lints, documentation, then every test
  api [--bless]       compare the public API of the libraries with docs/api; --bless: write docs/api anew
  instructions [PART] instructions per operation of the core, of those whose name holds PART; needs valgrind
  peers [interop|speed] [PART]
                      side by side with the reference, which is built first: ten minutes when nothing is cached
  soak [BACKEND] [--seconds N] [--seed S]
                      randomised histories with faults, judged by the contract, for N seconds (600), each with the seed
                      after the one before, from S or one of the clock's; --seed alone: that one run.
                      BACKEND: memory (the default), file, etcd, etcd-cluster, kubernetes, kubernetes-containers
  testbed up|down|status [KIND]
                      real servers for people, which stay until they are told to go; `testbed help` has the rest
  deny                cargo-deny with deny.toml: licences, advisories, sources, bans
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        // Every test there is needs Rust alone, so both forms do the same.
        ["test"] => steps::test(),
        ["api"] => steps::api(false),
        ["api", "--bless"] => steps::api(true),
        ["instructions"] => instructions::instructions(""),
        ["instructions", part] if !part.starts_with('-') => instructions::instructions(part),
        ["peers", ref what @ ..] if matches!(what, [] | ["interop" | "speed"] | ["interop" | "speed", _]) => {
            peers::peers(what)
        }
        ["soak", ref rest @ ..] => Soak::parse(rest).map_or_else(unknown, |soak| soak.run()),
        ["testbed", ref rest @ ..] => steps::testbed(rest),
        ["deny"] => steps::deny(),
        ["help" | "-h" | "--help"] => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => unknown(),
    }
}

fn unknown() -> ExitCode {
    eprint!("{USAGE}");
    ExitCode::from(2)
}
