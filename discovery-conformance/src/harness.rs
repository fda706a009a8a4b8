//! The suite as a test target: the command line and the output of `cargo test`.

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::cases::all;
use crate::run::{Outcome, claims, run};
use crate::world::Factory;

/// Runs every case on every factory, as `cargo test` would: names can be filtered, `--list` lists. A case is called
/// `backend::case`. A case that does not run is ignored, with its reason.
///
/// ```no_run
/// # use discovery_conformance::Factory;
/// # fn my_factory() -> std::sync::Arc<dyn Factory> { unreachable!() }
/// fn main() -> std::process::ExitCode {
///     discovery_conformance::harness::main(vec![my_factory()])
/// }
/// ```
pub fn main(factories: Vec<Arc<dyn Factory>>) -> ExitCode {
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for factory in factories {
        let known = match claims(&*factory) {
            Ok(known) => Arc::new(known),
            Err(error) => {
                let text = format!("no world could be made: {error}");
                trials.push(Trial::test(format!("{}::world", factory.name()), move || Err(Failed::from(text))));
                continue;
            }
        };
        for case in all() {
            let (factory, known) = (Arc::clone(&factory), Arc::clone(&known));
            let name = format!("{}::{}", factory.name(), case.name);
            trials.push(Trial::ignorable_test(name, move || match run(&*factory, &known, case).outcome {
                Outcome::Passed => Ok(Completion::Completed),
                Outcome::Failed(why) => Err(Failed::from(why)),
                Outcome::NotClaimed(why) | Outcome::NoHook(why) | Outcome::Skipped(why) => {
                    Ok(Completion::ignored_with(why))
                }
            }));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
