//! Comparing what is stored with what its owner wants, at little cost: revisions first, values only where they differ.

use std::collections::HashSet;

use discovery_core::backend::{Desired, Drift};
use discovery_core::{ErrorKind, Key};
use etcd_client::{
    Compare, CompareOp, KeyValue, LeaseTimeToLiveOptions, ResponseHeader, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use futures_util::{StreamExt, stream};

use crate::fault::{Fault, lease_gone};
use crate::link::Wire;
use crate::session::{EtcdSession, Ground};
use crate::store::CALL;
use crate::write::taken;

/// How many records are compared in one transaction.
const CHUNK: usize = 100;
/// How many such transactions are under way at once.
const PIPELINE: usize = 8;
/// One of so many verifications looks at all keys of the lease, where nothing makes it look sooner: some 50 s apart.
const SELDOM: u32 = 12;

struct Wanted<'a> {
    key: &'a Key,
    value: &'a [u8],
    stored: String,
}

/// What differs.
pub(crate) async fn compare(
    session: &EtcdSession,
    ground: &mut Ground,
    desired: &Desired,
) -> Result<Vec<(Key, Drift)>, Fault> {
    let mut wanted = Vec::with_capacity(desired.len());
    for (key, value) in desired {
        // What cannot be stored was refused when it was written.
        if let Ok(stored) = session.store.names.stored(key) {
            wanted.push(Wanted { key, value, stored });
        }
    }
    let (known, mut changed): (Vec<_>, Vec<_>) =
        wanted.iter().partition(|wanted| ground.held.contains_key(&wanted.stored));
    let mut asking: Vec<Txn> = known.chunks(CHUNK).map(|chunk| unchanged(session, ground, chunk)).collect();
    if asking.is_empty() {
        // Where the store stands is always asked.
        asking.push(unchanged(session, ground, &[]));
    }
    let asking = asking.into_iter().map(|txn| transact(session, txn));
    let answers: Vec<_> = stream::iter(asking).buffered(PIPELINE).collect().await;
    let mut chunks = known.chunks(CHUNK);
    for answer in answers {
        let succeeded = answer?.succeeded();
        changed.extend(chunks.next().filter(|_| !succeeded).into_iter().flatten());
    }
    let mut drifts = Vec::new();
    // A store that goes back to an earlier state brings back what was withdrawn. It ends every connection, or is found out.
    let generation = session.store.control.generation();
    let looks = ground.sure == 0 || ground.generation != generation || !changed.is_empty();
    if looks {
        // Also for whether the lease itself is gone.
        if let Some(under_lease) = keys(session).await? {
            let names: HashSet<&[u8]> = wanted.iter().map(|wanted| wanted.stored.as_bytes()).collect();
            let spare = under_lease.iter().filter(|stored| !names.contains(stored.as_slice()));
            drifts.extend(spare.filter_map(|stored| Some((session.store.names.parse(stored)?, Drift::Unwanted))));
        }
    }
    let reading: Vec<_> = changed.chunks(CHUNK).map(|chunk| read(session, chunk)).collect();
    let found: Vec<_> = stream::iter(reading).buffered(PIPELINE).collect().await;
    for (chunk, records) in changed.chunks(CHUNK).zip(found) {
        for (wanted, record) in chunk.iter().zip(records?) {
            if let Some(drift) = judge(session, ground, wanted, record) {
                drifts.push((wanted.key.clone(), drift));
            }
        }
    }
    // Only now: one that was given up half-way has told nobody what it found.
    if looks {
        (ground.sure, ground.generation) = (SELDOM, generation);
    }
    ground.sure = if drifts.is_empty() { ground.sure - 1 } else { 0 };
    Ok(drifts)
}

/// The stored keys under the lease; `None` where they are too many for one answer.
async fn keys(session: &EtcdSession) -> Result<Option<HashSet<Vec<u8>>>, Fault> {
    let lease = session.lease;
    let ask = move |mut wire: Wire| async move {
        wire.lease.time_to_live(lease, Some(LeaseTimeToLiveOptions::new().with_keys())).await
    };
    match session.store.control.read(CALL, ask).await {
        Ok(answer) if answer.ttl() < 0 => Err(Fault { error: lease_gone(), broken: false }),
        Ok(answer) => Ok(Some(answer.keys().iter().cloned().collect())),
        Err(fault) if fault.error.kind() == ErrorKind::TooLarge => Ok(None),
        Err(fault) => Err(fault),
    }
}

/// Succeeds where all of them are at the revisions that they were written at.
fn unchanged(session: &EtcdSession, ground: &Ground, chunk: &[&Wanted<'_>]) -> Txn {
    let compares: Vec<_> = chunk
        .iter()
        .map(|wanted| {
            let revision = ground.held.get(&wanted.stored).copied().unwrap_or_default();
            Compare::mod_revision(wanted.stored.as_str(), CompareOp::Equal, revision)
        })
        .collect();
    // Without something to read etcd compares what the member itself has stored, however old that is.
    Txn::new().when(compares).and_then([session.fence.get()])
}

async fn transact(session: &EtcdSession, txn: Txn) -> Result<TxnResponse, Fault> {
    let ask = |mut wire: Wire| {
        let txn = txn.clone();
        async move { wire.kv.txn(txn).await }
    };
    let before = session.store.known();
    let answer = session.store.control.read(CALL, ask).await?;
    session.store.answered(before, answer.header().map_or(0, ResponseHeader::revision));
    Ok(answer)
}

async fn read(session: &EtcdSession, chunk: &[&Wanted<'_>]) -> Result<Vec<Option<KeyValue>>, Fault> {
    let gets: Vec<_> = chunk.iter().map(|wanted| TxnOp::get(wanted.stored.as_str(), None)).collect();
    let answer = transact(session, Txn::new().and_then(gets)).await?;
    let records = answer.op_responses().into_iter().map(|found| match found {
        TxnOpResponse::Get(mut found) => found.take_kvs().into_iter().next(),
        _ => None,
    });
    Ok(records.collect())
}

fn judge(session: &EtcdSession, ground: &mut Ground, wanted: &Wanted<'_>, record: Option<KeyValue>) -> Option<Drift> {
    let Some(record) = record else {
        ground.held.remove(&wanted.stored);
        return Some(Drift::Changed);
    };
    if record.lease() == session.lease {
        if record.value() == wanted.value {
            ground.held.insert(wanted.stored.clone(), record.mod_revision());
            return None;
        }
        ground.held.insert(wanted.stored.clone(), -1);
        return Some(Drift::Changed);
    }
    ground.held.remove(&wanted.stored);
    if session.owner.may_take(record.lease()) {
        return Some(Drift::Changed);
    }
    Some(Drift::Taken(taken(wanted.key, record.lease())))
}
