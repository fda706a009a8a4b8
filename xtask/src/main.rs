//! The project's own tasks, run as `cargo xtask TASK`.
//!
//! Needs git and a Rust toolchain, and has no dependencies, so that the first run starts at once. What can be checked by
//! reading the tree (public API, licences, boundaries between crates, house rules) is a test in `tests/guards`.

mod instructions;
mod peers;
mod steps;
mod toolchain;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask TASK

tasks:
  test [--embedded]   format, lints, documentation, then every test; --embedded: only what needs Rust alone
  api [--bless]       compare the public API of the libraries with docs/api; --bless: write docs/api anew
  instructions [PART] instructions per operation of the core, of those whose name holds PART; needs valgrind
  soak [RUNS [SEED]]  long randomised runs of the conformance suite on memory: 200 from a seed of the clock's
  peers [interop|speed] [PART]
                      side by side with the reference, which is built first: ten minutes when nothing is cached
  deny                cargo-deny with deny.toml: licences, advisories, sources, bans
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        // Every test there is needs Rust alone, so both forms do the same.
        ["test"] | ["test", "--embedded"] => steps::test(),
        ["api"] => steps::api(false),
        ["api", "--bless"] => steps::api(true),
        ["instructions"] => instructions::instructions(""),
        ["instructions", part] if !part.starts_with('-') => instructions::instructions(part),
        ["soak"] => steps::soak("200", None),
        ["soak", runs] if number(runs) => steps::soak(runs, None),
        ["soak", runs, seed] if number(runs) && number(seed) => steps::soak(runs, Some(seed)),
        ["peers", ref what @ ..] if matches!(what, [] | ["interop" | "speed"] | ["interop" | "speed", _]) => {
            peers::peers(what)
        }
        ["deny"] => steps::deny(),
        ["help" | "-h" | "--help"] => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        _ => {
            eprint!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn number(text: &str) -> bool {
    text.parse::<u64>().is_ok()
}
