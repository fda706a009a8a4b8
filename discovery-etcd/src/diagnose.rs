//! What is wrong with each endpoint, for `discovery doctor`.

use std::time::{Duration, Instant};

use discovery_core::Error;
use futures_util::future::join_all;
use tokio::time::timeout;

use crate::config::Config;
use crate::fault::Fault;
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

/// A member of etcd that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Member {
    /// The server's version.
    pub version: String,
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
    /// What it complains of: alarms such as `NOSPACE`, a missing leader, and why the read was not answered.
    pub problems: Vec<String>,
}

/// Looks at every endpoint of `config`, all at once, each over a connection of its own. Takes five seconds at most. Reads
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
    let (endpoint, mut client) = dial(config, index).await.map_err(|fault| fault.error)?;
    let connected = begun.elapsed();
    let calling = |error: &etcd_client::Error| Fault::calling(&endpoint, error).error;
    let silent = || Fault::silent(&endpoint, CALL).error;
    let mut reader = client.kv_client();
    let root = Names::new(&config.prefix).root();
    let read = async move {
        let begun = Instant::now();
        timeout(CALL, reader.get(root, None)).await.map(|answer| answer.map(|answer| (answer, begun.elapsed())))
    };
    // A member without a leader answers to neither, and still says who it is where it is asked without demanding one.
    let (status, read) = tokio::join!(timeout(CALL, client.status()), read);
    let status = status.map_err(|_| silent())?.map_err(|error| calling(&error))?;
    let mut problems: Vec<String> = status.errors().to_vec();
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
        id: status.header().map_or(0, etcd_client::ResponseHeader::member_id),
        leader: Some(status.leader()).filter(|leader| *leader != 0),
        connected,
        latency,
        revision,
        stored: bytes(status.db_size()),
        quota: Some(bytes(status.db_size_quota())).filter(|quota| *quota > 0),
        problems,
    })
}
