//! Views: live, local, read-only copies of what matches a query.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::backend::{Position, Stamp};
use crate::changes::Changes;
use crate::discovery::Inner;
use crate::error::{Error, ErrorKind, Result};
use crate::freshness::Freshness;
use crate::key::{InstanceId, Key};
use crate::reader::Reader;
use crate::record::Registered;
use crate::store::tree::Tree;
use crate::store::{AnySlot, Slot, Step, Undecodable, Version};

/// How a view is opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ViewOptions {
    /// How long to wait for the view to be live. `None`: the handle's own limit.
    pub deadline: Option<Duration>,
    /// Return at once with a view that may still be syncing.
    pub lazy: bool,
    /// Fail with the first error of the backend instead of trying until the deadline.
    pub fail_fast: bool,
    /// Accept a view whose set is known but stale, instead of waiting for it to be live.
    pub allow_stale: bool,
}

impl Default for ViewOptions {
    /// Wait for a live view, through temporary failures, as long as the handle allows.
    fn default() -> Self {
        Self { deadline: None, lazy: false, fail_fast: false, allow_stale: false }
    }
}

impl ViewOptions {
    /// Wait at most this long.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Do not wait at all.
    pub fn lazy(mut self) -> Self {
        self.lazy = true;
        self
    }

    /// Do not retry.
    pub fn fail_fast(mut self) -> Self {
        self.fail_fast = true;
        self
    }

    /// Take a stale set.
    pub fn allow_stale(mut self) -> Self {
        self.allow_stale = true;
        self
    }
}

type Predicate<T> = Arc<dyn Fn(&T) -> bool + Send + Sync>;

/// What of a slot a view shows.
pub(crate) struct Filter<T> {
    instance: Option<InstanceId>,
    predicate: Option<Predicate<T>>,
}

impl<T> Filter<T> {
    pub(crate) fn new(instance: Option<InstanceId>) -> Self {
        Self { instance, predicate: None }
    }

    pub(crate) fn admits(&self, record: &Registered<T>) -> bool {
        self.instance.is_none_or(|instance| instance == record.instance())
            && self.predicate.as_ref().is_none_or(|predicate| predicate(record.value()))
    }

    fn is_open(&self) -> bool {
        self.instance.is_none() && self.predicate.is_none()
    }
}

impl<T> Clone for Filter<T> {
    fn clone(&self) -> Self {
        Self { instance: self.instance, predicate: self.predicate.clone() }
    }
}

/// A live, local, read-only copy of the records that match a query. Cloning shares it.
///
/// A view keeps its handle and its backend watch open; both are freed with the last clone, snapshot streams included.
pub struct View<T> {
    pub(crate) inner: Arc<Inner>,
    pub(crate) slot: Arc<Slot<T>>,
    pub(crate) filter: Filter<T>,
}

impl<T> Clone for View<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), slot: Arc::clone(&self.slot), filter: self.filter.clone() }
    }
}

