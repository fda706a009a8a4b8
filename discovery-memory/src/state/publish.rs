//! Writes: what is refused, what changes nothing, what is committed.

use bytes::Bytes;
use discovery_core::backend::{Desired, Drift, Stamp, Write, WriteBatch};
use discovery_core::{Error, ErrorKind, Key, Result};

use super::{Ended, Lease, OwnerId, State};
use crate::bounds;

/// What a write has to pass: its session must still be the one of its handle that may write, and no newer write of
/// that session may have arrived before it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fence {
    pub(crate) owner: OwnerId,
    pub(crate) session: u64,
    pub(crate) sequence: u64,
}

/// What one write comes to.
enum Plan {
    /// Nothing to store. The stamp's revision.
    Nothing(u64),
    /// The value stays; the record moves to this session.
    Adopt(u64),
    Store(Bytes),
    Remove,
}

impl State {
    pub(crate) fn publish(&mut self, fence: &Fence, batch: &WriteBatch) -> Vec<Result<Stamp>> {
        let lease = match self.pass(fence) {
            Ok(lease) => lease,
            Err(error) => return refuse(batch, &error),
        };
        if !batch.atomic {
            let single =
                |write: &Write| self.write_all(lease, std::slice::from_ref(write)).map(|mut stamps| stamps.pop());
            let results = batch.writes.iter().map(single);
            return results.map(|result| result.map(Option::unwrap_or_default)).collect();
        }
        if batch.writes.len() > bounds::MAX_BATCH {
            let message =
                format!("{} writes in one batch, at most {} go together", batch.writes.len(), bounds::MAX_BATCH);
            return refuse(batch, &Error::new(ErrorKind::TooLarge, message));
        }
        match self.write_all(lease, &batch.writes) {
            Ok(stamps) => stamps.into_iter().map(Ok).collect(),
            Err(error) => refuse(batch, &error),
        }
    }

    fn pass(&mut self, fence: &Fence) -> Result<Lease> {
        if !self.is_current(fence.owner, fence.session) {
            return Err(Error::new(
                ErrorKind::SessionLost,
                "the session that this write belongs to is gone: nothing was written",
            ));
        }
        let Some(session) = self.sessions.get_mut(&fence.session) else { return Err(Ended::Expired.error()) };
        if session.arrived > fence.sequence {
            return Err(Error::new(
                ErrorKind::Unavailable,
                "a newer write of the session came first: nothing was written",
            ));
        }
        session.arrived = fence.sequence;
        Ok(session.lease)
    }

    /// All of the writes in one transaction, or none of them.
    fn write_all(&mut self, lease: Lease, writes: &[Write]) -> Result<Vec<Stamp>> {
        let plans = writes.iter().map(|write| self.plan(lease, write)).collect::<Result<Vec<_>>>()?;
        let mut commits = Vec::new();
        let mut revisions = Vec::with_capacity(writes.len());
        for (write, plan) in writes.iter().zip(plans) {
            let key = write.key();
            match plan {
                Plan::Nothing(revision) => {
                    revisions.push(Some(revision));
                    self.tell(key, self.revision, false);
                }
                Plan::Adopt(revision) => {
                    revisions.push(Some(revision));
                    if let Some(record) = self.records.get(key).cloned() {
                        self.store(key, Some(super::Stored { lease: Some(lease), ..record }));
                    }
                }
                Plan::Store(value) => {
                    revisions.push(None);
                    commits.push((key.clone(), Some((value, Some(lease)))));
                }
                Plan::Remove => {
                    revisions.push(None);
                    commits.push((key.clone(), None));
                }
            }
        }
        let committed = if commits.is_empty() { self.revision } else { self.commit(commits) };
        Ok(revisions.into_iter().map(|own| Stamp::at(self.at(own.unwrap_or(committed)).position())).collect())
    }

