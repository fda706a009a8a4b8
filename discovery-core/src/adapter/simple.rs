//! A backend of a store of keys, whole.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::document;
use super::keys::{KeyStore, Terms};
use super::name::{name_of, parse_name};
use super::polling::{Lister, Listing, Nudges, Polling};
use super::session::KeySessions;
use crate::backend::{
    Backend, ChangeLog, Entry, Health, Position, Registrar, Session, SessionRequest, WatchStream, Watcher,
};
use crate::capability::{Bounds, Capabilities};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::query::Scope;

/// How long a fault may last in this backend after it ended in the store.
const RECOVERY: Duration = Duration::from_secs(5);

/// A backend made of a [`KeyStore`]: [`Polling`] over what it lists, [`KeySessions`] over what it swaps.
///
/// Claims `[ttl]`, `[exclusive]` and `[incarnation]`. The bounds follow from the store's [`Terms`].
#[derive(Debug)]
pub struct Simple<S> {
    name: &'static str,
    terms: Terms,
    watches: Polling<Records<S>>,
    sessions: KeySessions<S>,
}

/// The records among a store's documents.
#[derive(Debug)]
struct Records<S> {
    store: Arc<S>,
    interval: Duration,
}

impl<S: KeyStore> Simple<S> {
    /// A new handle on `store`, under the name that `DYN_DISCOVERY_BACKEND` picks it by.
    pub fn new(name: &'static str, store: S) -> Self {
        let (terms, store) = (store.terms(), Arc::new(store));
        let watches = Polling::new(Records { store: Arc::clone(&store), interval: terms.interval });
        Self { name, terms, watches, sessions: KeySessions::new(store) }
    }

    fn store(&self) -> &S {
        &self.watches.lister().store
    }
}

#[async_trait]
impl<S: KeyStore> Lister for Records<S> {
    async fn list(&self, scope: &Scope) -> Result<Listing<Entry>> {
        let Listing { items, lineage } = self.store.list(scope.as_str()).await?;
        let mut entries = Vec::with_capacity(items.len());
        for (name, stored) in items {
            let Ok(key) = parse_name(&name) else {
                tracing::debug!(name, "skipped what is no record of this crate's");
                continue;
            };
            if let Some(live) = document::read(&stored.document).live {
                entries.push(Entry { key, value: live.value, incarnation: live.incarnation });
            }
        }
        Ok(Listing { items: entries, lineage })
    }

    async fn nudges(&self) -> Result<Nudges> {
        self.store.nudges().await
    }

    fn interval(&self) -> Duration {
        self.interval
    }
}

#[async_trait]
impl<S: KeyStore> Watcher for Simple<S> {
    async fn watch(&self, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
        self.watches.watch(scope, after).await
    }

    async fn list(&self, scope: &Scope) -> Result<(Vec<Entry>, Position)> {
        self.watches.list(scope).await
    }

    fn coarsen(&self, scope: &Scope) -> Scope {
        self.watches.coarsen(scope)
    }

    async fn barrier(&self, scope: &Scope) -> Result<Option<Position>> {
        self.watches.barrier(scope).await
    }

    fn reached(&self, at: &Position, target: &Position) -> bool {
        self.watches.reached(at, target)
    }
}

#[async_trait]
impl<S: KeyStore> Registrar for Simple<S> {
    async fn open(&self, request: &SessionRequest) -> Result<Box<dyn Session>> {
        self.sessions.open(request).await
    }
}

#[async_trait]
impl<S: KeyStore> Backend for Simple<S> {
    fn name(&self) -> &str {
        self.name
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { ttl: true, exclusive: true, incarnation: true, ..Capabilities::none() }
    }

    fn bounds(&self) -> Bounds {
        let Terms { interval, default_ttl, min_ttl, lateness, max_value, .. } = self.terms;
        // A list is late by as much as an interval, and takes time itself.
        let propagation = interval * 2;
        Bounds {
            propagation,
            min_ttl: Some(min_ttl),
            default_ttl: Some(default_ttl),
            slack: lateness + propagation,
            recovery: RECOVERY.max(interval * 8),
            silence: Some((interval * 4).max(Duration::from_secs(2))),
            max_batch: 1,
            max_watches: 8,
            max_value,
        }
    }

    fn admit(&self, key: &Key, value: usize) -> Result<()> {
        let refuse = |kind, what: &str, is: usize, most: usize| {
            let text = format!("{what} of {is} bytes is above this store's {most}: make it shorter");
            Err(Error::new(kind, text).with_backend(self.name).with_key(key))
        };
        let Terms { max_name, max_value, .. } = self.terms;
        let name = name_of(key).len();
        if name > max_name {
            return refuse(ErrorKind::InvalidKey, "a key", name, max_name);
        }
        if value > max_value {
            return refuse(ErrorKind::TooLarge, "a value", value, max_value);
        }
        Ok(())
    }

    async fn health(&self) -> Result<Health> {
        let start = Instant::now();
        let detail = self.store().ping().await?;
        Ok(Health::new(start.elapsed(), detail))
    }

    fn change_log(&self) -> Option<&dyn ChangeLog> {
        None
    }

    async fn close(&self) -> Result<()> {
        self.store().close().await
    }
}
