//! `discovery explain`: why a pod is discovered, or where that fails.

use std::collections::BTreeMap;
use std::io;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use discovery_core::{Discovery, Environment};
use discovery_k8s::{Cluster, Definition, Explanation, Failure as Broken, NAMESPACES_VARIABLE, State, Step};
use serde::Serialize;

use crate::arguments::Output;
use crate::doctor::decode;
use crate::failure::{Failure, Outcome, one_line, tell};
use crate::output::{Format, Table, json_line, line};

/// Where each failure has a paragraph under its name.
const MANUAL: &str = "docs/kubernetes.md";

#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The pod.
    #[arg(value_name = "POD", required_unless_present = "all", value_parser = NonEmptyStringValueParser::new())]
    pod: Option<String>,
    /// Every pod that takes part, and every resource without a pod.
    #[arg(long, conflicts_with = "pod")]
    all: bool,
    /// The namespaces, with commas between them, or *. Without it, those that are watched here.
    #[arg(short, long, value_parser = NonEmptyStringValueParser::new())]
    namespace: Option<String>,
    #[command(flatten)]
    output: Output,
}

pub(crate) async fn explain(backend: Option<&str>, arguments: &Explain) -> Outcome {
    if backend.is_some_and(|name| !matches!(name, "kubernetes" | "k8s")) {
        return Err(Failure::usage(
            "explain: pods are on Kubernetes: leave --backend out; `discovery doctor` looks at others",
        ));
    }
    let mut environment = Environment::process();
    if let Some(namespaces) = &arguments.namespace {
        environment = environment.with(NAMESPACES_VARIABLE, namespaces);
    }
    let cluster = Cluster::connect(&environment).await?;
    let pod = arguments.pod.as_deref().map(|pod| pod.strip_prefix("pod/").unwrap_or(pod));
    let survey = cluster.survey(pod).await;
    if let Some(error) = survey.unreadable() {
        return Err(error.clone().into());
    }
    let explained = match pod {
        Some(pod) => survey.explain(pod, decode),
        None => survey.explain_all(decode),
    };
    match (arguments.output.format, pod) {
        (Format::Json, _) => {
            let lines: Vec<_> = explained.iter().map(ExplanationLine::new).collect();
            json_line(&mut io::stdout().lock(), &lines)?;
        }
        (Format::Table, Some(_)) => explained.iter().try_for_each(chain)?,
        (Format::Table, None) => overview(&explained)?,
    }
    let missing: Vec<_> = explained.iter().filter(|one| !one.is_discovered()).collect();
    match missing.as_slice() {
        [] => Ok(()),
        [one] => Err(Failure::failed(format!("explain: {} is not discovered: {}", subject(one), why(one)))),
        several => {
            Err(Failure::failed(format!("explain: {} of {} are not discovered", several.len(), explained.len())))
        }
    }
}

/// A resource type that is not there is waited for, so that to a list it looks like no records.
pub(crate) async fn say_why_none(discovery: &Discovery) {
    if discovery.backend_name() != discovery_k8s::NAME {
        return;
    }
    let Ok(cluster) = Cluster::connect(&Environment::process()).await else { return };
    if let Ok(Definition::Absent) = cluster.definition().await {
        tell("the cluster does not know DynamoWorkerMetadata: `discovery crd | kubectl apply --server-side -f -`");
    }
}

/// The instance as people name it.
fn subject(one: &Explanation) -> String {
    match &one.container {
        Some(container) => format!("{}/{container}", one.pod),
        None => one.pod.clone(),
    }
}

/// The names of what is broken.
fn why(one: &Explanation) -> String {
    let names: Vec<_> = one.breaks().filter_map(|step| step.failure).map(Broken::as_str).collect();
    if names.is_empty() { "not all of it could be looked at".to_owned() } else { names.join(", ") }
}

