//! Registrations: guards of records that this process owns.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use crate::backend::Stamp;
use crate::discovery::Inner;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{InstanceId, Key};
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
    value: Mutex<Arc<T>>,
    stamp: Mutex<Stamp>,
    state: watch::Receiver<RegistrationState>,
}

impl<T> Registration<T> {
    pub(crate) fn new(
        inner: Arc<Inner>,
        key: Key,
        claim: u64,
        value: Arc<T>,
        stamp: Stamp,
        state: watch::Receiver<RegistrationState>,
    ) -> Self {
        Self { inner, key, claim, value: Mutex::new(value), stamp: Mutex::new(stamp), state }
    }

    /// The record's key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    pub(crate) fn claim(&self) -> u64 {
        self.claim
    }

    /// The instance id that the record is stored under.
    pub fn instance(&self) -> InstanceId {
        self.key.instance()
    }

    /// The value that was registered, or the one of the newest update that was stored.
    pub fn value(&self) -> Arc<T> {
        Arc::clone(&self.value.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The proof of the newest write, for [`View::reached`](crate::View::reached).
    pub fn stamp(&self) -> Stamp {
        self.stamp.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where the registration stands now.
    pub fn state(&self) -> RegistrationState {
        self.state.borrow().clone()
    }

    /// Waits until `accept` says yes to the state, and answers it. Cancel-safe.
    pub async fn wait_for(&self, mut accept: impl FnMut(&RegistrationState) -> bool + Send) -> RegistrationState {
        let mut state = self.state.clone();
        match state.wait_for(|state| accept(state)).await {
            Ok(state) => state.clone(),
            // No more states will come: the last one stands.
            Err(_) => self.state(),
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
    /// under another key, [`ErrorKind::Closed`] where the record was withdrawn; what the store says. After an error
    /// without effect the value before is still stored.
    pub async fn update(&self, next: T) -> Result<Stamp> {
        self.value().check_update(&next).map_err(|error| error.with_key(&self.key).with_operation("update"))?;
        let same_instance = next.instance().is_none_or(|instance| instance == self.key.instance());
        if next.path()? != *self.key.path() || next.suffix() != self.key.suffix() || !same_instance {
            return Err(Error::new(
                ErrorKind::InvalidKey,
                "the new value belongs under another key: register it instead",
            )
            .with_key(&self.key)
            .with_operation("update"));
        }
        let value = next.encode(&self.key)?;
        let stamp = self.inner.update(self.key.clone(), self.claim, value).await?;
        *self.value.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(next);
        *self.stamp.lock().unwrap_or_else(PoisonError::into_inner) = stamp.clone();
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
