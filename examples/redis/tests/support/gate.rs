//! A gate between one owner and the store: the faults of a network, around any [`KeyStore`].

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use discovery_core::adapter::{KeyStore, Listing, Nudges, Stored, Swap, Swapped, Terms};
use discovery_core::{Error, ErrorKind, Result};
use futures_util::{StreamExt, stream};
use tokio::sync::watch;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Way {
    #[default]
    Open,
    Cut,
    /// Requests get lost without a word.
    HalfOpen,
    /// Requests wait, and go on afterwards.
    Paused,
    Denied,
    /// Swaps are done, and their answers get lost.
    AnswersLost,
    /// Swaps reach the store this much later.
    Slow(Duration),
}

/// The switch of a gate.
#[derive(Clone, Default)]
pub(crate) struct Switch {
    way: watch::Sender<Way>,
    names: Arc<Mutex<BTreeSet<String>>>,
}

impl Switch {
    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }

    /// Every name that something was stored under through this gate.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits at the gate, and answers which way it goes on.
    async fn pass(&self) -> Result<Way> {
        let mut way = self.way.subscribe();
        // The sender lives in `self`.
        let way = way.wait_for(|way| *way != Way::Paused).await.map_or(Way::Open, |way| *way);
        match way {
            Way::Cut => Err(Error::new(ErrorKind::Unavailable, "the gate is shut")),
            Way::Denied => Err(Error::new(ErrorKind::PermissionDenied, "the gate is guarded")),
            Way::HalfOpen => std::future::pending().await,
            way => Ok(way),
        }
    }
}

pub(crate) struct Gate<S> {
    pub(crate) store: S,
    pub(crate) switch: Switch,
}

#[async_trait]
impl<S: KeyStore> KeyStore for Gate<S> {
    async fn list(&self, prefix: &str) -> Result<Listing<(String, Stored)>> {
        self.switch.pass().await?;
        let listed = self.store.list(prefix).await?;
        self.switch.pass().await?;
        Ok(listed)
    }

    async fn swap(&self, swaps: &[Swap], ttl: Duration) -> Result<Vec<Swapped>> {
        let way = self.switch.pass().await?;
        if let Way::Slow(by) = way {
            tokio::time::sleep(by).await;
        }
        let put = swaps.iter().filter(|swap| swap.put.is_some()).map(|swap| swap.name.clone());
        self.switch.names.lock().unwrap_or_else(PoisonError::into_inner).extend(put);
        let swapped = self.store.swap(swaps, ttl).await?;
        if self.switch.pass().await? == Way::AnswersLost {
            return Err(Error::new(ErrorKind::Unavailable, "the answer got lost"));
        }
        Ok(swapped)
    }

    async fn nudges(&self) -> Result<Nudges> {
        self.switch.pass().await?;
        let state = (self.store.nudges().await?, self.switch.clone());
        Ok(stream::unfold(state, |(mut nudges, switch)| async {
            let mut way = switch.way.subscribe();
            let shut = way.wait_for(|way| *way == Way::Cut);
            tokio::select! {
                _ = shut => return None,
                nudge = nudges.next() => nudge?,
            }
            switch.pass().await.ok()?;
            Some(((), (nudges, switch)))
        })
        .boxed())
    }

    async fn ping(&self) -> Result<String> {
        self.switch.pass().await?;
        self.store.ping().await
    }

    fn terms(&self) -> Terms {
        self.store.terms()
    }
}