/// Every link, and what to do where it breaks.
fn chain(one: &Explanation) -> Outcome {
    let mut out = io::stdout().lock();
    let verdict = match one.records.len() {
        0 => "NOT discovered".to_owned(),
        1 => "discovered, 1 record".to_owned(),
        count => format!("discovered, {count} records"),
    };
    line(&mut out, format!("{} in namespace {}, instance {}: {verdict}", subject(one), one.namespace, one.instance))?;
    for step in &one.steps {
        let name = step.failure.map(|failure| format!("{}: ", failure.as_str())).unwrap_or_default();
        line(
            &mut out,
            format!("  {:<6}  {:<8}  {name}{}", mark(step.state), step.link.as_str(), one_line(&step.text)),
        )?;
        if !step.advice.is_empty() {
            line(&mut out, format!("                    -> {}", one_line(&step.advice)))?;
        }
    }
    Ok(())
}

fn mark(state: State) -> &'static str {
    match state {
        State::Holds => "ok",
        State::Warns => "poor",
        State::Breaks => "BROKEN",
        State::Unknown => "?",
    }
}

/// A line for each instance, and then what to do about each sort of failure.
fn overview(all: &[Explanation]) -> Outcome {
    let mut out = io::stdout().lock();
    if all.is_empty() {
        return line(
            &mut out,
            "no pod takes part in discovery: none has a resource, the label, or a Service with the label",
        );
    }
    drop(out);
    let mut table = Table::new(&["NAMESPACE", "POD", "DISCOVERED", "RECORDS", "BROKEN AT", "WHY"]);
    // One of each sort stands for all of its sort.
    let mut sorts: BTreeMap<Broken, (&Explanation, &Step, usize)> = BTreeMap::new();
    for one in all {
        let first = one.breaks().next().or_else(|| one.steps.iter().find(|step| step.state != State::Holds));
        let discovered = if one.is_discovered() { "yes" } else { "NO" };
        let (at, text) = first.map_or(("", String::new()), |step| (step.link.as_str(), one_line(&step.text)));
        let cells = [one.namespace.clone(), subject(one), discovered.to_owned(), one.records.len().to_string()];
        table.row(cells.into_iter().chain([at.to_owned(), text]).collect());
        for step in &one.steps {
            if let Some(failure) = step.failure {
                sorts.entry(failure).or_insert((one, step, 0)).2 += 1;
            }
        }
    }
    table.print()?;
    let mut out = io::stdout().lock();
    for (failure, (one, step, count)) in sorts {
        let more = if count == 1 { String::new() } else { format!(" and {} more", count - 1) };
        let name = failure.as_str();
        line(&mut out, format!("\n{name}, {}{more}: {}\n  {MANUAL}#{name}", subject(one), one_line(&step.advice)))?;
    }
    Ok(())
}

#[derive(Debug, Serialize)]
struct ExplanationLine<'a> {
    namespace: &'a str,
    pod: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    container: Option<&'a str>,
    resource: &'a str,
    instance_id: String,
    discovered: bool,
    records: Vec<String>,
    broken_at: Vec<&'static str>,
    steps: Vec<StepLine<'a>>,
}

#[derive(Debug, Serialize)]
struct StepLine<'a> {
    link: &'static str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure: Option<&'static str>,
    text: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    advice: &'a str,
}

impl<'a> ExplanationLine<'a> {
    fn new(one: &'a Explanation) -> Self {
        let step = |step: &'a Step| StepLine {
            link: step.link.as_str(),
            state: match step.state {
                State::Holds => "holds",
                State::Warns => "warns",
                State::Breaks => "breaks",
                State::Unknown => "unknown",
            },
            failure: step.failure.map(Broken::as_str),
            text: &step.text,
            advice: &step.advice,
        };
        Self {
            namespace: &one.namespace,
            pod: &one.pod,
            container: one.container.as_deref(),
            resource: &one.resource,
            instance_id: one.instance.to_string(),
            discovered: one.is_discovered(),
            records: one.records.iter().map(ToString::to_string).collect(),
            broken_at: one.breaks().map(|step| step.link.as_str()).collect(),
            steps: one.steps.iter().map(step).collect(),
        }
    }
}
