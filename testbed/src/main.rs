//! Says where the servers come from, and builds those that are not there: `cargo xtask test` does it before the tests.

use std::process::ExitCode;

use discovery_testbed::Program;

fn main() -> ExitCode {
    for program in Program::ALL {
        match program.command() {
            Ok(words) => {
                let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
                println!("{}: {}", program.name(), words.join(" "));
            }
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
