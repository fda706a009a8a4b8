//! The suite as a test target: the command line and the output of `cargo test`.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::case::Case;
use crate::cases::all;
use crate::report::Report;
use crate::run::{Claims, Outcome, Ran, claims, run};
use crate::world::{Absent, Clock, Factory};

/// The variable that names a directory for reports: `BACKEND.txt`, `.json`, `.xml` (JUnit) and `.md`.
pub const REPORTS_VARIABLE: &str = "DISCOVERY_CONFORMANCE_REPORTS";

/// What ran on one backend.
struct Sheet {
    backend: String,
    claims: Claims,
    ran: Mutex<Vec<Ran>>,
}

/// Runs every case on every factory, as `cargo test` would: names can be filtered, `--list` lists. A case is called
/// `backend::case`. A case that does not run is ignored, with its reason; where no store can be had the run fails or its
/// cases are ignored, as [`Factory::absent`] says, whatever the filter is. Reports are written where
/// [`REPORTS_VARIABLE`] says.
///
/// ```no_run
/// # use discovery_conformance::Factory;
/// # fn my_factory() -> std::sync::Arc<dyn Factory> { unreachable!() }
/// fn main() -> std::process::ExitCode {
///     discovery_conformance::harness::main(vec![my_factory()])
/// }
/// ```
pub fn main(factories: Vec<Arc<dyn Factory>>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    let (mut trials, mut sheets, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    for factory in factories {
        // To list the cases takes no store.
        if arguments.list {
            trials.extend(ignored(&*factory, "listed"));
            continue;
        }
        match store(&*factory) {
            Ok(claims) => {
                let sheet = Arc::new(Sheet { backend: factory.name().to_owned(), claims, ran: Mutex::default() });
                trials.extend(all().map(|case| trial(&factory, &sheet, case)));
                sheets.push(sheet);
            }
            Err(Absent::Ignored(why)) => trials.extend(ignored(&*factory, &why)),
            Err(Absent::Fails(why)) => missing.push(format!("{}: no store: {why}", factory.name())),
        }
    }
    // On a real clock cases mostly wait: more of them at once than there are processors.
    if arguments.test_threads.is_none() && sheets.iter().any(|sheet| sheet.claims.clock == Clock::Real) {
        arguments.test_threads = Some(std::thread::available_parallelism().map_or(4, |count| count.get() * 4));
    }
    let began = Instant::now();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Some(directory) = std::env::var_os(REPORTS_VARIABLE) {
        for sheet in sheets {
            let report = sheet.report(began);
            if let Err(error) = write(&report, directory.as_ref()) {
                eprintln!("the reports were not written: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    // Last, where it is seen: none of the lines above is about these backends.
    missing.iter().for_each(|line| eprintln!("error: {line}"));
    if missing.is_empty() { conclusion.exit_code() } else { ExitCode::FAILURE }
}

/// What the backend says of itself, in a first world.
fn store(factory: &dyn Factory) -> Result<Claims, Absent> {
    match factory.absent() {
        Some(absent) => Err(absent),
        None => claims(factory).map_err(Absent::Fails),
    }
}

fn trial(factory: &Arc<dyn Factory>, sheet: &Arc<Sheet>, case: &'static Case) -> Trial {
    let (factory, sheet) = (Arc::clone(factory), Arc::clone(sheet));
    Trial::ignorable_test(format!("{}::{}", sheet.backend, case.name), move || {
        let ran = run(&*factory, &sheet.claims, case);
        let outcome = ran.outcome.clone();
        sheet.ran.lock().unwrap_or_else(PoisonError::into_inner).push(ran);
        match outcome {
            Outcome::Passed => Ok(Completion::Completed),
            Outcome::Failed(why) => Err(Failed::from(why)),
            Outcome::NotApplicable(why) | Outcome::NoHook(why) | Outcome::Skipped(why) => {
                Ok(Completion::ignored_with(why))
            }
        }
    })
}

/// The cases of a backend that none of them runs on.
fn ignored(factory: &dyn Factory, why: &str) -> Vec<Trial> {
    let ignored = |case: &Case| {
        let why = why.to_owned();
        Trial::ignorable_test(format!("{}::{}", factory.name(), case.name), || Ok(Completion::ignored_with(why)))
    };
    all().map(ignored).collect()
}

impl Sheet {
    fn report(&self, began: Instant) -> Report {
        let mut ran = self.ran.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Cases end in any order; the contract has one.
        let place = |name| all().position(|case| case.name == name);
        ran.sort_by_key(|ran| place(ran.name));
        // Cargo tells a test which package it belongs to: the suite's own, or that of a backend.
        let package = std::env::var("CARGO_PKG_NAME").unwrap_or_else(|_| env!("CARGO_PKG_NAME").to_owned());
        let again = format!("DYN_DISCOVERY_BACKEND={} cargo test -p {package}", self.backend);
        Report::new(&self.backend, self.claims.clone(), ran, all().count(), began.elapsed(), again)
    }
}

fn write(report: &Report, directory: &std::path::Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let json = report.json().map_err(std::io::Error::other)?;
    for (extension, text) in
        [("txt", report.text()), ("json", json), ("xml", report.junit()), ("md", report.markdown())]
    {
        std::fs::write(directory.join(format!("{}.{extension}", report.backend)), text)?;
    }
    Ok(())
}
