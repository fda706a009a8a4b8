//! Writes as transactions: what guards each of them, and what an answer means.

use discovery_core::backend::Write;
use discovery_core::{Error, ErrorKind, Key};
use etcd_client::{Compare, CompareOp, GetResponse, PutOptions, Txn, TxnOp, TxnOpResponse};

use crate::owner::Owner;

/// What a record is thought to be. The write takes place only if it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// Not there.
    Absent,
    /// There, under the session's lease.
    Own,
    /// There, at this revision, under an earlier lease of the handle or none.
    At(i64),
}

/// One write on its way.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    /// Where it stands in the batch.
    pub(crate) index: usize,
    pub(crate) stored: String,
    pub(crate) write: Write,
    pub(crate) guard: Guard,
}

/// What came of an order.
#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    /// The record is as it should be.
    Done,
    /// It is not what it was thought to be: try again with this guard.
    Again(Guard),
    Failed(Error),
}

impl Order {
    /// How many bytes of a request it takes, about.
    pub(crate) fn size(&self) -> usize {
        let value = match &self.write {
            Write::Put { value, .. } => value.len(),
            Write::Delete { .. } => 0,
        };
        // The key stands in the guard, in the write and in the read.
        value + 3 * self.stored.len() + 96
    }

    /// What must hold for the write to take place.
    pub(crate) fn compare(&self, lease: i64) -> Compare {
        let stored = self.stored.as_str();
        match self.guard {
            Guard::Absent => Compare::create_revision(stored, CompareOp::Equal, 0),
            Guard::Own => Compare::lease(stored, CompareOp::Equal, lease),
            Guard::At(revision) => Compare::mod_revision(stored, CompareOp::Equal, revision),
        }
    }

    /// What is written where the guard holds; `None` where a deletion finds nothing to delete.
    pub(crate) fn op(&self, lease: i64) -> Option<TxnOp> {
        match &self.write {
            Write::Put { value, .. } => {
                let options = PutOptions::new().with_lease(lease);
                Some(TxnOp::put(self.stored.as_str(), value.to_vec(), Some(options)))
            }
            Write::Delete { .. } if self.guard == Guard::Absent => None,
            Write::Delete { .. } => Some(TxnOp::delete(self.stored.as_str(), None)),
        }
    }

    /// What tells the next guard where it does not hold.
    pub(crate) fn look(&self) -> TxnOp {
        // With the value: etcd 3.7 leaves the lease out where keys alone are asked for.
        TxnOp::get(self.stored.as_str(), None)
    }

    /// The order as a transaction of its own.
    pub(crate) fn txn(&self, lease: i64) -> Txn {
        let ops: Vec<TxnOp> = self.op(lease).into_iter().collect();
        Txn::new().when([self.compare(lease)]).and_then(ops).or_else([self.look()])
    }

    /// What the record that stands there means for the order.
    pub(crate) fn judge(&self, found: &GetResponse, lease: i64, owner: &Owner) -> Verdict {
        let deleting = matches!(self.write, Write::Delete { .. });
        match found.kvs().first() {
            None if deleting => Verdict::Done,
            None => Verdict::Again(Guard::Absent),
            Some(record) if record.lease() == lease => Verdict::Again(Guard::Own),
            // A record that nobody's lease holds is left alone by a deletion: it is not known to be this owner's.
            Some(record) if owner.may_take(record.lease()) && !(deleting && record.lease() == 0) => {
                Verdict::Again(Guard::At(record.mod_revision()))
            }
            Some(_) if deleting => Verdict::Done,
            Some(record) => Verdict::Failed(taken(self.write.key(), record.lease())),
        }
    }

    /// What came of the order, from its own transaction's answer.
    pub(crate) fn verdict(&self, answer: Option<&TxnOpResponse>, lease: i64, owner: &Owner) -> Verdict {
        let Some(TxnOpResponse::Txn(answer)) = answer else { return Verdict::Failed(unreadable()) };
        if answer.succeeded() {
            return Verdict::Done;
        }
        match answer.op_responses().first() {
            Some(TxnOpResponse::Get(found)) => self.judge(found, lease, owner),
            _ => Verdict::Failed(unreadable()),
        }
    }
}

pub(crate) fn taken(key: &Key, lease: i64) -> Error {
    let message = format!("another owner holds the key, under lease {lease:x}: stop it, or register under another id");
    Error::new(ErrorKind::Conflict, message).with_key(key)
}

pub(crate) fn unreadable() -> Error {
    Error::new(ErrorKind::Internal, "etcd's answer is not of the form that was asked for: please report it")
}
