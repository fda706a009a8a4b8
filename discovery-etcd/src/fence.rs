//! What keeps a write that arrives late from having an effect.
//!
//! Guards on a record's own key cannot tell a late creation from a new one: between the two the record may have been
//! written and withdrawn again. So every handle keeps one more key, its fence, under the lease of its newest session, and
//! every transaction compares its revision. Whenever it is not known what came of a write, the fence is written again
//! before anything else is, and the write can have no effect any more. A new session writes the fence too, and so ends
//! the writes of the one before.

use discovery_core::{Effect, Error, ErrorKind};
use etcd_client::{Compare, CompareOp, GetResponse, PutOptions, Txn, TxnOp, TxnOpResponse};

use crate::fault::{Fault, lease_gone};
use crate::link::Wire;
use crate::store::{CALL, Store};

/// How often the fence is written again because it changed meanwhile.
const TRIES: usize = 4;

/// The fence of one handle, as one session sees it.
#[derive(Debug)]
pub(crate) struct Fence {
    pub(crate) stored: String,
    pub(crate) lease: i64,
    /// Numbers the sessions of the handle; the fence's value.
    pub(crate) session: u64,
}

/// What a fence was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is gone: somebody removed it, or the store lost it.
    Absent,
    /// It is at this revision, written by this session or an earlier one.
    At(i64),
    /// A later session has written it.
    Superseded,
}

impl Fence {
    /// Holds while the fence is as it was at `revision`.
    pub(crate) fn holds(&self, revision: i64) -> Compare {
        Compare::mod_revision(self.stored.as_str(), CompareOp::Equal, revision)
    }

    pub(crate) fn get(&self) -> TxnOp {
        TxnOp::get(self.stored.as_str(), None)
    }

    fn put(&self) -> TxnOp {
        let options = PutOptions::new().with_lease(self.lease);
        TxnOp::put(self.stored.as_str(), self.session.to_string(), Some(options))
    }

    pub(crate) fn standing(&self, answer: &GetResponse) -> Standing {
        let Some(record) = answer.kvs().first() else { return Standing::Absent };
        let session = record.value_str().ok().and_then(|text| text.parse::<u64>().ok());
        match session {
            Some(session) if session > self.session => Standing::Superseded,
            _ => Standing::At(record.mod_revision()),
        }
    }

    /// Writes the fence, which is thought to be as it stands at `last` or else absent, and answers its new revision. What
    /// was sent before under an earlier revision has no effect from then on.
    pub(crate) async fn raise(&self, store: &Store, last: Option<i64>) -> Result<i64, Error> {
        let mut standing = last.map_or(Standing::Absent, Standing::At);
        for _ in 0..TRIES {
            let guard = match standing {
                Standing::At(revision) => self.holds(revision),
                Standing::Absent => Compare::create_revision(self.stored.as_str(), CompareOp::Equal, 0),
                Standing::Superseded => return Err(superseded()),
            };
            let txn = Txn::new().when([guard]).and_then([self.put()]).or_else([self.get()]);
            let write = |mut wire: Wire| async move { wire.kv.txn(txn).await };
            let before = store.known();
            let answer = store.control.call(CALL, write).await.map_err(before_writing)?;
            let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
            // Where the store lost data and with it the lease, this is often the first to see it.
            store.answered(before, revision);
            if answer.succeeded() {
                return Ok(revision);
            }
            standing = match answer.op_responses().first() {
                Some(TxnOpResponse::Get(found)) => self.standing(found),
                _ => Standing::Absent,
            };
        }
        let message = "the handle's fence key changes all the time: does something else write it?";
        Err(Error::new(ErrorKind::Unavailable, message))
    }
}

pub(crate) fn superseded() -> Error {
    Error::new(ErrorKind::SessionLost, "a later session of this handle has taken over")
}

/// The fence is no record: what became of it is nothing that a caller has to know.
fn before_writing(fault: Fault) -> Error {
    if fault.error.kind() == ErrorKind::SessionLost { lease_gone() } else { fault.error.with_effect(Effect::None) }
}