impl<T: Send + Sync + 'static> View<T> {
    pub(crate) fn new(inner: Arc<Inner>, slot: Arc<Slot<T>>, filter: Filter<T>) -> Self {
        Self { inner, slot, filter }
    }

    /// The newest state, owned. No I/O, no lock; the cost does not depend on the number of records.
    pub fn load(&self) -> Snapshot<T> {
        Snapshot { version: self.slot.load(), filter: (!self.filter.is_open()).then(|| Box::new(self.filter.clone())) }
    }

    /// A reader of this view: for a loop that loads it for every request.
    pub fn reader(&self) -> Reader<T> {
        Reader::new(self.clone())
    }

    /// The changes from now on: the first batch is the state that the stream starts from.
    pub fn changes(&self) -> Changes<T> {
        Changes::new(self.clone(), None)
    }

    /// Like [`View::changes`], for consumers that may stop polling for long: once `limit` records have changed since
    /// the last batch, the stream lets go of the state it saw last, and its next batch [is a
    /// reset](crate::Batch::is_reset) that holds all records as added.
    pub fn changes_bounded(&self, limit: usize) -> Changes<T> {
        Changes::new(self.clone(), Some(limit))
    }

    /// The changes as the stream that `tower` balancers consume: `connect` makes a service for each record that is added
    /// or updated. An update replaces the service of its key.
    #[cfg(feature = "tower")]
    pub fn discover<S, F>(&self, connect: F) -> crate::Discover<T, F>
    where
        F: FnMut(&Registered<T>) -> S + Unpin,
    {
        crate::Discover::new(self.changes(), connect)
    }

    /// This view restricted to the records whose value `predicate` accepts. An update that leaves (enters) the view
    /// shows as removed (added). The predicate runs on the consumer's side.
    pub fn filter(&self, predicate: impl Fn(&T) -> bool + Send + Sync + 'static) -> Self {
        let predicate: Predicate<T> = match self.filter.predicate.clone() {
            Some(first) => Arc::new(move |value| first(value) && predicate(value)),
            None => Arc::new(predicate),
        };
        let filter = Filter { instance: self.filter.instance, predicate: Some(predicate) };
        Self { filter, ..self.clone() }
    }

    /// Whether what the view shows is known to be current.
    pub fn freshness(&self) -> Freshness {
        self.slot.freshness()
    }

    /// Why the view ended, once it has: shutdown, or a query that the backend cannot answer.
    pub fn ended(&self) -> Option<Error> {
        self.slot.ended().cloned()
    }

    /// The records of the query that their type cannot read.
    pub fn undecodable(&self) -> Vec<Undecodable> {
        self.slot.undecodable()
    }

    /// Waits until the view is live. Cancel-safe.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] with the backend's last error after `within`; why the view ended, where it has.
    pub async fn synced(&self, within: Duration) -> Result<()> {
        let options = ViewOptions::default().deadline(within);
        self.inner.await_live(&self.slot, &options, Instant::now()).await
    }

    /// Waits until the view shows the write that `stamp` proves, or a later one, through temporary failures. Cancel-safe.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] where it takes longer than the handle's operation time-out, or what kept the store from
    /// answering; why the view ended, where it has.
    pub async fn reached(&self, stamp: &Stamp) -> Result<()> {
        self.inner.await_reached(&self.slot, stamp.position.clone()).await
    }
}

impl<T> fmt::Debug for View<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.slot_version();
        f.debug_struct("View").field("version", &version.number).field("records", &version.records.len()).finish()
    }
}

impl<T> View<T> {
    fn slot_version(&self) -> Arc<Version<T>> {
        self.slot.load()
    }
}

/// One state of a view. Owned, immutable and cheap to clone; it may be held across awaits and threads.
pub struct Snapshot<T> {
    version: Arc<Version<T>>,
    filter: Option<Box<Filter<T>>>,
}

impl<T> Clone for Snapshot<T> {
    fn clone(&self) -> Self {
        Self { version: Arc::clone(&self.version), filter: self.filter.clone() }
    }
}

impl<T> Snapshot<T> {
    pub(crate) fn detached(records: Tree<Registered<T>>, filter: Filter<T>) -> Self {
        Self { version: Arc::new(Version::detached(records)), filter: (!filter.is_open()).then(|| Box::new(filter)) }
    }

    /// Turns to another version.
    pub(crate) fn show(&mut self, version: Arc<Version<T>>) {
        self.version = version;
    }

    fn admits(&self, record: &Registered<T>) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.admits(record))
    }

    /// Apart, so that the common case without a filter is short enough to be inlined.
    #[cold]
    fn admitted(&self) -> usize {
        self.iter().count()
    }

    #[cold]
    fn nth_admitted(&self, n: usize) -> Option<&Registered<T>> {
        self.iter().nth(n)
    }

    /// The records, ordered by key.
    pub fn iter(&self) -> impl Iterator<Item = &Registered<T>> {
        self.version.records.iter().filter(|record| self.admits(record))
    }

    /// How many records there are. With a predicate or an instance, this reads every record.
    pub fn len(&self) -> usize {
        if self.filter.is_none() { self.version.records.len() } else { self.admitted() }
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        if self.filter.is_none() { self.version.records.is_empty() } else { self.iter().next().is_none() }
    }

    /// The record of this key.
    pub fn get(&self, key: &Key) -> Option<&Registered<T>> {
        self.version.records.get(key).filter(|record| self.admits(record))
    }

    /// The n-th record in the order of keys: cheap without a predicate, for round-robin.
    pub fn nth(&self, n: usize) -> Option<&Registered<T>> {
        if self.filter.is_none() { self.version.records.nth(n) } else { self.nth_admitted(n) }
    }

    /// One of the records, chosen by any number: a counter for round-robin, a random number, a hash.
    pub fn pick(&self, number: u64) -> Option<&Registered<T>> {
        let len = self.len() as u64;
        // The remainder is below `len`, which is a usize.
        if len == 0 { None } else { self.nth((number % len) as usize) }
    }

    /// The version: grows with every change of the view.
    pub fn version(&self) -> u64 {
        self.version.number
    }

    /// Whether a first state has arrived; a snapshot of a view that is still syncing is empty.
    pub fn is_synced(&self) -> bool {
        self.version.synced
    }

    pub(crate) fn records(&self) -> &Tree<Registered<T>> {
        &self.version.records
    }

    pub(crate) fn step(&self) -> Option<&Step<Registered<T>>> {
        self.version.step.as_ref()
    }
}

