//! Comparing what is stored with what its owner wants, at little cost: revisions first, values only where they differ.

use std::collections::HashSet;

use discovery_core::backend::{Desired, Drift};
use discovery_core::{ErrorKind, Key};
use etcd_client::{Compare, CompareOp, KeyValue, LeaseTimeToLiveOptions, Txn, TxnOp, TxnOpResponse};

use crate::fault::{Fault, lease_gone};
use crate::link::Wire;
use crate::session::{EtcdSession, Ground};
use crate::store::CALL;
use crate::write::taken;

/// How many records are compared in one transaction.
const CHUNK: usize = 100;

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
    let under_lease = keys(session).await?;
    let mut drifts = Vec::new();
    let mut wanted = Vec::with_capacity(desired.len());
    for (key, value) in desired {
        // What cannot be stored was refused when it was written.
        if let Ok(stored) = session.store.names.stored(key) {
            wanted.push(Wanted { key, value, stored });
        }
    }
    if let Some(under_lease) = &under_lease {
        let names: HashSet<&[u8]> = wanted.iter().map(|wanted| wanted.stored.as_bytes()).collect();
        let spare = under_lease.iter().filter(|stored| !names.contains(stored.as_slice()));
        drifts.extend(spare.filter_map(|stored| Some((session.store.names.parse(stored)?, Drift::Unwanted))));
    }
    let (known, unknown): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|wanted| {
        let attached = under_lease.as_ref().is_none_or(|keys| keys.contains(wanted.stored.as_bytes()));
        attached && ground.held.contains_key(&wanted.stored)
    });
    let mut changed: Vec<Wanted<'_>> = unknown;
    let mut known = known.into_iter().peekable();
    while known.peek().is_some() {
        let chunk: Vec<_> = known.by_ref().take(CHUNK).collect();
        if !unchanged(session, ground, &chunk).await? {
            changed.extend(chunk);
        }
    }
    for chunk in changed.chunks(CHUNK) {
        for (wanted, record) in chunk.iter().zip(read(session, chunk).await?) {
            if let Some(drift) = judge(session, ground, wanted, record) {
                drifts.push((wanted.key.clone(), drift));
            }
        }
    }
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

/// Whether all of them are at the revisions that they were written at.
async fn unchanged(session: &EtcdSession, ground: &Ground, chunk: &[Wanted<'_>]) -> Result<bool, Fault> {
    let compares: Vec<_> = chunk
        .iter()
        .map(|wanted| {
            let revision = ground.held.get(&wanted.stored).copied().unwrap_or_default();
            Compare::mod_revision(wanted.stored.as_str(), CompareOp::Equal, revision)
        })
        .collect();
    let txn = Txn::new().when(compares);
    let answer = session.store.control.read(CALL, move |wire| transact(wire, txn.clone())).await?;
    Ok(answer.succeeded())
}

async fn transact(mut wire: Wire, txn: Txn) -> Result<etcd_client::TxnResponse, etcd_client::Error> {
    wire.kv.txn(txn).await
}

async fn read(session: &EtcdSession, chunk: &[Wanted<'_>]) -> Result<Vec<Option<KeyValue>>, Fault> {
    let gets: Vec<_> = chunk.iter().map(|wanted| TxnOp::get(wanted.stored.as_str(), None)).collect();
    let txn = Txn::new().and_then(gets);
    let answer = session.store.control.read(CALL, move |wire| transact(wire, txn.clone())).await?;
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
