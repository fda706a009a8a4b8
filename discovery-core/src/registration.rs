//! Registrations: guards of records that this process owns.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::backend::Stamp;
use crate::discovery::Inner;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{InstanceId, Key};
use crate::reconcile::Wish;
use crate::record::Record;

/// Where a registration stands.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum RegistrationState {
    /// Not stored yet.
    #[default]
    Pending,
    /// Stored under a session that is proven alive.
    Registered,
    /// Its session was lost, or the record was deleted or overwritten by others: it is being put back.
    Lost(Error),
    /// It is not stored and will not be: another owner holds the key, for example.
    Failed(Error),
    /// It was withdrawn.
    Withdrawn,
}

impl RegistrationState {
    /// Whether the record is stored, under a session that is proven alive.
    pub fn is_registered(&self) -> bool {
        matches!(self, Self::Registered)
    }

    /// The stable name used in logs: `pending`, `registered`, `lost`, `failed`, `withdrawn`.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Registered => "registered",
            Self::Lost(_) => "lost",
            Self::Failed(_) => "failed",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// A registered record. The core keeps it stored, through losses of the session and deletions by others, until it is
/// withdrawn: by [`Registration::deregister`], or in the background when the last guard of the record is dropped.
#[must_use = "dropping a registration withdraws its record"]
pub struct Registration<T> {
    inner: Arc<Inner>,
    key: Key,
    claim: u64,
    newest: Mutex<Newest<T>>,
    state: watch::Receiver<RegistrationState>,
}

/// What was stored last, by the number of its wish: of two updates at once, the later wish.
struct Newest<T> {
    change: u64,
    value: Arc<T>,
    stamp: Stamp,
}

/// What a registration is made of, once its record is stored.
pub(crate) struct Stored<T> {
    pub(crate) key: Key,
    pub(crate) value: Arc<T>,
    pub(crate) stamp: Stamp,
}

impl<T> Registration<T> {
    pub(crate) fn new(inner: Arc<Inner>, wish: Wish, stored: Stored<T>) -> Self {
        let Stored { key, value, stamp } = stored;
        let newest = Newest { change: wish.change, value, stamp };
        Self { inner, key, claim: wish.claim, newest: Mutex::new(newest), state: wish.state }
    }

    fn newest(&self) -> MutexGuard<'_, Newest<T>> {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record's key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    pub(crate) fn claim(&self) -> u64 {
        self.claim
    }

    /// The number of the newest wish that was stored.
    pub(crate) fn change(&self) -> u64 {
        self.newest().change
    }

    /// The instance id that the record is stored under.
    pub fn instance(&self) -> InstanceId {
        self.key.instance()
    }

    /// The value that was registered, or the one of the newest update that was stored.
    pub fn value(&self) -> Arc<T> {
        Arc::clone(&self.newest().value)
    }

    /// The proof of the newest write, for [`View::reached`](crate::View::reached).
    pub fn stamp(&self) -> Stamp {
        self.newest().stamp.clone()
    }

    /// Where the registration stands now.
    pub fn state(&self) -> RegistrationState {
        self.state.borrow().clone()
    }

    /// Waits until `accept` says yes to the state, and answers it. Cancel-safe.
    pub async fn wait_for(&self, mut accept: impl FnMut(&RegistrationState) -> bool + Send) -> RegistrationState {
        let mut state = self.state.clone();
        loop {
            // Copied out: whoever sets the state must never wait for the caller's closure.
            let now = state.borrow_and_update().clone();
            if accept(&now) || state.changed().await.is_err() {
                return now;
            }
        }
    }

    /// Withdraws the record and waits until it is gone from the store; other guards of the same record are withdrawn
    /// with it. Withdrawing twice is no error. Cancel-safe: the wish to keep the record ends before the first await,
    /// and the withdrawal goes on when this future is dropped.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] after the handle's operation time-out, or what the store says; the core keeps trying.
    pub async fn deregister(&self) -> Result<()> {
        self.inner.withdraw(self.key.clone(), self.claim).await
    }
}

impl<T: Record> Registration<T> {
    /// Stores another value under the same key, without a moment in which the record is absent.
    ///
    /// Cancel-safe: dropping the future leaves the new value wanted.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`] where the kind forbids the change, [`ErrorKind::InvalidKey`] where the new value belongs
    /// under another key, [`ErrorKind::Conflict`] where a neighbour excludes it, [`ErrorKind::Closed`] where the record
    /// was withdrawn; what the store says. After an error without effect the value before, or that of a later update, is
    /// stored.
    pub async fn update(&self, next: T) -> Result<Stamp> {
        let same_instance = next.instance().is_none_or(|instance| instance == self.key.instance());
        if next.path()? != *self.key.path() || next.suffix() != self.key.suffix() || !same_instance {
            return Err(Error::new(
                ErrorKind::InvalidKey,
                "the new value belongs under another key: register it instead",
            )
            .with_key(&self.key)
            .with_operation("update"));
        }
        let next = Arc::new(next);
        let (change, stamp) = self.inner.update(self.key.clone(), self.claim, Arc::clone(&next)).await?;
        let mut newest = self.newest();
        if change >= newest.change {
            *newest = Newest { change, value: next, stamp: stamp.clone() };
        }
        Ok(stamp)
    }
}

impl<T> Drop for Registration<T> {
    fn drop(&mut self) {
        self.inner.release(&self.key, self.claim);
    }
}

impl<T> fmt::Debug for Registration<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").field("key", &self.key).field("state", &*self.state.borrow()).finish()
    }
}
