//! Reading: views and lists.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Discovery, Inner};
use crate::backend::{Backend, Entry};
use crate::error::{ErrorKind, Result};
use crate::feed::Scopes;
use crate::key::Key;
use crate::query::{Query, Scope};
use crate::record::{Record, Registered};
use crate::store::tree::Tree;
use crate::store::{Decode, decode_caught};
use crate::view::{Filter, Snapshot, View, ViewOptions};

fn raw(_: &Key, value: &Bytes) -> Result<Bytes> {
    Ok(value.clone())
}

fn typed<T: Record>(key: &Key, value: &Bytes) -> Result<T> {
    T::decode(key, value)
}

impl Discovery {
    /// A live view of the records of one type that match `query`. Live when it returns. Cancel-safe.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) with the backend's last error where it is not live in time;
    /// [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied) at once;
    /// [`ErrorKind::InvalidQuery`](crate::ErrorKind::InvalidQuery) where the query names another kind.
    pub async fn view<T: Record>(&self, query: Query) -> Result<View<T>> {
        self.view_with(query, ViewOptions::default()).await
    }

    /// A view opened with options. Cancel-safe.
    ///
    /// # Errors
    /// Those of [`Discovery::view`], as the options say.
    pub async fn view_with<T: Record>(&self, query: Query, options: ViewOptions) -> Result<View<T>> {
        self.open(query.scope(Some(T::KIND))?, &query, typed::<T>, options).await
    }

    /// A live view of undecoded records: of the query's kind, or of all kinds. Cancel-safe.
    ///
    /// # Errors
    /// Those of [`Discovery::view`].
    pub async fn entries(&self, query: Query, options: ViewOptions) -> Result<View<Bytes>> {
        self.open(query.scope(None)?, &query, raw, options).await
    }

    async fn open<T: Send + Sync + 'static>(
        &self,
        scope: Scope,
        query: &Query,
        decode: Decode<T>,
        options: ViewOptions,
    ) -> Result<View<T>> {
        let since = Instant::now();
        let inner = Arc::clone(&self.inner);
        let scopes = Arc::clone(&inner.scopes);
        let slot = inner.run_limited("view", async move { scopes.slot(&scope, decode).await }).await?;
        let view = View::new(inner, slot, Filter::new(query.only_instance()));
        if !options.lazy {
            view.inner.await_live(&view.slot, &options, since).await?;
        }
        Ok(view)
    }

    /// The records of one type that match `query`: one linearizable snapshot that holds every registration that was
    /// acknowledged before the call. Where a view of the same records is open, the store is asked for a barrier only.
    /// Records that do not decode are skipped and counted. Temporary failures are tried again until the operation
    /// time-out. Cancel-safe.
    ///
    /// # Errors
    /// What keeps the store from answering in the operation time-out. Never an empty set instead of an error.
    pub async fn list<T: Record>(&self, query: Query) -> Result<Snapshot<T>> {
        self.inner.list(query.scope(Some(T::KIND))?, &query, typed::<T>).await
    }

    /// The undecoded records of the query's kind, or of all kinds. Cancel-safe.
    ///
    /// # Errors
    /// Those of [`Discovery::list`].
    pub async fn list_entries(&self, query: Query) -> Result<Snapshot<Bytes>> {
        self.inner.list(query.scope(None)?, &query, raw).await
    }

    /// The record of one key, as [`Discovery::list`] would show it. Cancel-safe.
    ///
    /// # Errors
    /// Those of [`Discovery::list`]; [`ErrorKind::InvalidQuery`] where the key is of another kind.
    pub async fn get<T: Record>(&self, key: &Key) -> Result<Option<Registered<T>>> {
        let mut query = Query::kind(key.kind());
        for segment in key.path().segments() {
            query = query.segment(segment);
        }
        Ok(self.list::<T>(query).await?.get(key).cloned())
    }
}

impl Inner {
    pub(crate) async fn list<T: Send + Sync + 'static>(
        &self,
        scope: Scope,
        query: &Query,
        decode: Decode<T>,
    ) -> Result<Snapshot<T>> {
        let filter = Filter::new(query.only_instance());
        let inner = (Arc::clone(&self.scopes), Arc::clone(&self.backend));
        let mut patience = self.patience();
        self.run_limited("list", async move {
            let (scopes, backend) = inner;
            loop {
                match list_once(&scopes, &*backend, &scope, decode).await {
                    Ok(records) => return Ok(Snapshot::detached(records, filter)),
                    Err(error) => patience.wait_out(error).await?,
                }
            }
        })
        .await
    }
}

async fn list_once<T: Send + Sync + 'static>(
    scopes: &Arc<Scopes>,
    backend: &dyn Backend,
    scope: &Scope,
    decode: Decode<T>,
) -> Result<Tree<Registered<T>>> {
    let wanted = backend.coarsen(scope);
    let mut answered = None;
    let records = loop {
        if scopes.ready(&wanted).await.is_none() {
            let (entries, _) = backend.list(&wanted).await?;
            break decode_all(scope, entries, decode).await;
        }
        let slot = scopes.slot(scope, decode).await?;
        let Some(feed) = slot.feed() else { continue };
        match feed.catch_up().await {
            Err(error) if error.kind() == ErrorKind::Closed => slot.moved_from(&feed).await?,
            outcome => outcome?,
        }
        let version = slot.load();
        // The slot may have moved meanwhile, to a feed that has not caught up.
        if version.synced && slot.feed().is_some_and(|now| Arc::ptr_eq(&now, &feed)) {
            answered = Some(feed);
            break version.records.clone();
        }
    };
    scopes.catch_up(&wanted, answered).await?;
    Ok(records)
}

async fn decode_all<T>(scope: &Scope, mut entries: Vec<Entry>, decode: Decode<T>) -> Tree<Registered<T>> {
    entries.retain(|entry| scope.contains(&entry.key));
    entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    entries.dedup_by(|later, earlier| later.key == earlier.key);
    let mut records = Vec::with_capacity(entries.len());
    for (count, entry) in entries.into_iter().enumerate() {
        if count % 512 == 511 {
            tokio::task::yield_now().await;
        }
        match decode_caught(decode, &entry) {
            Ok(value) => records.push(Registered::new(Arc::new(entry), value)),
            Err(error) => crate::telemetry::undecodable(&entry.key, &error),
        }
    }
    Tree::from_sorted(records)
}
