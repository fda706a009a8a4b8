//! What is wrong with each endpoint, for `discovery doctor`.

use std::time::{Duration, Instant};

use discovery_core::Error;
use futures_util::future::join_all;
use tokio::time::timeout;

use crate::config::Config;
use crate::fault::{Fault, is_network};
use crate::link::dial;
use crate::names::Names;
use crate::store::CALL;

/// What one endpoint was found to be.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Finding {
    /// Its URL.
    pub endpoint: String,
    /// What it says of itself, or why it cannot be used.
    pub outcome: Result<Member, Error>,
}

/// The oldest etcd of use: earlier ones confirm progress that they have not told, so that a watch misses changes.
const OLDEST: [u32; 3] = [3, 5, 13];

/// The first versions that treat transactions inside of transactions, as records are written in, like others: by the changes
/// of quota and of permissions that etcd tells of them.
const NESTED: [[u32; 3]; 3] = [[3, 5, 33], [3, 6, 14], [3, 7, 1]];

/// A member of etcd that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// The server's version.
    pub version: String,
    /// The id of its cluster.
    pub cluster: u64,
    /// The member's id.
    pub id: u64,
    /// The id of the member that leads; `None` where it knows of none.
    pub leader: Option<u64>,
    /// How long it took to connect and to sign in.
    pub connected: Duration,
    /// How long a read took that the leader had to confirm; `None` where it was not answered.
    pub latency: Option<Duration>,
    /// The revision of that read.
    pub revision: i64,
    /// How many bytes its database has.
    pub stored: u64,
    /// How many it may have, where it tells.
    pub quota: Option<u64>,
    /// What is wrong with it, and what to do: a version that is too old, alarms such as `NOSPACE`, a missing leader, and
    /// why the read was not answered.
    pub problems: Vec<String>,
    /// What is better otherwise, and what to do: a version with known faults.
    pub advice: Vec<String>,
}

impl Member {
    /// Whether a process can use it: the read was answered.
    pub fn serves(&self) -> bool {
        self.latency.is_some()
    }
}

/// Looks at every endpoint of `config`, all at once, each over a connection of its own. Takes eleven seconds at most. Reads
/// one key, and writes nothing. Cancel-safe.
pub async fn diagnose(config: &Config) -> Vec<Finding> {
    let looks = config.endpoints.iter().enumerate().map(|(index, endpoint)| async move {
        let outcome = look(config, index).await;
        Finding { endpoint: endpoint.clone(), outcome: outcome.map_err(|error| error.with_backend(crate::NAME)) }
    });
    join_all(looks).await
}

async fn look(config: &Config, index: usize) -> Result<Member, Error> {
    let begun = Instant::now();
    let (endpoint, mut client, _) = dial(config, index).await.map_err(|fault| fault.error)?;
    let connected = begun.elapsed();
    let calling = |error: &etcd_client::Error| Fault::calling(&endpoint, config.credentials.is_some(), error).error;
    let silent = || Fault::silent(&endpoint, CALL).error;
    let mut reader = client.kv_client();
    let root = Names::new(&config.prefix).root();
    let read = async move {
        let begun = Instant::now();
        timeout(CALL, reader.get(root, None)).await.map(|answer| answer.map(|answer| (answer, begun.elapsed())))
    };
    let (status, read) = tokio::join!(timeout(CALL, client.status()), read);
    let status = status.map_err(|_| silent())?.map_err(|error| {
        // Who speaks TLS alone hangs up on whoever does not, and says nothing.
        let plain = endpoint.starts_with("http://") && is_network(&error);
        let error = calling(&error);
        let message = format!("{} Or does it demand TLS? Then write https", error.message());
        if plain { Error::new(error.kind(), message) } else { error }
    })?;
    let mut problems: Vec<String> = too_old(status.version()).into_iter().collect();
    problems.extend(status.errors().iter().map(|problem| advised(problem)));
    let (latency, revision) = match read {
        Ok(Ok((answer, latency))) => (Some(latency), answer.header().map_or(0, etcd_client::ResponseHeader::revision)),
        Ok(Err(error)) => {
            problems.push(calling(&error).message().to_owned());
            (None, 0)
        }
        Err(_) => {
            problems.push(silent().message().to_owned());
            (None, 0)
        }
    };
    let bytes = |number: i64| u64::try_from(number).unwrap_or_default();
    Ok(Member {
        version: status.version().to_owned(),
        cluster: status.header().map_or(0, etcd_client::ResponseHeader::cluster_id),
        id: status.header().map_or(0, etcd_client::ResponseHeader::member_id),
        leader: Some(status.leader()).filter(|leader| *leader != 0),
        connected,
        latency,
        revision,
        stored: bytes(status.db_size()),
        quota: Some(bytes(status.db_size_quota())).filter(|quota| *quota > 0),
        problems,
        advice: nested(status.version()).into_iter().collect(),
    })
}

