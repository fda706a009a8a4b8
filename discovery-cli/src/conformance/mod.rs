//! `discovery conformance`: the suite on the backend in force.

#[cfg(feature = "file")]
mod apart;
mod progress;
mod suite;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
#[cfg(feature = "file")]
use discovery_conformance::backends::File;
use discovery_conformance::{Case, Factory, Report, backends, cases};
use discovery_core::Registry;

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

    /// Where the stores are made. Without it, a backend that keeps files is run in a process of its own, whose files are
    /// removed when it has ended.
    #[arg(long, hide = true, value_name = "DIRECTORY")]
    within: Option<PathBuf>,
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

/// A factory of stores for a backend that nobody else uses.
fn factory(name: &str, within: Option<&Path>) -> Outcome<Arc<dyn Factory>> {
    #[cfg(feature = "file")]
    if let ("file", Some(within)) = (name, within) {
        return Ok(Arc::new(File::within(within)));
    }
    #[cfg(not(feature = "file"))]
    let _ = within;
    let factory = backends::chosen(name).ok().and_then(|factories| factories.into_iter().next());
    factory.ok_or_else(|| {
        Failure::usage(format!(
            "conformance: no store of its own can be made on {name:?}: its crate's tests run the suite"
        ))
    })
}

/// Exits well only where the verdict is a success.
pub(crate) async fn conformance(backend: Option<&str>, verbose: u8, arguments: Arguments) -> Outcome {
    let selected = selected(&arguments.cases)?;
    if arguments.list {
        let mut out = std::io::stdout().lock();
        return selected.iter().try_for_each(|case| line(&mut out, case.name));
    }
    let file = match &arguments.report {
        Some(path) => Some((path, Format::of(path)?)),
        None => None,
    };
    let (name, _) = chosen(backend);
    let name = Registry::linked().find(&name)?.name;
    #[cfg(feature = "file")]
    if name == "file" && arguments.within.is_none() {
        return apart::run().await;
    }
    let factory = factory(name, arguments.within.as_deref())?;
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
        () = signals.stop() => Err(Failure::failed(STOPPED)),
    }?;
    if let Some((path, format)) = file {
        let text = format.render(&report)?;
        std::fs::write(path, text).map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    }
    line(&mut std::io::stdout().lock(), arguments.format.render(&report)?.trim_end())?;
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