impl<T: fmt::Debug> fmt::Debug for Snapshot<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("version", &self.version()).field("records", &self.len()).finish()
    }
}

impl Inner {
    /// Waits for a slot to be live, as the options say. Only what fails from `since` on counts.
    pub(crate) async fn await_live<T: Send + Sync + 'static>(
        &self,
        slot: &Arc<Slot<T>>,
        options: &ViewOptions,
        since: Instant,
    ) -> Result<()> {
        let limit = options.deadline.unwrap_or(self.settings.sync_timeout);
        let slot = Arc::clone(slot);
        let (fail_fast, allow_stale) = (options.fail_fast, options.allow_stale);
        let backend = Arc::clone(&self.backend);
        self.run("view", async move {
            let live = async {
                loop {
                    // Before the state is read, so that a change in between wakes.
                    let news = slot.news();
                    if let Some(error) = slot.ended() {
                        return Err(error.clone());
                    }
                    let feed = slot.feed();
                    let status = feed.as_ref().map(|feed| feed.status()).unwrap_or_default();
                    let synced = slot.load().synced;
                    // An error from before this call may be over, and the refusal of a wider watch is not this view's: it
                    // is about to get a watch of its own.
                    let elsewhere =
                        status.refused && feed.is_some_and(|feed| feed.scope != backend.coarsen(slot.scope()));
                    let error = status.last_error.filter(|(_, at)| *at >= since && !elsewhere).map(|(error, _)| error);
                    match (&status.freshness, error) {
                        (Freshness::Live, _) if synced => return Ok(()),
                        (Freshness::Stale { .. }, _) if synced && allow_stale => return Ok(()),
                        (Freshness::Stale { cause, .. }, _) if fail_fast => return Err(cause.clone()),
                        (Freshness::Syncing, Some(error)) if fail_fast => return Err(error),
                        // Waiting mends neither a refusal nor a setting.
                        (Freshness::Syncing, Some(error))
                            if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::InvalidConfig) =>
                        {
                            return Err(error);
                        }
                        _ => {}
                    }
                    news.await;
                }
            };
            match tokio::time::timeout(limit, live).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    let cause = slot.feed().and_then(|feed| feed.status().last_error).map(|(error, _)| error);
                    let error = Error::new(
                        ErrorKind::Timeout,
                        format!(
                            "not in sync with {} within {limit:?}: check that it can be reached, or wait longer",
                            backend.name()
                        ),
                    );
                    Err(match cause {
                        Some(cause) => error.with_source(cause),
                        None => error,
                    })
                }
            }
        })
        .await
    }

    async fn await_reached<T: Send + Sync + 'static>(
        &self,
        slot: &Arc<Slot<T>>,
        position: Option<Position>,
    ) -> Result<()> {
        let slot = Arc::clone(slot);
        let propagation = self.backend.bounds().propagation;
        let mut patience = self.patience();
        self.run_limited("reached", async move {
            loop {
                if let Some(error) = slot.ended() {
                    return Err(error.clone());
                }
                let Some(feed) = slot.feed() else {
                    return Err(Error::new(ErrorKind::Internal, "a view without a watch: please report it"));
                };
                // A watch need not hear of writes outside its scope, and a store need not say where a write stands: a
                // barrier answers for both, where the position alone does not come.
                let barrier = async {
                    if position.is_some() {
                        tokio::time::sleep(propagation).await;
                    }
                    loop {
                        match feed.catch_up().await {
                            Err(error) => patience.wait_out(error).await?,
                            Ok(()) => return Ok(()),
                        }
                    }
                };
                let reached = match &position {
                    Some(position) => tokio::select! {
                        biased;
                        reached = feed.reach(position) => reached,
                        caught_up = barrier => caught_up,
                    },
                    None => barrier.await,
                };
                match reached {
                    // The slot may have moved to a wider watch meanwhile: ask that one.
                    Ok(()) if slot.feed().is_some_and(|now| Arc::ptr_eq(&now, &feed)) => return Ok(()),
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::Closed => slot.moved_from(&feed).await?,
                    Err(error) => return Err(error),
                }
            }
        })
        .await
    }
}
