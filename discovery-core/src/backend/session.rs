//! The writing side of a backend: sessions, under which an owner's records live.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use super::event::Position;
use crate::error::{Error, Result};
use crate::key::{InstanceId, Key};

/// What the core asks of a new session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionRequest {
    /// How long records may outlive their owner's last renewal. `None`: the backend's default. A backend raises what is
    /// below its minimum and reports the result as [`Session::effective_ttl`].
    pub ttl: Option<Duration>,
    /// The instance id to keep: set when a session follows a lost one, or when the user chose the id. `None`: the
    /// backend chooses.
    pub instance: Option<InstanceId>,
}

impl SessionRequest {
    /// A request for a session of `ttl` under `instance`, each `None` for the backend's own choice.
    pub fn new(ttl: Option<Duration>, instance: Option<InstanceId>) -> Self {
        Self { ttl, instance }
    }
}

/// Opens sessions.
#[async_trait]
pub trait Registrar: Send + Sync + 'static {
    /// Opens a session. The core holds at most one of a handle at a time, and opens the first one with the first
    /// registration: a process that only watches has none.
    ///
    /// A session that is opened after an earlier one of the same backend object was lost takes over that one's
    /// records: [`Session::publish`] treats keys that the earlier one wrote as its own. Where the earlier one still lives
    /// in the store, as after a network failure, the later one supersedes it: the earlier one's late writes and its
    /// expiry take nothing that the later one wrote.
    ///
    /// # Errors
    /// Temporary errors are retried by the core with back-off.
    async fn open(&self, request: &SessionRequest) -> Result<Box<dyn Session>>;
}

/// What one owner wants stored: every key with its newest value.
pub type Desired = BTreeMap<Key, Bytes>;

/// One write of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Store this value under the key, whether the key is new, absent again, or already this owner's.
    Put {
        /// The key.
        key: Key,
        /// The value, a JSON document.
        value: Bytes,
    },
    /// Remove the key where this owner holds it. A key that is absent, or another's, is left alone and is no error.
    Delete {
        /// The key.
        key: Key,
    },
}

impl Write {
    /// The key that is written.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// The writes of one publish, each key at most once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteBatch {
    /// The writes.
    pub writes: Vec<Write>,
    /// Whether they are one transaction: all of them or none, seen by watchers as one batch. Set only where the backend
    /// claims `[batch]`, and then with at most its declared `max_batch` writes.
    pub atomic: bool,
}

/// Proof of a write: hand it to [`View::reached`](crate::View::reached) to read it back from a view.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stamp {
    /// Where the write stands in the store's order. `None`: the store does not say, and a barrier is used instead.
    pub position: Option<Position>,
}

impl Stamp {
    /// The stamp of a write at `position`.
    pub fn at(position: Position) -> Self {
        Self { position: Some(position) }
    }

    /// The stamp of a store that does not say where a write stands.
    pub fn unordered() -> Self {
        Self::default()
    }
}

/// How a stored record differs from what its owner wants.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Drift {
    /// It is gone, or holds another value: the core writes it again.
    Changed,
    /// Another owner holds the key for good: the registration fails with this conflict.
    Taken(Error),
    /// It is stored under this owner and nobody wants it, as after a store went back in time: the core removes it.
    Unwanted,
}

/// One owner's session: a lease, a pod, a heartbeat.
///
/// The core calls [`renew`](Session::renew), [`publish`](Session::publish) and [`verify`](Session::verify) concurrently
/// with each other, and never one of them twice at a time.
#[async_trait]
pub trait Session: Send + Sync + 'static {
    /// Under which id its records stand.
    fn id(&self) -> InstanceId;

    /// The time to live in force, at least what was asked for; `None` where the store decides liveness by itself.
    fn effective_ttl(&self) -> Option<Duration>;

    /// Keeps the session alive. Answers how long it is proven to live, counted from when this call was made. The core
    /// calls it well before that has passed, and again, sooner, when it fails. Never called without a TTL.
    ///
    /// # Errors
    /// [`SessionLost`](crate::ErrorKind::SessionLost) where the store says that the session is gone. Any other error
    /// leaves it undecided.
    async fn renew(&self) -> Result<Duration>;

    /// Writes. Answers one result for each write, in order. `desired` is all that the owner wants stored once these
    /// writes are done, for stores that keep an owner's records in one object.
    ///
    /// Obligations: a put of a key that another live owner holds is a [`Conflict`](crate::ErrorKind::Conflict)
    /// (`[exclusive]`); a write that arrives late, after this session was lost or superseded or after a later publish of
    /// this session wrote the same key, changes nothing; an error that may have had an effect says so. Where an atomic
    /// batch fails, every write answers the error, and nothing is written.
    async fn publish(&self, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>>;

    /// Compares the store with `desired` and answers what differs, records under this owner that are not in `desired`
    /// included. Reads no more than the owner's own records.
    ///
    /// # Errors
    /// [`SessionLost`](crate::ErrorKind::SessionLost) where the session is known to be gone, as in
    /// [`Session::renew`]; else where the store cannot be asked, and the core tries again.
    async fn verify(&self, desired: &Desired) -> Result<Vec<(Key, Drift)>>;

    /// When this session wants to be verified, where that may be sooner than the core does it by itself; asked after each
    /// publish and each verification, which does not do where it came before that moment. For a store without
    /// `[exclusive]`, where a write is acknowledged before its rivals show. `None`, and a moment before the newest
    /// verification began, ask for nothing.
    fn verify_by(&self) -> Option<Instant> {
        None
    }

    /// Resolves when the backend learns by itself that the session is lost. May stay pending for ever.
    async fn lost(&self) -> Error;

    /// Ends the session and removes what is left of its records.
    ///
    /// # Errors
    /// What could not be removed; it goes when the TTL has passed, where there is one.
    async fn close(&self) -> Result<()>;
}
