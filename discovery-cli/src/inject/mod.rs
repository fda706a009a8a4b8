//! `discovery inject`: makes the Deployments and StatefulSets of a manifest discoverable.

mod choice;
mod container;
mod edit;
mod service;
mod shape;
mod workload;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_saphyr::UserMessageFormatter;

use crate::failure::{Failure, Outcome, tell};
use edit::edited;
use workload::{Injection, Workload};

#[derive(Debug, Args)]
pub(crate) struct Inject {
    /// The manifest; - is standard input.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    file: PathBuf,
    #[command(flatten)]
    options: Options,
}

/// What cannot be read off a manifest.
#[derive(Clone, Debug, Args)]
struct Options {
    /// The container that registers. Without it, the one that kubectl takes by default; in container mode, all of them.
    #[arg(long = "container", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    containers: Vec<String>,
    /// The ServiceAccount that the pods run under, where the manifest names none.
    #[arg(long, value_name = "NAME", default_value = discovery_deploy::SERVICE_ACCOUNT)]
    service_account: String,
    /// The port of the readiness endpoint, where the manifest names none. Further containers get the next ones.
    #[arg(long, value_name = "PORT", default_value_t = 9090, value_parser = clap::value_parser!(u16).range(1..))]
    health_port: u16,
    /// Add no readiness probe.
    #[arg(long)]
    no_probe: bool,
}

pub(crate) fn inject(arguments: &Inject) -> Outcome {
    let Inject { file, options } = arguments;
    let refuse = |what: String| Failure::input(file, what);
    let text = read(file)?;
    let (manifest, notes) = injected(&text, options).map_err(refuse)?;
    let mut out = std::io::stdout().lock();
    out.write_all(manifest.as_bytes()).and_then(|()| out.flush()).map_err(Failure::output)?;
    notes.iter().for_each(tell);
    Ok(())
}

fn read(file: &Path) -> Outcome<String> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().lock().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    text.map_err(|error| Failure::input(file, format!("{error}: name a manifest that can be read")))
}

/// What a document says of itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Head {
    api_version: Option<String>,
    kind: Option<String>,
}

impl Head {
    fn is(&self, api_version: &str, kind: &str) -> bool {
        self.api_version.as_deref() == Some(api_version) && self.kind.as_deref() == Some(kind)
    }

    fn is_workload(&self) -> bool {
        self.is("apps/v1", "Deployment") || self.is("apps/v1", "StatefulSet")
    }
}

/// The manifest with its workloads made discoverable, and what is left to be done. Documents that are none stay as they
/// are, to the byte.
fn injected(text: &str, options: &Options) -> Result<(String, Vec<String>), String> {
    let documents = documents(text);
    let mut heads = Vec::new();
    let mut services = Vec::new();
    for (index, document) in documents.iter().enumerate() {
        let unread = |what| format!("document {}: {what}", index + 1);
        let head = parsed::<Option<Head>>(document).map_err(unread)?.unwrap_or_default();
        if head.is("v1", "Service") {
            services.push(parsed(document).map_err(unread)?);
        }
        heads.push(head);
    }
    let mut manifest = String::new();
    let mut notes = Vec::new();
    let mut made = Vec::new();
    for (document, head) in documents.iter().zip(&heads) {
        if head.is("v1", "List") {
            notes.push("a List is left as it is: write its items as documents".to_owned());
        }
        if !head.is_workload() {
            manifest.push_str(document);
            continue;
        }
        let object = parsed(document)?;
        let workload = Workload::new(&object)?;
        let named = |what: String| format!("{workload}: {what}");
        shape::check(&object).map_err(named)?;
        let Injection { edits, service, notes: told } = workload.injection(&services, &made, options).map_err(named)?;
        let (edited, kept) = edited(document, &object, &edits).map_err(named)?;
        manifest.push_str(&edited);
        if let Some(service) = service {
            manifest.push_str(&service::written(&service).map_err(named)?);
            made.push(service);
        }
        if !kept {
            notes.push(named(
                "written anew, without its comments, because it could not be changed in place: for an alias, say"
                    .into(),
            ));
        }
        notes.extend(told.into_iter().map(named));
    }
    if !heads.iter().any(Head::is_workload) {
        return Err("holds no Deployment and no StatefulSet of apps/v1".to_owned());
    }
    Ok((manifest, notes))
}

fn parsed<T: DeserializeOwned>(document: &str) -> Result<T, String> {
    // Without the text around the place: a failure is one line. In words for who writes YAML, not for who parses it.
    serde_saphyr::from_str(document)
        .map_err(|error| format!("no YAML: {}", error.without_snippet().render_with_formatter(&UserMessageFormatter)))
}

/// The documents, each with the line that begins it. That line can stand nowhere else, whatever is open: YAML 1.2, 9.1.2.
fn documents(text: &str) -> Vec<&str> {
    let begins = |line: &str| {
        line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
    };
    let mut documents = Vec::new();
    let (mut start, mut at) = (0, 0);
    for line in text.split_inclusive('\n') {
        if begins(line) && at > start {
            documents.push(&text[start..at]);
            start = at;
        }
        at += line.len();
    }
    documents.push(&text[start..]);
    documents
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_told_apart_and_lose_nothing() {
        let text = "# x\n---\na: 1\n---  # b\nb: |\n  ---\n  c\n--- {c: 1}\n---\n";
        let parts = documents(text);
        assert_eq!(parts.concat(), text);
        assert_eq!(parts, ["# x\n", "---\na: 1\n", "---  # b\nb: |\n  ---\n  c\n", "--- {c: 1}\n", "---\n"]);
        assert_eq!(documents("---x: 1\n"), ["---x: 1\n"]);
        assert_eq!(documents(""), [""]);
    }
}
