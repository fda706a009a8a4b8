//! What can go wrong with each endpoint of etcd, and with the leases of what it holds. Reads only.

use std::collections::BTreeSet;

use discovery_core::Environment;
use discovery_etcd::{Config, Leases, Member, SilentLease, diagnose, leases};
use serde_json::{Value, json};

use super::Finding;
use crate::output::{bytes_text, span_text};

pub(super) async fn look() -> Vec<Finding> {
    let config = match Config::from_environment(&Environment::process()) {
        Ok(config) => config,
        Err(error) => return vec![Finding::wrong("endpoints", error.to_string())],
    };
    let found = diagnose(&config).await;
    let members: Vec<&Member> = found.iter().filter_map(|found| found.outcome.as_ref().ok()).collect();
    let serving = members.iter().filter(|member| member.serves()).count();
    let mut findings: Vec<Finding> = found
        .iter()
        .map(|found| match &found.outcome {
            Ok(member) => about(&found.endpoint, member, serving > 0),
            Err(error) => {
                // The message names the endpoint, as no other does.
                let finding = lacking(serving > 0, error.message().to_owned());
                finding.with(json!({ "endpoint": found.endpoint, "error": error.kind().as_str() }))
            }
        })
        .collect();
    if found.len() > 1 {
        findings.push(together(serving, found.len(), &members));
    }
    if serving > 0 {
        findings.extend(match leases(&config).await {
            Ok(leases) => about_leases(&leases),
            Err(error) => vec![Finding::wrong("leases", error.to_string())],
        });
    }
    findings
}

/// What keeps one endpoint from being used: others may do in its place.
fn lacking(others_serve: bool, text: String) -> Finding {
    if others_serve { Finding::poor("endpoint", text) } else { Finding::wrong("endpoint", text) }
}

fn about(endpoint: &str, member: &Member, any_serves: bool) -> Finding {
    let Member { version, stored, connected, .. } = member;
    let leader = match member.leader {
        Some(leader) if leader == member.id => "leads",
        Some(_) => "follows",
        None => "knows of no leader",
    };
    let latency = member
        .latency
        .map_or_else(|| "a read was not answered".to_owned(), |latency| format!("a read took {}", span_text(latency)));
    let quota = member.quota.map_or_else(String::new, |quota| format!(" of {}", bytes_text(quota)));
    let text = format!(
        "{endpoint}: etcd {version}, {leader}, connected in {}, {latency}, {}{quota} stored",
        span_text(*connected),
        bytes_text(*stored)
    );
    let said: Vec<&str> = member.problems.iter().chain(&member.advice).map(String::as_str).collect();
    let told = if said.is_empty() { text } else { format!("{text}: {}", said.join("; ")) };
    let finding = if !member.serves() {
        lacking(any_serves, told)
    } else if !member.problems.is_empty() {
        Finding::wrong("endpoint", told)
    } else if !member.advice.is_empty() {
        Finding::poor("endpoint", told)
    } else {
        Finding::good("endpoint", told)
    };
    finding.with(details(endpoint, member))
}

fn details(endpoint: &str, member: &Member) -> Value {
    let milliseconds = |span: std::time::Duration| span.as_secs_f64() * 1e3;
    json!({
        "endpoint": endpoint,
        "version": member.version,
        "cluster_id": format!("{:x}", member.cluster),
        "member_id": format!("{:x}", member.id),
        "leader_id": member.leader.map(|leader| format!("{leader:x}")),
        "connected_ms": milliseconds(member.connected),
        "read_ms": member.latency.map(milliseconds),
        "revision": member.revision,
        "stored_bytes": member.stored,
        "quota_bytes": member.quota,
        "problems": member.problems,
        "advice": member.advice,
    })
}

/// What can be said of several endpoints only.
fn together(serving: usize, named: usize, members: &[&Member]) -> Finding {
    let clusters: BTreeSet<u64> = members.iter().map(|member| member.cluster).collect();
    let text = format!("{serving} of {named} serve");
    match serving {
        _ if clusters.len() > 1 => Finding::wrong(
            "endpoints",
            format!("{text}, and they are of {} clusters, which share no record: name one", clusters.len()),
        ),
        0 => Finding::wrong("endpoints", format!("{text}: nothing can be stored or read")),
        _ if serving < named => {
            Finding::poor("endpoints", format!("{text}: one more that fails may be one too many: mend those above"))
        }
        _ => Finding::good("endpoints", text),
    }
}

fn about_leases(leases: &Leases) -> Vec<Finding> {
    let Leases { records, leases: count, asked, forever, silent, .. } = leases;
    let mut text = format!("{records} records under {count} leases");
    if asked < count {
        text.push_str(&format!(", of which {asked} were looked at"));
    }
    let mut findings = vec![match silent.first() {
        None => Finding::good("leases", format!("{text}, all renewed")),
        Some(SilentLease { granted, left, example, .. }) => Finding::poor(
            "leases",
            format!(
                "{text}; {} not renewed, as that of {example}, which has {} left of {}: is its process stopped, dead or \
                 cut off?",
                silent.len(),
                span_text(*left),
                span_text(*granted)
            ),
        ),
    }];
    if let Some(first) = forever.first() {
        findings.push(Finding::poor(
            "leases",
            format!(
                "{} records under no lease, as {first}: no death removes them: if nobody means them to stay, `etcdctl del`",
                forever.len()
            ),
        ));
    }
    findings
}
