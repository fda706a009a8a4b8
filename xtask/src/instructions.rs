//! How many instructions the operations of the core take, counted by valgrind: figures that repeat on a busy machine.

use std::process::{Command, ExitCode};

use crate::toolchain::cargo;

/// The operations of `discovery-core/benches/instructions.rs`, each with the two counts that it is run with. What is done
/// once cancels out in the difference.
const OPERATIONS: &[(&str, u64, u64)] = &[
    ("load", 10_000, 30_000),
    ("load_large", 10_000, 30_000),
    ("load_and_pick", 10_000, 30_000),
    ("reader_and_pick", 10_000, 30_000),
    ("change_delivered", 1_000, 3_000),
    ("change_delivered_large", 1_000, 3_000),
    ("change_for_ten", 300, 900),
    ("change_for_ten_of_1000", 300, 900),
    ("make_entry", 10_000, 30_000),
    ("decode", 10_000, 30_000),
    ("first_sync", 10_000, 30_000),
    ("first_sync_undecoded", 10_000, 30_000),
    ("make_entry_unordered", 10_000, 30_000),
    ("first_sync_unordered", 10_000, 30_000),
    ("register", 500, 1_500),
    ("register_one_by_one", 500, 1_500),
];

/// Prints the instructions of each operation whose name holds `part`.
pub(crate) fn instructions(part: &str) -> ExitCode {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!(
            "valgrind is not installed: apt install valgrind, dnf install valgrind, or https://valgrind.org for others"
        );
        return ExitCode::FAILURE;
    }
    let picked: Vec<_> = OPERATIONS.iter().filter(|(name, _, _)| name.contains(part)).collect();
    if picked.is_empty() {
        let names: Vec<_> = OPERATIONS.iter().map(|(name, _, _)| *name).collect();
        eprintln!("no operation is called {part:?}: there are {}", names.join(", "));
        return ExitCode::from(2);
    }
    println!("{:<25} {:>15}", "operation", "instructions");
    for &&(name, few, many) in &picked {
        let counts = count(name, few).and_then(|first| Ok((first, count(name, many)?)));
        match counts {
            Ok((first, second)) => {
                println!("{name:<25} {:>15.0}", second.saturating_sub(first) as f64 / (many - few) as f64);
            }
            Err(message) => {
                eprintln!("{name}: {message}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// The instructions of one run: cargo builds the benchmark and starts it under valgrind.
fn count(operation: &str, times: u64) -> Result<u64, String> {
    let runner = r#"["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]"#;
    let mut run = cargo();
    run.args(["bench", "--quiet", "--package", "discovery-core", "--bench", "instructions"])
        .args(["--config", &format!("target.'cfg(unix)'.runner = {runner}")])
        .args(["--", operation, &times.to_string()]);
    let output = run.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    match collected {
        Some(count) if output.status.success() => Ok(count),
        _ => Err(format!("valgrind counted nothing: {said}")),
    }
}
