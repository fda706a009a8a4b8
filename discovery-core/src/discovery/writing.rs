//! Writing: registrations.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Discovery;
use super::storing::{Proposal, propose};
use crate::error::{Error, ErrorKind, Result};
use crate::key::{Key, Path};
use crate::reconcile::closed;
use crate::record::Record;
use crate::registration::Registration;

/// A record of a kind that has no Rust type: for command lines and bridges. Registered by [`Discovery::register_draft`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Draft {
    /// The kind.
    pub kind: String,
    /// The path's segments.
    pub segments: Vec<String>,
    /// What tells several records of one instance at one path apart.
    pub suffix: Option<String>,
    /// The value.
    pub value: serde_json::Value,
}

impl Discovery {
    /// Registers a record: stored when it returns, and kept stored until it is withdrawn.
    ///
    /// Temporary failures are tried again until the operation time-out. Registering an equal record again is silent.
    /// Cancel-safe: a registration whose future is dropped is withdrawn in the background, unless another guard holds the
    /// same record; a new value for a record that is held stays wanted then.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where another owner holds the key or a neighbour excludes the record,
    /// [`ErrorKind::InvalidKey`] and [`ErrorKind::TooLarge`] before any I/O, [`ErrorKind::Refused`] where the record is
    /// registered already and its kind forbids the change, [`ErrorKind::Timeout`] with the backend's last error. After
    /// an error of unknown effect the core itself withdraws what may have been stored.
    pub async fn register<T: Record>(&self, record: T) -> Result<Registration<T>> {
        let proposals = vec![propose(record)?];
        let inner = Arc::clone(&self.inner);
        self.inner
            .run_write(
                "register",
                async move { inner.register_proposals(proposals, false).await?.pop().ok_or_else(closed) },
            )
            .await
    }

    /// Registers several records in one transaction of the store (`[batch]`): all of them or none.
    ///
    /// Cancel-safe, as [`Discovery::register`] is.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where the backend does not claim batches, [`ErrorKind::TooLarge`] where there are
    /// more than it declares, and those of [`Discovery::register`]; after an error without effect nothing is stored.
    pub async fn register_all<T: Record>(&self, records: Vec<T>) -> Result<Vec<Registration<T>>> {
        let backend = &self.inner.backend;
        let refuse = |kind, text: String| {
            Err(Error::new(kind, text).with_backend(backend.name()).with_operation("register_all"))
        };
        if !backend.capabilities().batch {
            return refuse(ErrorKind::Unsupported, "this backend writes no batches: register one by one".to_owned());
        }
        let max = backend.bounds().max_batch;
        if records.len() > max {
            return refuse(ErrorKind::TooLarge, format!("{} records, and a batch holds at most {max}", records.len()));
        }
        let proposals = records.into_iter().map(propose).collect::<Result<Vec<_>>>()?;
        let inner = Arc::clone(&self.inner);
        self.inner.run_write("register_all", async move { inner.register_proposals(proposals, true).await }).await
    }

    /// Registers a record of a kind that has no Rust type. The same promises and errors as [`Discovery::register`],
    /// without the rules that a record type would bring.
    ///
    /// # Errors
    /// Those of [`Discovery::register`].
    pub async fn register_draft(&self, draft: Draft) -> Result<Registration<serde_json::Value>> {
        let encode = |value: &serde_json::Value, key: &Key| {
            serde_json::to_vec(value).map(Bytes::from).map_err(|error| {
                Error::new(ErrorKind::InvalidValue, "the value cannot be written as JSON")
                    .with_key(key)
                    .with_source(error)
            })
        };
        let proposal = Proposal {
            path: Path::new(&draft.kind, &draft.segments)?,
            suffix: draft.suffix,
            instance: None,
            value: Arc::new(draft.value),
            encode,
        };
        let inner = Arc::clone(&self.inner);
        self.inner.run_write("register", async move { inner.register_unchecked(proposal).await }).await
    }
}
