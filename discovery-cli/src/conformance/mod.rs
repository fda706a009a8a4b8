//! `discovery conformance`: the suite on the backend in force.

mod apart;
mod progress;
mod room;
mod suite;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use discovery_conformance::backends::Linked;
use discovery_conformance::{Case, Factory, Report, cases};
use discovery_core::{BackendFactory, Environment, Registry};

use self::room::Room;
use crate::backends::chosen;
use crate::failure::{Failure, Outcome, tell};
use crate::output::line;
use crate::signals::StopSignals;

/// What is told where a signal ends a run.
const STOPPED: &str = "conformance: stopped before the end: there is no verdict";

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Run the cases whose names contain this alone. May be given several times.
    #[arg(long = "case", value_name = "NAME")]
    cases: Vec<String>,

    /// Also do random operations under random faults, as this seed decides, and judge what every client saw.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// List the cases and run none.
    #[arg(long, conflicts_with_all = ["seed", "format", "report"])]
    list: bool,

    /// What the report looks like.
    #[arg(short, long = "output", value_enum, value_name = "FORMAT", default_value_t)]
    format: Format,

    /// Write the report to this file too: .txt, .json, .xml (JUnit) or .md.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// Where the stores are made. Without it, a backend whose store outlives the run is judged in a process of its own, and
    /// what that stored is removed when it has ended.
    #[arg(long, hide = true, value_name = "ROOM")]
    within: Option<OsString>,
}

/// What a report looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
    /// For services that collect test results.
    Junit,
    /// For a page of documentation.
    Markdown,
}

impl Format {
    /// As the file's extension says.
    fn of(path: &Path) -> Outcome<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("txt") => Ok(Self::Text),
            Some("json") => Ok(Self::Json),
            Some("xml") => Ok(Self::Junit),
            Some("md") => Ok(Self::Markdown),
            _ => Err(Failure::input(path, "the format is not clear: name the file .txt, .json, .xml or .md")),
        }
    }

    fn render(self, report: &Report) -> Outcome<String> {
        match self {
            Self::Text => Ok(report.text()),
            Self::Json => report.json().map_err(|error| Failure::failed(format!("the report: {error}"))),
            Self::Junit => Ok(report.junit()),
            Self::Markdown => Ok(report.markdown()),
        }
    }
}

/// Where the report goes besides standard output. Opened before anything runs, so that no run is for nothing.
struct Copy<'a> {
    path: &'a Path,
    format: Format,
    file: File,
}

impl<'a> Copy<'a> {
    fn open(path: &'a Path) -> Outcome<Self> {
        let format = Format::of(path)?;
        // What an earlier run left there stays until there is something in its place.
        let file = File::options().write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|error| Failure::input(path, format!("{error}: name a file that can be written")))?;
        Ok(Self { path, format, file })
    }

    fn write(mut self, report: &Report) -> Outcome {
        let text = self.format.render(report)?;
        let written = self.file.set_len(0).and_then(|()| self.file.write_all(text.as_bytes()));
        written.map_err(|error| Failure::failed(format!("{}: {error}", self.path.display())))
    }
}

/// What makes the stores, and what is withdrawn where a signal ends the run.
struct Stores {
    factory: Arc<dyn Factory>,
    linked: Option<Arc<Linked>>,
}

fn stores(backend: BackendFactory, within: Option<&OsStr>) -> Outcome<Stores> {
    let own = match within {
        Some(within) => room::factory(backend.name, within)?,
        #[cfg(feature = "memory")]
        None if backend.name == "memory" => Some(Arc::new(discovery_conformance::backends::Memory) as _),
        None => None,
    };
    Ok(match own {
        Some(factory) => Stores { factory, linked: None },
        None => {
            let linked = Arc::new(Linked::new(backend, Environment::process()));
            Stores { factory: Arc::clone(&linked) as _, linked: Some(linked) }
        }
    })
}

/// On Kubernetes an owner is a pod, and this process is at most one.
fn refuse_pods(backend: &str) -> Outcome {
    if backend != "kubernetes" {
        return Ok(());
    }
    Err(Failure::usage(
        "conformance: on Kubernetes each owner is a pod of its own, which this process cannot be: \
         `cargo test -p discovery-k8s --test conformance` runs the suite on control planes that it starts, and \
         `discovery doctor` judges this cluster",
    ))
}

