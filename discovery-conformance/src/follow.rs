//! A stream that is followed: its fold, and the rules that every stream keeps.

use std::time::Duration;

use discovery_core::{Batch, Changes, Freshness, Key, View, ViewChange};
use tokio::time::{Instant, timeout_at};

use crate::case::{CaseResult, End, ensure, fail};
use crate::item::Item;
use crate::trial::{Set, difference};

/// One change that a stream told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Added(Key, u64),
    Updated(Key, u64, u64),
    Removed(Key, u64),
}

impl Told {
    pub(crate) fn key(&self) -> &Key {
        match self {
            Self::Added(key, _) | Self::Updated(key, ..) | Self::Removed(key, _) => key,
        }
    }
}

/// Sets up to this size are compared with what `load()` shows, after each batch.
const COMPARED: usize = 1_000;

/// A stream, the set that its batches fold to, and all that it told.
pub(crate) struct Follow {
    changes: Changes<Item>,
    pub(crate) fold: Set,
    pub(crate) told: Vec<Told>,
    pub(crate) freshness: Freshness,
    version: u64,
}

impl Follow {
    /// Follows a view; its first state must come within `limit`.
    pub(crate) async fn start(view: &View<Item>, limit: Duration) -> CaseResult<Self> {
        Self::of(view.changes(), limit).await
    }

    pub(crate) async fn of(changes: Changes<Item>, limit: Duration) -> CaseResult<Self> {
        let (fold, told) = (Set::new(), Vec::new());
        let mut follow = Self { changes, fold, told, freshness: Freshness::Syncing, version: 0 };
        match follow.next(limit).await? {
            Some(batch) if batch.is_synced() => {
                follow.told.clear();
                Ok(follow)
            }
            Some(_) => Err(fail!("the first batch does not say that it is synced")),
            None => Err(fail!("no first batch within {limit:?}")),
        }
    }

    pub(crate) fn view(&self) -> &View<Item> {
        self.changes.view()
    }

    /// The next batch, already folded, or `None` after `limit`.
    pub(crate) async fn next(&mut self, limit: Duration) -> CaseResult<Option<Batch<Item>>> {
        self.next_until(Instant::now() + limit).await
    }

    async fn next_until(&mut self, until: Instant) -> CaseResult<Option<Batch<Item>>> {
        match timeout_at(until, self.changes.next()).await {
            Err(_) => Ok(None),
            Ok(None) => {
                let cause = self.view().ended().map_or_else(|| "no cause".to_owned(), |error| error.to_string());
                Err(fail!("the stream ended: {cause}"))
            }
            Ok(Some(batch)) => {
                self.fold(&batch)?;
                Ok(Some(batch))
            }
        }
    }

    /// The stream's own end, as `None`.
    pub(crate) async fn ends(&mut self, limit: Duration) -> CaseResult {
        let until = Instant::now() + limit;
        loop {
            match timeout_at(until, self.changes.next()).await {
                Err(_) => return Err(fail!("the stream did not end within {limit:?}")),
                Ok(None) => return Ok(()),
                Ok(Some(batch)) => self.fold(&batch)?,
            }
        }
    }

    fn fold(&mut self, batch: &Batch<Item>) -> CaseResult {
        if batch.is_reset() {
            self.fold.clear();
        }
        ensure!(batch.version() >= self.version, "version {} came after {}", batch.version(), self.version);
        self.version = batch.version();
        self.freshness = batch.freshness().clone();
        for change in batch.changes() {
            let key = change.key().clone();
            match change {
                ViewChange::Added(new) => {
                    let before = self.fold.insert(key.clone(), new.n);
                    ensure!(before.is_none(), "{key} was added twice without a Removed between");
                    self.told.push(Told::Added(key, new.n));
                }
                ViewChange::Updated { old, new } => {
                    let before = self.fold.insert(key.clone(), new.n);
                    ensure!(before.is_some(), "{key} was updated before it was added");
                    ensure!(before == Some(old.n), "{key} was updated from {} and had been {before:?}", old.n);
                    self.told.push(Told::Updated(key, old.n, new.n));
                }
                ViewChange::Removed(old) => {
                    let before = self.fold.remove(&key);
                    ensure!(before.is_some(), "{key} was removed before it was added");
                    self.told.push(Told::Removed(key, old.n));
                }
            }
        }
        let snapshot = self.changes.view().load();
        let loaded = snapshot.version();
        ensure!(loaded >= self.version, "load() is at {loaded} after a batch that leads to {}", self.version);
        if loaded == self.version && snapshot.len() <= COMPARED {
            let shown: Set = snapshot.iter().map(|item| (item.key().clone(), item.n)).collect();
            let difference = || difference(&self.fold, &shown);
            ensure!(shown == self.fold, "the batch leads to version {loaded}, and its fold does not: {}", difference());
        }
        Ok(())
    }

    /// The version that the last batch leads to.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Follows until `right` says yes to the fold.
    pub(crate) async fn until(
        &mut self,
        limit: Duration,
        what: &str,
        mut right: impl FnMut(&Set) -> bool,
    ) -> CaseResult {
        let until = Instant::now() + limit;
        while !right(&self.fold) {
            if self.next_until(until).await?.is_none() {
                return Err(fail!("{what}: not within {limit:?}; the stream folds to {} records", self.fold.len()));
            }
        }
        Ok(())
    }

    /// Follows until the fold is `expected`.
    pub(crate) async fn folds_to(&mut self, limit: Duration, expected: &Set) -> CaseResult {
        let outcome = self.until(limit, "the fold is right", |fold| fold == expected).await;
        outcome.map_err(|end| match end {
            End::Failed(text) if self.fold != *expected => fail!("{text}: {}", difference(&self.fold, expected)),
            other => other,
        })
    }

    /// Follows until the freshness is what `right` says yes to.
    pub(crate) async fn freshness(
        &mut self,
        limit: Duration,
        what: &str,
        right: impl Fn(&Freshness) -> bool,
    ) -> CaseResult {
        let until = Instant::now() + limit;
        while !right(&self.freshness) {
            if self.next_until(until).await?.is_none() {
                return Err(fail!("{what}: not within {limit:?}; the stream says {}", self.freshness.as_str()));
            }
        }
        Ok(())
    }

    /// Follows for a time, whatever comes, and then the fold must be `expected`: for what may go and come back.
    pub(crate) async fn settles_to(&mut self, time: Duration, expected: &Set) -> CaseResult {
        self.read_for(time).await?;
        ensure!(self.fold == *expected, "after {time:?}: {}", difference(&self.fold, expected));
        Ok(())
    }

    /// Follows for a time, whatever comes.
    pub(crate) async fn read_for(&mut self, time: Duration) -> CaseResult {
        let until = Instant::now() + time;
        while self.next_until(until).await?.is_some() {}
        Ok(())
    }

    /// Follows for a time in which nothing may change.
    pub(crate) async fn quiet(&mut self, time: Duration) -> CaseResult {
        let (until, told) = (Instant::now() + time, self.told.len());
        while self.next_until(until).await?.is_some() {
            let news = &self.told[told..];
            ensure!(news.is_empty(), "nothing was to change, and the stream told {news:?}");
        }
        Ok(())
    }

    /// What was told of one key.
    pub(crate) fn told_of(&self, key: &Key) -> Vec<Told> {
        self.told.iter().filter(|told| told.key() == key).cloned().collect()
    }
}