    fn plan(&self, lease: Lease, write: &Write) -> Result<Plan> {
        let key = write.key();
        let stored = self.records.get(key);
        let holder = stored.and_then(|record| record.lease);
        match write {
            Write::Put { value, .. } => {
                bounds::admit(key, value.len())?;
                if let Some(other) = holder.filter(|holder| holder.owner != lease.owner) {
                    return Err(conflict(key, other));
                }
                Ok(match stored {
                    Some(record) if same_json(&record.value, value) => {
                        // A foreign record that is taken over becomes subject to the owner's readiness.
                        if holder.is_none() && self.readiness {
                            Plan::Store(value.clone())
                        } else {
                            Plan::Adopt(record.modified)
                        }
                    }
                    _ => Plan::Store(value.clone()),
                })
            }
            Write::Delete { .. } => match holder {
                Some(holder) if holder.owner == lease.owner => Ok(Plan::Remove),
                _ => Ok(Plan::Nothing(self.revision)),
            },
        }
    }

    /// What differs from `desired`, for the current session of an owner.
    pub(crate) fn verify(&self, owner: OwnerId, session: u64, desired: &Desired) -> Result<Vec<(Key, Drift)>> {
        if !self.is_current(owner, session) {
            return Err(Error::new(ErrorKind::SessionLost, "the session is gone: open another one"));
        }
        let drift = |key: &Key, value: &Bytes| {
            let Some(record) = self.records.get(key) else { return Some(Drift::Changed) };
            match record.lease {
                Some(lease) if lease.owner != owner => Some(Drift::Taken(conflict(key, lease))),
                Some(lease) if lease.session == session && same_json(&record.value, value) => None,
                _ => Some(Drift::Changed),
            }
        };
        let mut drifts: Vec<_> =
            desired.iter().filter_map(|(key, value)| Some((key.clone(), drift(key, value)?))).collect();
        let own = self.owners.get(&owner).map(|owner| &owner.keys).into_iter().flatten();
        let unwanted = own.filter(|key| !desired.contains_key(*key));
        drifts.extend(unwanted.map(|key| (key.clone(), Drift::Unwanted)));
        Ok(drifts)
    }

    /// A write that no session made.
    pub(crate) fn write_foreign(&mut self, key: &Key, value: Option<Bytes>) {
        if value.is_some() || self.records.get(key).is_some() {
            self.commit(vec![(key.clone(), value.map(|value| (value, None)))]);
        }
    }

    /// A write in the name of an owner that is not ready and never will be.
    pub(crate) fn write_impostor(&mut self, key: &Key, value: Bytes) {
        let (owner, session) = (OwnerId(self.new_id()), self.new_id());
        let lease = Lease { owner, session, instance: key.instance(), ttl: bounds::DEFAULT_TTL };
        self.commit(vec![(key.clone(), Some((value, Some(lease))))]);
    }
}

fn refuse(batch: &WriteBatch, error: &Error) -> Vec<Result<Stamp>> {
    batch.writes.iter().map(|write| Err(error.clone().with_key(write.key()))).collect()
}

fn conflict(key: &Key, holder: Lease) -> Error {
    let message = format!("instance {} ({}) holds this key and is alive", holder.instance, holder.owner);
    Error::new(ErrorKind::Conflict, message).with_key(key)
}

/// Whether two values are equal as parsed JSON, or else byte by byte.
pub(crate) fn same_json(one: &[u8], other: &[u8]) -> bool {
    let parse = |bytes| serde_json::from_slice::<serde_json::Value>(bytes).ok();
    one == other || parse(one).is_some_and(|value| parse(other) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::same_json;

    #[test]
    fn values_are_compared_as_json() {
        assert!(same_json(br#"{"a":1,"b":[2]}"#, br#"{ "b": [2], "a": 1 }"#));
        assert!(!same_json(b"[1,2]", b"[2,1]"));
        assert!(same_json(b"not json", b"not json"));
        assert!(!same_json(b"not json", b"nor this"));
    }
}
