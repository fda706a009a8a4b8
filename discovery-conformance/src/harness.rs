//! The suite as a test target: the command line and the output of `cargo test`.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use libtest_mimic::{Arguments, Completion, Failed, Trial};

use crate::backends;
use crate::case::Case;
use crate::cases::all;
use crate::report::{Report, Verdict};
use crate::run::{Claims, Outcome, Ran, claims, run};
use crate::world::{Absent, Clock, Factory, Hook};

/// The variable that names a directory for reports: `BACKEND.txt`, `.json`, `.xml` (JUnit) and `.md`.
pub const REPORTS_VARIABLE: &str = "DISCOVERY_CONFORMANCE_REPORTS";

/// What ran on one backend.
struct Sheet {
    backend: String,
    claims: Claims,
    /// The worst verdict that its factory allows.
    expects: Verdict,
    /// The faults that its factory says it lacks, where it says so.
    missing: Option<BTreeSet<Hook>>,
    ran: Mutex<Vec<Ran>>,
}

/// Runs every case on every factory, as `cargo test` would: names can be filtered, `--list` lists. A case is called
/// `backend::case`. A case that does not run is ignored, with its reason; where no store can be had the run fails or its
/// cases are ignored, as [`Factory::absent`] says, whatever the filter is.
///
/// The verdict on each backend is printed last, and decides the exit code: a whole run fails where it is worse than
/// [`Factory::expects`], one of some cases alone where one of them failed or came to no judgement. Reports are written
/// where [`REPORTS_VARIABLE`] says.
///
/// ```no_run
/// # use discovery_conformance::Factory;
/// # fn my_factory() -> std::sync::Arc<dyn Factory> { unreachable!() }
/// fn main() -> std::process::ExitCode {
///     discovery_conformance::harness::main(vec![my_factory()])
/// }
/// ```
pub fn main(factories: Vec<Arc<dyn Factory>>) -> ExitCode {
    let suite: Vec<_> = all().collect();
    let reports = std::env::var_os(REPORTS_VARIABLE);
    let right = judged(&Arguments::from_args(), factories, &suite, reports.as_deref());
    if right { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs these cases on these factories. Answers whether all is as it should be.
fn judged(
    arguments: &Arguments,
    factories: Vec<Arc<dyn Factory>>,
    suite: &[&'static Case],
    reports: Option<&OsStr>,
) -> bool {
    let (started, mut errors) = (Started::now(), Vec::new());
    let (mut sheets, mut paused, mut real, mut ignored) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for factory in factories {
        // To list the cases takes no store.
        if arguments.list {
            ignored.extend(not_run(&*factory, suite, "listed"));
            continue;
        }
        match store(&*factory) {
            Ok(claims) => {
                let (backend, expects) = (factory.name().to_owned(), factory.expects());
                let missing = factory.missing().map(BTreeSet::from_iter);
                let sheet = Arc::new(Sheet { backend, claims, expects, missing, ran: Mutex::default() });
                let trials = if sheet.claims.clock == Clock::Paused { &mut paused } else { &mut real };
                trials.extend(suite.iter().map(|case| trial(&factory, &sheet, case)));
                sheets.push(sheet);
            }
            Err(Absent::Ignored(why)) => ignored.extend(not_run(&*factory, suite, &why)),
            Err(Absent::Fails(why)) => errors.push(format!("{}: no store: {why}", factory.name())),
        }
    }
    let began = Instant::now();
    // What computes comes first and alone: beside it, what waits by a real clock would wait for the processor.
    let waiting = std::thread::available_parallelism().map_or(4, |count| count.get() * 4);
    for (trials, threads) in [(paused, None), (real, Some(waiting)), (ignored, None)] {
        if !trials.is_empty() {
            // On a real clock cases mostly wait: more of them at once than there are processors.
            let arguments = Arguments { test_threads: arguments.test_threads.or(threads), ..arguments.clone() };
            if libtest_mimic::run(&arguments, trials).has_failed() {
                errors.push("a case failed".to_owned());
            }
        }
    }
    for sheet in sheets {
        let again = started.again(&sheet.backend, arguments.filter.is_some());
        let report = sheet.report(suite, began, again);
        let (expects, missing) = (sheet.expects, &sheet.missing);
        if report.cases.is_empty() {
            continue;
        }
        println!("{}: {}", report.backend, report.conclusion());
        errors.extend(unexpected(&report, expects, missing.as_ref()).map(|why| format!("{}: {why}", report.backend)));
        if let Some(directory) = reports
            && let Err(error) = write(&report, directory.as_ref())
        {
            errors.push(format!("the reports were not written: {error}"));
        }
    }
    // Last, where it is seen.
    errors.iter().for_each(|line| eprintln!("error: {line}"));
    errors.is_empty()
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
fn not_run(factory: &dyn Factory, suite: &[&'static Case], why: &str) -> Vec<Trial> {
    let ignored = |case: &&Case| {
        let why = why.to_owned();
        Trial::ignorable_test(format!("{}::{}", factory.name(), case.name), || Ok(Completion::ignored_with(why)))
    };
    suite.iter().map(ignored).collect()
}

/// Why a run is no success, where its report says so.
fn unexpected(report: &Report, expects: Verdict, missing: Option<&BTreeSet<Hook>>) -> Option<String> {
    let skipped: Vec<_> = report.cases.iter().filter(|ran| matches!(ran.outcome, Outcome::Skipped(_))).collect();
    if let Some(first) = skipped.first() {
        let why = "came to no judgement: an offered hook must do its fault, or not be offered";
        return Some(format!("{} and {} more {why}", first.name, skipped.len() - 1));
    }
    // Of a few cases that somebody picked, none may be about this backend.
    if report.is_filtered() {
        return None;
    }
    if report.verdict.reaches(expects) {
        return missing.and_then(|missing| other_hooks(&report.missing_hooks, missing));
    }
    let mut why = format!("the verdict is {}, and its factory expects {expects}", report.verdict);
    if !report.missing_hooks.is_empty() {
        let missing: Vec<_> = report.missing_hooks.iter().map(ToString::to_string).collect();
        why.push_str(&format!("; missing hooks: {}", missing.join(", ")));
    }
    if !report.unproven.is_empty() {
        let unproven: Vec<_> = report.unproven.iter().copied().collect();
        why.push_str(&format!("; claimed, and no case ran: {}", unproven.join(", ")));
    }
    Some(why)
}

/// How the hooks that are missing differ from those of which the factory says so.
fn other_hooks(found: &BTreeSet<Hook>, said: &BTreeSet<Hook>) -> Option<String> {
    let names = |hooks: Vec<&Hook>| hooks.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let (lost, new) = (names(found.difference(said).collect()), names(said.difference(found).collect()));
    if !lost.is_empty() {
        return Some(format!("hooks were lost: {lost}: put them back, or name them in `Factory::missing`"));
    }
    (!new.is_empty()).then(|| format!("hooks are not missing: {new}: take them out of `Factory::missing`"))
}

impl Sheet {
    fn report(&self, suite: &[&'static Case], began: Instant, again: String) -> Report {
        let mut ran = self.ran.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Cases end in any order; the contract has one.
        let place = |name| suite.iter().position(|case| case.name == name);
        ran.sort_by_key(|ran| place(ran.name));
        Report::new(&self.backend, self.claims.clone(), ran, suite.len(), began.elapsed(), again)
    }
}

/// How this program was started.
struct Started {
    /// Its package: the suite's own, or that of a backend. Nobody but Cargo says so.
    package: Option<String>,
    program: String,
    given: Vec<String>,
    /// The backend that its environment names.
    wanted: Option<String>,
}

impl Started {
    fn now() -> Self {
        let wanted = std::env::var("DYN_DISCOVERY_BACKEND").ok().filter(|wanted| !wanted.is_empty());
        let mut arguments = std::env::args();
        let program = arguments.next().unwrap_or_default();
        Self { package: std::env::var("CARGO_PKG_NAME").ok(), program, given: arguments.collect(), wanted }
    }

    /// The command that does the same on this backend again. `picked`: whether what was given picks cases.
    fn again(&self, backend: &str, picked: bool) -> String {
        let Self { package, program, given, wanted } = self;
        let is_own = package.as_deref() == Some(env!("CARGO_PKG_NAME"));
        // The suite's own target runs the backends that it is told to, each of which is a feature of it.
        let wanted = if is_own { Some(backend) } else { wanted.as_deref() };
        let mut command = wanted.map_or_else(String::new, |wanted| format!("DYN_DISCOVERY_BACKEND={wanted} "));
        match (package, target(program)) {
            (Some(package), Some(target)) => {
                command.push_str(&format!("cargo test -p {package}"));
                if is_own && backends::is_feature(backend) {
                    command.push_str(&format!(" --features {backend}"));
                }
                command.push_str(&format!(" --test {target}"));
            }
            // What Cargo does not run is no target that could be named.
            _ => command.push_str(program),
        }
        let mut arguments = given.clone();
        if !picked && !is_own {
            arguments.push(format!("{backend}::"));
        }
        if package.is_some() && !arguments.is_empty() {
            arguments.insert(0, "--".to_owned());
        }
        [vec![command], arguments].concat().join(" ")
    }
}

/// The test target that this program is: its name without what Cargo adds to it.
fn target(program: &str) -> Option<&str> {
    let name = std::path::Path::new(program).file_stem()?.to_str()?;
    Some(name.rsplit_once('-').map_or(name, |(target, _)| target))
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

#[cfg(all(test, feature = "memory"))]
mod tests {
    use async_trait::async_trait;
    use discovery_core::backend::Backend;
    use discovery_core::{Error, ErrorKind, Result};

    use super::*;
    use crate::backends::Memory;
    use crate::world::{Fault, World};

    /// Memory, whose worlds do what they do and whose factory says what it says.
    struct Changed {
        hooks: Vec<Hook>,
        does: bool,
        impossible: bool,
        expects: Verdict,
        missing: Option<Vec<Hook>>,
    }

    impl Changed {
        /// With these hooks, which do their faults, and the defaults of a factory.
        fn with(hooks: &[Hook]) -> Self {
            let hooks = hooks.to_vec();
            Self { hooks, does: true, impossible: false, expects: Verdict::PassedBlackBox, missing: None }
        }
    }

    #[async_trait]
    impl Factory for Changed {
        fn name(&self) -> &str {
            "changed"
        }

        fn clock(&self) -> Clock {
            Clock::Paused
        }

        fn hooks(&self) -> Vec<Hook> {
            self.hooks.clone()
        }

        fn impossible(&self, fault: Hook) -> Option<&'static str> {
            (self.impossible && fault == Hook::Deny).then_some("nobody is refused anything")
        }

        fn expects(&self) -> Verdict {
            self.expects
        }

        fn missing(&self) -> Option<Vec<Hook>> {
            self.missing.clone()
        }

        async fn world(&self) -> Result<Box<dyn World>> {
            Ok(Box::new(Place { world: Memory.world().await?, does: self.does }))
        }
    }

    struct Place {
        world: Box<dyn World>,
        does: bool,
    }

    #[async_trait]
    impl World for Place {
        async fn owner(&self, n: usize) -> Result<Arc<dyn Backend>> {
            self.world.owner(n).await
        }

        async fn inject(&self, fault: Fault) -> Result<()> {
            if self.does { self.world.inject(fault).await } else { Err(Error::new(ErrorKind::Unsupported, "not done")) }
        }
    }

    const ALL: [Hook; 3] = [Hook::Cut, Hook::Write, Hook::Deny];

    fn green(factory: Changed, filter: &[&str]) -> bool {
        let names = ["reg_01_ok_means_listed", "flt_01_cut_and_healed", "flt_15_refused_at_open_is_typed"];
        let suite: Vec<_> = all().filter(|case| names.contains(&case.name)).collect();
        assert_eq!(suite.len(), names.len());
        let arguments = Arguments::from_iter(["test", "--quiet"].iter().chain(filter));
        judged(&arguments, vec![Arc::new(factory)], &suite, None)
    }

    #[test]
    fn a_hook_that_does_nothing_fails_the_run() {
        let changed = |does| Changed { does, ..Changed::with(&ALL) };
        assert!(green(changed(true), &[]));
        assert!(!green(changed(false), &[]));
        assert!(!green(changed(false), &["flt_01"]));
    }

    #[test]
    fn a_verdict_worse_than_expected_fails_the_run() {
        let changed = |hooks: &[Hook], expects| Changed { expects, ..Changed::with(hooks) };
        assert!(green(changed(&ALL, Verdict::Passed), &[]));
        assert!(!green(changed(&[Hook::Cut], Verdict::Passed), &[]));
        assert!(green(changed(&[Hook::Cut], Verdict::PassedBlackBox), &[]));
    }

    #[test]
    fn a_fault_that_cannot_exist_is_no_missing_hook() {
        let changed = |impossible| Changed { impossible, expects: Verdict::Passed, ..Changed::with(&[Hook::Cut]) };
        assert!(!green(changed(false), &[]));
        assert!(green(changed(true), &[]));
    }

    #[test]
    fn of_a_few_cases_nothing_is_expected_but_that_they_pass() {
        let changed = || Changed { expects: Verdict::Passed, ..Changed::with(&[Hook::Cut]) };
        assert!(green(changed(), &["flt_01"]));
        assert!(green(changed(), &["flt_15"]));
    }

    #[test]
    fn a_hook_that_is_lost_fails_the_run_whatever_the_verdict() {
        let changed = |hooks: &[Hook], missing: Option<&[Hook]>| Changed {
            missing: missing.map(<[Hook]>::to_vec),
            ..Changed::with(hooks)
        };
        let cut = [Hook::Cut];
        assert!(green(changed(&cut, None), &[]));
        assert!(green(changed(&cut, Some(&[Hook::Deny])), &[]));
        assert!(!green(changed(&cut, Some(&[])), &[]));
        // One that is there now is counted on from now on.
        assert!(!green(changed(&ALL, Some(&[Hook::Deny])), &[]));
        // Of a few cases nothing is known.
        assert!(green(changed(&cut, Some(&[])), &["flt_01"]));
    }

    #[test]
    fn a_program_is_the_target_that_cargo_made_it_of() {
        assert_eq!(target("/t/debug/deps/conformance-0123456789abcdef"), Some("conformance"));
        assert_eq!(target("/t/debug/deps/my_suite-0123456789abcdef"), Some("my_suite"));
        assert_eq!(target("conformance"), Some("conformance"));
    }

    /// A package, a target or a feature that is not there runs nothing.
    #[test]
    fn a_run_is_done_again_by_a_command_that_names_what_there_is() {
        let again = |package: Option<&str>, given: &[&str], wanted: Option<&str>, backend, picked| {
            let started = Started {
                package: package.map(str::to_owned),
                program: "/t/debug/deps/conformance-0123456789abcdef".to_owned(),
                given: given.iter().map(ToString::to_string).collect(),
                wanted: wanted.map(str::to_owned),
            };
            started.again(backend, picked)
        };
        let other = Some("discovery-k8s");
        let command = "cargo test -p discovery-k8s --test conformance --";
        assert_eq!(again(other, &[], None, "kubernetes", false), format!("{command} kubernetes::"));
        assert_eq!(again(other, &["--nocapture"], None, "k", false), format!("{command} --nocapture k::"));
        assert_eq!(
            again(other, &["k::reg_"], Some("k"), "k", true),
            format!("DYN_DISCOVERY_BACKEND=k {command} k::reg_")
        );
        let own = Some(env!("CARGO_PKG_NAME"));
        let command =
            "DYN_DISCOVERY_BACKEND=memory cargo test -p discovery-conformance --features memory --test conformance";
        assert_eq!(again(own, &[], None, "memory", false), command);
        assert_eq!(again(own, &["reg_"], Some("mem"), "memory", true), format!("{command} -- reg_"));
        assert!(!again(own, &[], None, "kubernetes", false).contains("--features"));
        let program = "/t/debug/deps/conformance-0123456789abcdef";
        assert_eq!(
            again(None, &[], None, "kubernetes", false),
            format!("{program} kubernetes::"),
            "no target of Cargo's"
        );
        assert_eq!(again(None, &["flt_"], None, "kubernetes", true), format!("{program} flt_"));
        let started = Started::now();
        assert_eq!(started.package.as_deref(), own, "Cargo says which it is");
    }
}
