//! Typed records: what a service registers and what a view shows.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::backend::Entry;
use crate::error::{Error, ErrorKind, Result};
use crate::key::{InstanceId, Key, Path};
use crate::query::Query;

/// A type that can be registered and viewed. No backend has to know of it.
///
/// ```
/// use discovery_core::{Path, Record, Result};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
/// struct Cache {
///     pool: String,
///     address: String,
/// }
///
/// impl Record for Cache {
///     const KIND: &'static str = "cache";
///
///     fn path(&self) -> Result<Path> {
///         Path::new(Self::KIND, [&self.pool])
///     }
/// }
/// ```
///
/// Values are JSON documents on every backend: two values are equal when they are equal as parsed JSON.
pub trait Record: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The kind's name: `[A-Za-z0-9_-]+`, the first part of every path.
    const KIND: &'static str;

    /// Where the record stands.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`] where a segment cannot be part of a key.
    fn path(&self) -> Result<Path>;

    /// What tells several records of one instance at one path apart.
    fn suffix(&self) -> Option<&str> {
        None
    }

    /// The id this record is stored under, where it is not the owner's: a publisher with an id of its own.
    fn instance(&self) -> Option<InstanceId> {
        None
    }

    /// The stored value. `key` carries the instance id, which is known only once a session is open.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] where the value cannot be written as JSON.
    fn encode(&self, key: &Key) -> Result<Bytes> {
        serde_json::to_vec(self).map(Bytes::from).map_err(|error| {
            Error::new(ErrorKind::InvalidValue, "the record cannot be written as JSON").with_key(key).with_source(error)
        })
    }

    /// Reads a stored value.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidValue`] where the value is not a record of this kind. Such a record is skipped and counted.
    fn decode(key: &Key, value: &[u8]) -> Result<Self> {
        serde_json::from_slice(value).map_err(|error| {
            Error::new(ErrorKind::InvalidValue, "the value is no record of this kind").with_key(key).with_source(error)
        })
    }

    /// Whether a registered record may become `next` in place. The default allows every change.
    ///
    /// # Errors
    /// [`ErrorKind::Refused`], saying what to do instead.
    fn check_update(&self, next: &Self) -> Result<()> {
        let _ = next;
        Ok(())
    }

    /// The records that must agree with this one, read before and after it is written. The default asks for none.
    fn neighbours(&self) -> Option<Query> {
        None
    }

    /// Whether this record can stand beside `other`, one of its neighbours and not itself.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`], naming what excludes it.
    fn check_beside(&self, other: &Self) -> Result<()> {
        let _ = other;
        Ok(())
    }
}

/// A record as a view or a list shows it: its key and its decoded value. Dereferences to the value; cloning copies a pointer.
pub struct Registered<T> {
    inner: Arc<Decoded<T>>,
}

pub(crate) struct Decoded<T> {
    pub(crate) entry: Arc<Entry>,
    pub(crate) value: T,
}

impl<T> Registered<T> {
    pub(crate) fn new(entry: Arc<Entry>, value: T) -> Self {
        Self { inner: Arc::new(Decoded { entry, value }) }
    }

    /// The record's key.
    pub fn key(&self) -> &Key {
        &self.inner.entry.key
    }

    /// The id of the instance that registered it.
    pub fn instance(&self) -> InstanceId {
        self.key().instance()
    }

    /// The decoded value.
    pub fn value(&self) -> &T {
        &self.inner.value
    }

    /// The value as it is stored, with every field that the type does not know.
    pub fn stored(&self) -> &Bytes {
        &self.inner.entry.value
    }

    pub(crate) fn entry(&self) -> &Arc<Entry> {
        &self.inner.entry
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }
}

impl<T> Clone for Registered<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<T> Deref for Registered<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Registered<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registered").field("key", self.key()).field("value", self.value()).finish()
    }
}
