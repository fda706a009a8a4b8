//! `discovery doctor`: looks for what keeps discovery from working here.

#[cfg(feature = "etcd")]
mod etcd;
#[cfg(feature = "file")]
mod file;
#[cfg(feature = "kubernetes")]
mod kubernetes;

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use discovery_core::{Bounds, Discovery, Error, Key, Query, Record};
use discovery_dynamo::{Endpoint, EventChannel, EventSource, Model};
use serde::Serialize;
use serde_json::Value;

use crate::backends::{chosen, close, connect};
use crate::failure::{Failure, Outcome, one_line};
use crate::output::{Format, bytes_text, json_line, line, span_text};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    #[serde(rename = "ok")]
    Good,
    /// Works, but not as well as it could.
    Poor,
    Wrong,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Finding {
    verdict: Verdict,
    what: &'static str,
    text: String,
    /// The same for programs, where there are figures in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Value>,
}

impl Finding {
    fn new(verdict: Verdict, what: &'static str, text: impl Into<String>) -> Self {
        Self { verdict, what, text: text.into(), details: None }
    }

    fn good(what: &'static str, text: impl Into<String>) -> Self {
        Self::new(Verdict::Good, what, text)
    }

    fn poor(what: &'static str, text: impl Into<String>) -> Self {
        Self::new(Verdict::Poor, what, text)
    }

    fn wrong(what: &'static str, text: impl Into<String>) -> Self {
        Self::new(Verdict::Wrong, what, text)
    }

    #[cfg(feature = "etcd")]
    fn with(self, details: Value) -> Self {
        Self { details: Some(details), ..self }
    }
}

pub(crate) async fn doctor(backend: Option<&str>, format: Format) -> Outcome {
    let mut wrong = 0;
    let mut told = Vec::new();
    let mut tell = |findings: Vec<Finding>| {
        let first = told.len();
        told.extend(findings);
        told[first..].iter().try_for_each(|Finding { verdict, what, text, .. }| {
            let mark = match verdict {
                Verdict::Good => "ok",
                Verdict::Poor => "poor",
                Verdict::Wrong => "WRONG",
            };
            wrong += usize::from(*verdict == Verdict::Wrong);
            if format == Format::Json {
                return Ok(());
            }
            line(&mut io::stdout().lock(), format!("{mark:<5}  {what:<12}  {}", one_line(text)))
        })
    };
    let (name, reason) = chosen(backend)?;
    let mut closed = Ok(());
    match connect(backend).await {
        Err(gone @ (Failure::OutputClosed | Failure::Told(_) | Failure::Stopped(..))) => return Err(gone),
        Err(Failure::Usage(cause) | Failure::Failed(cause)) => {
            tell(vec![Finding::wrong("backend", format!("{name} ({reason}): {cause}"))])?;
            // Which endpoint it is matters most where none could be used.
            #[cfg(feature = "etcd")]
            if discovery_core::Registry::linked().find(&name).is_ok_and(|factory| factory.name == discovery_etcd::NAME)
            {
                tell(etcd::look().await)?;
            }
        }
        Ok(discovery) => {
            tell(vec![Finding::good("backend", format!("{name}: {reason}"))])?;
            let found = about_any(&discovery).await;
            let answers = found.iter().all(|finding| finding.verdict != Verdict::Wrong);
            tell(found)?;
            match discovery.backend_name() {
                // Not by a list: whoever lists a directory clears away what has expired, and a diagnosis changes nothing.
                #[cfg(feature = "file")]
                "file" => tell(file::look())?,
                #[cfg(feature = "etcd")]
                discovery_etcd::NAME => {
                    tell(etcd::look().await)?;
                    if answers {
                        tell(listed(&discovery).await)?;
                    }
                }
                #[cfg(feature = "kubernetes")]
                discovery_k8s::NAME => {
                    let found = kubernetes::look().await;
                    // An API server that does not answer has been told of.
                    if !found.is_empty() {
                        tell(found)?;
                        tell(listed(&discovery).await)?;
                    }
                }
                "memory" => tell(vec![Finding::poor(
                    "sharing",
                    "the memory backend is inside one process, and others see none of it: use another one to share",
                )])?,
                _ if answers => tell(listed(&discovery).await)?,
                // The cause has been told.
                _ => {}
            }
            closed = close(&discovery).await;
        }
    }
    if format == Format::Json {
        json_line(&mut io::stdout().lock(), &told)?;
    }
    closed?;
    match wrong {
        0 => Ok(()),
        1 => Err(Failure::failed("doctor: something is wrong: see the line above that says so")),
        _ => Err(Failure::failed(format!("doctor: {wrong} things are wrong: see the lines above that say so"))),
    }
}

/// What can be asked of every backend.
async fn about_any(discovery: &Discovery) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(match discovery.health().await {
        Ok(health) => Finding::good("health", format!("answers in {}: {}", span_text(health.latency), health.detail)),
        Err(error) => Finding::wrong("health", error.to_string()),
    });
    let claims: Vec<_> =
        discovery.capabilities().entries().into_iter().filter_map(|(name, claimed)| claimed.then_some(name)).collect();
    findings.push(Finding::good("capabilities", claims.join(", ")));
    findings.push(Finding::good("bounds", bounds_text(&discovery.bounds())));
    findings
}

/// What the store holds, as it answers a list.
async fn listed(discovery: &Discovery) -> Vec<Finding> {
    match discovery.list_entries(Query::all()).await {
        Err(error) => vec![Finding::wrong("records", error.to_string())],
        Ok(records) => about_records(records.iter().map(|record| (record.key(), record.value().as_ref()))),
    }
}

/// How many records there are, and whether those who ask for them can read them.
fn about_records<'a>(records: impl Iterator<Item = (&'a Key, &'a [u8])>) -> Vec<Finding> {
    let mut counts = BTreeMap::<_, usize>::new();
    let mut unreadable = Vec::new();
    for (key, value) in records {
        *counts.entry(key.kind()).or_default() += 1;
        unreadable.extend(decode(key, value).err().map(|error| error.to_string()));
    }
    let counts: Vec<_> = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let text = if counts.is_empty() { "none".to_owned() } else { counts.join(", ") };
    let mut findings = vec![Finding::good("records", text)];
    if let Some(first) = unreadable.first() {
        let count = unreadable.len();
        findings.push(Finding::poor("records", format!("{count} cannot be read and are skipped, as {first}")));
    }
    findings
}

fn bounds_text(bounds: &Bounds) -> String {
    let optional = |time: Option<Duration>| time.map_or_else(|| "none".to_owned(), span_text);
    format!(
        "propagation {}, time to live {} (at least {}), slack {}, recovery {}, values up to {}, batches of {}",
        span_text(bounds.propagation),
        optional(bounds.default_ttl),
        optional(bounds.min_ttl),
        span_text(bounds.slack),
        span_text(bounds.recovery),
        bytes_text(bounds.max_value as u64),
        bounds.max_batch
    )
}

/// Whether a record can be read by those who ask for its kind.
pub(crate) fn decode(key: &Key, value: &[u8]) -> Result<(), Error> {
    match key.kind() {
        Endpoint::KIND => Endpoint::decode(key, value).map(drop),
        Model::KIND => Model::decode(key, value).map(drop),
        EventChannel::KIND => EventChannel::decode(key, value).map(drop),
        EventSource::KIND => EventSource::decode(key, value).map(drop),
        _ => serde_json::from_slice::<serde::de::IgnoredAny>(value).map(drop).map_err(|error| {
            Error::new(discovery_core::ErrorKind::InvalidValue, "the value is no JSON").with_key(key).with_source(error)
        }),
    }
}
