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

use crate::backends::{chosen, close, connect};
use crate::failure::{Failure, Outcome, one_line};
use crate::output::line;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Good,
    /// Works, but not as well as it could.
    Poor,
    Wrong,
}

/// One thing that was looked at.
#[derive(Debug)]
struct Finding {
    verdict: Verdict,
    what: &'static str,
    text: String,
}

impl Finding {
    fn good(what: &'static str, text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Good, what, text: text.into() }
    }

    fn poor(what: &'static str, text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Poor, what, text: text.into() }
    }

    fn wrong(what: &'static str, text: impl Into<String>) -> Self {
        Self { verdict: Verdict::Wrong, what, text: text.into() }
    }
}

pub(crate) async fn doctor(backend: Option<&str>) -> Outcome {
    let mut wrong = 0;
    let mut tell = |findings: Vec<Finding>| {
        findings.iter().try_for_each(|Finding { verdict, what, text }| {
            let mark = match verdict {
                Verdict::Good => "ok",
                Verdict::Poor => "poor",
                Verdict::Wrong => "WRONG",
            };
            wrong += usize::from(*verdict == Verdict::Wrong);
            line(&mut io::stdout().lock(), format!("{mark:<5}  {what:<12}  {}", one_line(text)))
        })
    };
    let (name, reason) = chosen(backend);
    match connect(backend).await {
        Err(gone @ (Failure::OutputClosed | Failure::Told(_))) => return Err(gone),
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
            tell(about_any(&discovery).await)?;
            match discovery.backend_name() {
                // Not by a list: whoever lists a directory clears away what has expired, and a diagnosis changes nothing.
                #[cfg(feature = "file")]
                "file" => tell(file::look())?,
                #[cfg(feature = "etcd")]
                discovery_etcd::NAME => {
                    tell(etcd::look().await)?;
                    tell(listed(&discovery).await)?;
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
                _ => tell(listed(&discovery).await)?,
            }
            close(&discovery).await?;
        }
    }
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
        Ok(health) => Finding::good("health", format!("answers in {:?}: {}", health.latency, health.detail)),
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
    let optional = |time: Option<Duration>| time.map_or_else(|| "none".to_owned(), |time| format!("{time:?}"));
    format!(
        "propagation {:?}, time to live {} (at least {}), slack {:?}, recovery {:?}, values up to {} bytes, batches of {}",
        bounds.propagation,
        optional(bounds.default_ttl),
        optional(bounds.min_ttl),
        bounds.slack,
        bounds.recovery,
        bounds.max_value,
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
