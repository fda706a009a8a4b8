//! A store's history: forgotten, or gone through again up to an earlier transaction.

use std::collections::{BTreeMap, BTreeSet};

use discovery_core::{Error, ErrorKind, Result};
use etcd_client::{
    EventType, GetOptions, KeyValue, LeaseGrantOptions, PutOptions, ResponseHeader, Txn, TxnOp, WatchOptions,
};

use super::client::Client;
use super::failed;

/// A key that holds nothing, for transactions that are only to take place.
const NOTHING: &str = "nothing";
/// The most operations that a server takes in one transaction.
const MOST: usize = 128;
/// After so many transactions that are gone through again the leases are renewed.
const OFTEN: i64 = 200;
/// The time to live of a lease that was gone when the history was read.
const SHORT: i64 = 5;

fn revision(header: Option<&ResponseHeader>) -> i64 {
    header.map_or(0, ResponseHeader::revision)
}

/// Forgets the history up to now.
pub(super) async fn compact(mut client: Client) -> Result<()> {
    // A compaction at the same revision twice is refused.
    let put = client.put(NOTHING, "", None).await.map_err(failed)?;
    client.compact(revision(put.header()), None).await.map_err(failed)?;
    Ok(())
}

/// What each transaction wrote.
pub(super) struct Past {
    transactions: BTreeMap<i64, Vec<Wrote>>,
    last: i64,
    /// The leases that records were written under, with their times to live.
    leases: BTreeMap<i64, i64>,
}

struct Wrote {
    key: Vec<u8>,
    /// With its lease; `None` for a deletion.
    value: Option<(Vec<u8>, i64)>,
}

impl Wrote {
    fn put(record: &KeyValue) -> Self {
        Self { key: record.key().to_vec(), value: Some((record.value().to_vec(), record.lease())) }
    }
}

/// Reads all that was written up to so many transactions ago.
pub(super) async fn read(mut client: Client, transactions: usize) -> Result<Past> {
    let now = revision(client.get(NOTHING, None).await.map_err(failed)?.header());
    // The first revision of all is that of an empty store.
    let last = now.saturating_sub_unsigned(transactions as u64).max(1);
    let mut past = Past { transactions: BTreeMap::new(), last, leases: BTreeMap::new() };
    let forgotten = past.follow(&mut client, 1, now).await?;
    if let Some(forgotten) = forgotten {
        if forgotten > last {
            return Err(Error::new(ErrorKind::Expired, format!("revision {last} is no longer kept")));
        }
        // Of what is forgotten the state that it led to: each record created and last written when it was.
        let options = GetOptions::new().with_all_keys().with_revision(forgotten);
        for record in client.get("", Some(options)).await.map_err(failed)?.kvs() {
            for at in BTreeSet::from([record.create_revision(), record.mod_revision()]) {
                past.transactions.entry(at).or_default().push(Wrote::put(record));
            }
        }
        past.follow(&mut client, forgotten + 1, now).await?;
    }
    past.transactions.retain(|at, _| *at <= last);
    let written = past.transactions.values().flatten().filter_map(|wrote| wrote.value.as_ref());
    let leases: BTreeSet<i64> = written.map(|(_, lease)| *lease).filter(|lease| *lease != 0).collect();
    for lease in leases {
        // Of one that is gone a single server says so, and a member of several fails.
        let ttl = client.lease_time_to_live(lease, None).await.map_or(0, |found| found.granted_ttl());
        past.leases.insert(lease, if ttl > 0 { ttl } else { SHORT });
    }
    Ok(past)
}

impl Past {
    /// Takes note of all that was written from one revision to another; answers the first that is still kept where the
    /// first asked for is not.
    async fn follow(&mut self, client: &mut Client, from: i64, to: i64) -> Result<Option<i64>> {
        if from > to {
            return Ok(None);
        }
        let options = WatchOptions::new().with_all_keys().with_start_revision(from);
        let mut watch = client.watch("", Some(options)).await.map_err(failed)?;
        let mut seen = 0;
        while seen < to {
            let Some(answer) = watch.message().await.map_err(failed)? else { break };
            if answer.compact_revision() > 0 {
                return Ok(Some(answer.compact_revision()));
            }
            // An empty store has no first transaction.
            if answer.events().is_empty() && to == 1 {
                break;
            }
            for event in answer.events() {
                let Some(record) = event.kv() else { continue };
                seen = record.mod_revision();
                let wrote = match event.event_type() {
                    EventType::Put => Wrote::put(record),
                    EventType::Delete => Wrote { key: record.key().to_vec(), value: None },
                };
                self.transactions.entry(seen).or_default().push(wrote);
            }
        }
        Ok(None)
    }

    /// Writes it all into an empty store, each transaction at the revision that it had.
    pub(super) async fn write(self, mut client: Client) -> Result<()> {
        for (lease, ttl) in &self.leases {
            let options = LeaseGrantOptions::new().with_id(*lease);
            client.lease_grant(*ttl, Some(options)).await.map_err(failed)?;
        }
        for at in 2..=self.last {
            if at % OFTEN == 0 || at == self.last {
                for lease in self.leases.keys() {
                    client.lease_keep_alive(*lease).await.map_err(failed)?;
                }
            }
            let mut ops = Vec::new();
            for wrote in self.transactions.get(&at).into_iter().flatten() {
                let key = wrote.key.clone();
                ops.push(match &wrote.value {
                    Some((value, lease)) => {
                        let options = (*lease != 0).then(|| PutOptions::new().with_lease(*lease));
                        TxnOp::put(key, value.clone(), options)
                    }
                    None => TxnOp::delete(key, None),
                });
            }
            if ops.is_empty() {
                ops.push(TxnOp::put(NOTHING, "", None));
            }
            if ops.len() > MOST {
                return Err(Error::new(ErrorKind::TooLarge, format!("{} records went at once", ops.len())));
            }
            let answer = client.txn(Txn::new().and_then(ops)).await.map_err(failed)?;
            let reached = revision(answer.header());
            if reached != at {
                return Err(Error::new(ErrorKind::Internal, format!("at revision {reached} and not {at}")));
            }
        }
        Ok(())
    }
}