fn numbers(version: &str) -> Option<Vec<u32>> {
    version.split(['-', '+']).next()?.split('.').map(|number| number.parse().ok()).collect()
}

fn nested(version: &str) -> Option<String> {
    let numbers = numbers(version).filter(|numbers| numbers.len() == 3 && numbers.as_slice() >= OLDEST.as_slice())?;
    let first = NESTED.iter().find(|first| first[..2] == numbers[..2])?;
    let [major, minor, patch] = first;
    (numbers.as_slice() < first.as_slice()).then(|| {
        format!(
            "etcd {version} may write past its quota, and where it has users may not check all of their permissions, in \
             nested transactions as records are written by: upgrade it to {major}.{minor}.{patch} or newer"
        )
    })
}

fn too_old(version: &str) -> Option<String> {
    let old = numbers(version).is_some_and(|numbers| numbers.as_slice() < OLDEST.as_slice());
    old.then(|| format!("etcd {version} lets watches miss changes: upgrade it to 3.5.13 or newer"))
}

/// What a server says of itself in its status, and what to do.
fn advised(problem: &str) -> String {
    let problem = problem.trim_start_matches("etcdserver: ").trim();
    if problem.contains("NOSPACE") {
        return "NOSPACE: its database has reached its quota and takes no writes: compact and defragment it, raise \
                --quota-backend-bytes, then `etcdctl alarm disarm`"
            .to_owned();
    }
    if problem.contains("CORRUPT") {
        return "CORRUPT: its data differs from the other members': replace the member".to_owned();
    }
    if problem.contains("no leader") {
        return "no leader: it is cut off from most members, or they are down: bring them back".to_owned();
    }
    problem.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_lose_changes_are_named() {
        for old in ["3.4.30", "3.5.9", "3.5.12", "3.5"] {
            assert!(too_old(old).is_some_and(|text| text.contains(old)), "{old}");
        }
        for good in ["3.5.13", "3.5.21-rc.0", "3.6.0", "3.10.1", "4.0.0", "not known"] {
            assert_eq!(too_old(good), None, "{good}");
        }
    }

    #[test]
    fn versions_with_faults_in_nested_transactions_are_named() {
        for old in ["3.5.13", "3.5.32", "3.6.0", "3.6.13", "3.7.0"] {
            assert!(nested(old).is_some_and(|text| text.contains(old)), "{old}");
        }
        for other in ["3.5.12", "3.5.33", "3.6.14", "3.7.1", "3.7.3", "3.8.0", "4.0.0", "not known"] {
            assert_eq!(nested(other), None, "{other}");
        }
    }

    #[test]
    fn what_a_server_complains_of_comes_with_advice() {
        assert!(advised("memberID:10276657743932975437 alarm:NOSPACE ").contains("disarm"));
        assert!(advised("etcdserver: no leader").contains("bring them back"));
        assert_eq!(advised("something new"), "something new");
    }
}