/// Exits well only where the verdict is a success.
pub(crate) async fn conformance(backend: Option<&str>, verbose: u8, arguments: Arguments) -> Outcome {
    let selected = selected(&arguments.cases)?;
    if arguments.list {
        let mut out = std::io::stdout().lock();
        return selected.iter().try_for_each(|case| line(&mut out, case.name));
    }
    let (name, _) = chosen(backend)?;
    let backend = *Registry::linked().find(&name)?;
    refuse_pods(backend.name)?;
    let copy = arguments.report.as_deref().map(Copy::open).transpose()?;
    if arguments.within.is_none()
        && let Some(room) = Room::make(backend.name).await?
    {
        return apart::run(room).await;
    }
    let Stores { factory, linked } = stores(backend, arguments.within.as_deref())?;
    if verbose == 0 {
        // Some cases panic to see what comes of it, and what else panics is in the report.
        std::panic::set_hook(Box::new(|_| {}));
    }
    let mut signals = StopSignals::listen()?;
    let again = again(factory.name(), &arguments);
    if selected.len() < cases().count() {
        tell(format!("{} of {} cases are selected: the backend gets no verdict", selected.len(), cases().count()));
    }
    let run = tokio::task::spawn_blocking(move || suite::run(&*factory, &selected, arguments.seed, again));
    let report = tokio::select! {
        report = run => report.unwrap_or_else(|error| Err(Failure::failed(format!("the suite: {error}")))),
        by = signals.stop() => Err(Failure::Stopped(STOPPED.to_owned(), by)),
    };
    let withdrawn = match linked {
        Some(linked) => linked.withdraw().await,
        None => Ok(()),
    };
    let report = report?;
    if let Some(copy) = copy {
        copy.write(&report)?;
    }
    line(&mut std::io::stdout().lock(), arguments.format.render(&report)?.trim_end())?;
    withdrawn.map_err(|error| {
        Failure::failed(format!("conformance: records are left: {error}: they go with their time to live"))
    })?;
    judged(&report)
}

/// What the run comes to for whoever looks at the exit code alone.
fn judged(report: &Report) -> Outcome {
    match report.verdict.is_success() {
        true => Ok(()),
        false => Err(Failure::failed(format!("conformance: {}: {}", report.backend, report.conclusion()))),
    }
}

/// The cases whose names contain one of these; all where there are none.
fn selected(wanted: &[String]) -> Outcome<Vec<&'static Case>> {
    if let Some(unknown) = wanted.iter().find(|part| !cases().any(|case| case.name.contains(part.as_str()))) {
        return Err(Failure::usage(format!(
            "--case {unknown:?}: no case has this in its name: see `discovery conformance --list`"
        )));
    }
    let is_wanted = |case: &&Case| wanted.is_empty() || wanted.iter().any(|part| case.name.contains(part.as_str()));
    Ok(cases().filter(is_wanted).collect())
}

/// The command that does the same.
fn again(backend: &str, arguments: &Arguments) -> String {
    let mut command = format!("discovery conformance --backend {backend}");
    arguments.cases.iter().for_each(|part| command.push_str(&format!(" --case {part}")));
    if let Some(seed) = arguments.seed {
        command.push_str(&format!(" --seed {seed}"));
    }
    command
}

#[cfg(all(test, feature = "memory"))]
mod tests {
    use discovery_conformance::backends::Memory;
    use discovery_conformance::{Outcome as Went, claims};
    use discovery_memory::FACTORY;

    use super::*;

    /// Nobody who looks at the exit code alone takes a failure, or a case that should have run, for a backend that is right.
    #[test]
    fn no_exit_is_a_good_one_but_that_of_a_good_verdict() {
        let exit = |outcome: Went| {
            let mut cases =
                suite::run(&Memory, &selected(&["key_01".to_owned()]).unwrap(), None, String::new()).unwrap().cases;
            cases[0].outcome = outcome;
            let (expected, took) = (cases.len(), std::time::Duration::ZERO);
            let mut claims = claims(&Memory).unwrap();
            claims.capabilities = discovery_core::Capabilities::none();
            judged(&Report::new("a", claims, cases, expected, took, String::new())).is_ok()
        };
        assert!(exit(Went::Passed));
        assert!(!exit(Went::Failed("wrong".to_owned())) && !exit(Went::Skipped("late".to_owned())));
    }

    /// A backend of somebody else's crate is judged where it is configured to be, and its records are gone afterwards.
    #[test]
    fn a_backend_that_the_suite_does_not_know_is_a_black_box() {
        let stranger = BackendFactory::new("stranger", FACTORY.origin, FACTORY.summary, FACTORY.connect);
        let Stores { factory, linked } = stores(stranger, None).unwrap();
        assert!(linked.is_some());
        let selected = selected(&["reg_01".to_owned(), "key_01".to_owned()]).unwrap();
        let report = suite::run(&*factory, &selected, None, String::new()).unwrap();
        assert!(report.verdict.is_success() && report.backend == "stranger", "{}", report.text());
    }
}
