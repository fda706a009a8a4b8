//! The backends that are linked in, and handles on the one in force.

use std::future::Future;
use std::time::Duration;

use discovery_core::{BACKEND_VARIABLE, Discovery, Environment, Registry, Selection, select};
#[cfg(feature = "etcd")]
use discovery_etcd as _;
#[cfg(feature = "file")]
use discovery_file as _;
#[cfg(feature = "kubernetes")]
use discovery_k8s as _;
#[cfg(feature = "memory")]
use discovery_memory as _;
use serde::Serialize;
use tokio::time::timeout;

use crate::failure::{Failure, Outcome, tell};
use crate::output::{Format, Table, json_line};

/// How long withdrawing and closing may take.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long a person is left without a word.
const SILENCE: Duration = Duration::from_secs(3);

#[derive(Debug, Serialize)]
struct BackendLine {
    name: &'static str,
    aliases: &'static [&'static str],
    chosen: bool,
    summary: &'static str,
    #[serde(rename = "crate")]
    origin: &'static str,
}

/// `discovery backends`
pub(crate) fn backends(backend: Option<&str>, format: Format) -> Outcome {
    let (name, reason) = chosen(backend)?;
    let lines: Vec<_> = Registry::linked()
        .iter()
        .map(|factory| BackendLine {
            name: factory.name,
            aliases: factory.aliases,
            chosen: factory.name == name || factory.aliases.contains(&name.as_str()),
            summary: factory.summary,
            origin: factory.origin,
        })
        .collect();
    if format == Format::Json {
        return json_line(&mut std::io::stdout().lock(), &lines);
    }
    let mut table = Table::new(&["", "NAME", "ALSO", "CRATE", "WHAT IT IS"]);
    for line in &lines {
        let mark = if line.chosen { "*" } else { "" };
        table.row([mark, line.name, &line.aliases.join(" "), line.origin, line.summary].map(str::to_owned).to_vec());
    }
    table.print()?;
    if lines.iter().any(|line| line.chosen) {
        crate::output::line(&mut std::io::stdout().lock(), format!("\n* in force: {reason}"))
    } else {
        Err(Registry::linked().find(&name).map_or_else(Failure::from, |_| Failure::failed(reason)))
    }
}

/// The backend's name and why it is that one.
pub(crate) fn chosen(backend: Option<&str>) -> Outcome<(String, String)> {
    match backend {
        Some(name) => Ok((name.to_owned(), "--backend names it".to_owned())),
        None => {
            let Selection { backend, reason, .. } = select(&Environment::process())?;
            Ok((backend, reason))
        }
    }
}

/// A handle on the backend in force.
pub(crate) async fn connect(backend: Option<&str>) -> Outcome<Discovery> {
    let mut environment = Environment::process();
    if let Some(name) = backend {
        environment = environment.with(BACKEND_VARIABLE, name);
    }
    Ok(Discovery::builder().environment(environment).build().await?)
}

/// Does what needs the store, and says so where that takes long: a store that is away is waited for, and nothing moves.
pub(crate) async fn patiently<T>(discovery: &Discovery, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    if let Ok(done) = timeout(SILENCE, &mut work).await {
        return done;
    }
    let name = discovery.backend_name();
    tell(format!("no answer from {name} yet, still trying: `discovery doctor` looks for the cause"));
    work.await
}

/// Withdraws what is held and closes the handle; says what could not be withdrawn.
pub(crate) async fn close(discovery: &Discovery) -> Outcome {
    let report = discovery.shutdown(FAREWELL).await;
    if !report.not_withdrawn.is_empty() {
        let keys: Vec<_> = report.not_withdrawn.iter().map(ToString::to_string).collect();
        return Err(Failure::failed(format!(
            "not withdrawn within {FAREWELL:?}: {}: gone once the time to live has passed",
            keys.join(", ")
        )));
    }
    match report.error {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}
