//! One handle of a cluster, and the way of every call through its link.

use std::sync::Arc;
use std::time::Duration;

use discovery_core::{Error, ErrorKind, InstanceId, Result};
use tokio::sync::watch;

use crate::cluster::{Cluster, Operation, Weather};
use crate::link::{Condition, Link, Passage};
use crate::members::Serving;
use crate::state::OwnerId;

/// What a handle's sessions and streams share.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) cluster: Cluster,
    pub(crate) owner: OwnerId,
    pub(crate) default_ttl: Duration,
    pub(crate) link: Link,
}

/// How often a stream's connection had broken when it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Breaks {
    link: u64,
    weather: u64,
    /// Where it goes, where there was anybody to go to.
    serving: Option<Serving>,
}

impl Handle {
    pub(crate) fn breaks(&self) -> Breaks {
        let weather = self.cluster.weather();
        Breaks { link: self.link.condition().breaks, weather: weather.breaks, serving: self.serving() }
    }

    /// The member that calls go to now.
    pub(crate) fn serving(&self) -> Option<Serving> {
        self.cluster.weather().members.serving(self.owner.0)
    }

    fn is_whole(&self, breaks: Breaks) -> bool {
        let (link, weather) = (self.link.condition(), self.cluster.weather());
        let serving = breaks.serving.is_some_and(|serving| weather.members.still(serving));
        serving && (link.breaks, weather.breaks) == (breaks.link, breaks.weather)
    }

    /// Whether a call gets through now.
    pub(crate) fn passage(&self) -> Passage {
        match self.link.condition().passage() {
            Passage::Open if self.cluster.weather().down => {
                Passage::Fail(Error::new(ErrorKind::Unavailable, "the cluster is down: restore it"))
            }
            Passage::Open if self.serving().is_none() => {
                Passage::Fail(Error::new(ErrorKind::Unavailable, "most members of the cluster are lost: restore them"))
            }
            passage => passage,
        }
    }

    /// Whether a stream that was opened at `breaks` still goes on.
    pub(crate) fn stream_passage(&self, breaks: Breaks) -> Passage {
        match self.passage() {
            Passage::Open if !self.is_whole(breaks) => {
                Passage::Fail(Error::new(ErrorKind::Unavailable, "the connection broke: open the stream again"))
            }
            passage => passage,
        }
    }

    /// Takes a call to the cluster: counts it, delays it, fails it or leaves it hanging, as the link says.
    pub(crate) async fn enter(&self, operation: Operation) -> Result<()> {
        self.cluster.count(operation);
        let mut link = self.link.subscribe();
        let mut delayed = false;
        loop {
            let delay = link.borrow_and_update().delay;
            match self.passage() {
                Passage::Hang => changed(&mut link).await,
                Passage::Fail(error) => return Err(self.name(error, operation)),
                Passage::Open if delayed || delay.is_zero() => return Ok(()),
                Passage::Open => {
                    tokio::time::sleep(delay).await;
                    delayed = true;
                }
            }
        }
    }

    /// Waits until the cluster could tell this handle something.
    pub(crate) async fn in_touch(&self) {
        let mut link = self.link.subscribe();
        let mut weather = self.cluster.subscribe_weather();
        loop {
            link.mark_unchanged();
            weather.mark_unchanged();
            if let Passage::Open = self.passage() {
                return;
            }
            tokio::select! {
                biased;
                () = changed(&mut link) => {}
                () = weather_changed(&mut weather) => {}
            }
        }
    }

    pub(crate) fn name(&self, error: Error, operation: Operation) -> Error {
        error.with_backend(crate::NAME).with_operation(operation.as_str())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.cluster.state().drop_owner(self.owner);
    }
}

/// The next change. The sender lives as long as the handle, which the caller holds.
pub(crate) async fn changed(link: &mut watch::Receiver<Condition>) {
    if link.changed().await.is_err() {
        std::future::pending().await
    }
}

pub(crate) async fn weather_changed(weather: &mut watch::Receiver<Weather>) {
    if weather.changed().await.is_err() {
        std::future::pending().await
    }
}

/// A random positive number of 63 bits, as stores that count in signed numbers give them out.
pub(crate) fn random_instance() -> InstanceId {
    InstanceId(fastrand::u64(1..=i64::MAX as u64))
}

pub(crate) type Shared = Arc<Handle>;
