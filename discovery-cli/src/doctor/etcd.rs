//! What can go wrong with each endpoint of etcd. Reads only.

use discovery_core::Environment;
use discovery_etcd::{Config, Member, diagnose};

use super::Finding;

pub(super) async fn look() -> Vec<Finding> {
    let config = match Config::from_environment(&Environment::process()) {
        Ok(config) => config,
        Err(error) => return vec![Finding::wrong("endpoints", error.to_string())],
    };
    let found = diagnose(&config).await;
    let judged = found.iter().map(|found| match &found.outcome {
        Err(error) => Finding::wrong("endpoint", format!("{}: {error}", found.endpoint)),
        Ok(member) => about(&found.endpoint, member),
    });
    judged.collect()
}

fn about(endpoint: &str, member: &Member) -> Finding {
    let Member { version, stored, connected, .. } = member;
    let leader = match member.leader {
        Some(leader) if leader == member.id => "leads",
        Some(_) => "follows",
        None => "knows of no leader",
    };
    let latency = member.latency.map_or_else(|| "not answered".to_owned(), |latency| format!("in {latency:?}"));
    let quota = member.quota.map_or_else(String::new, |quota| format!(" of {quota}"));
    let text = format!(
        "{endpoint}: etcd {version}, {leader}, connected in {connected:?}, a read {latency}, {stored}{quota} bytes stored"
    );
    if member.problems.is_empty() && member.leader.is_some() {
        Finding::good("endpoint", text)
    } else {
        Finding::wrong("endpoint", format!("{text}: {}", member.problems.join("; ")))
    }
}
