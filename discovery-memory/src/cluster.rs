//! The store that handles share, and what can be seen of it from outside.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use discovery_core::backend::Entry;
use discovery_core::{Key, Scope};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::backend::MemoryBackend;
use crate::bounds::{DEFAULT_TTL, MIN_TTL};
use crate::members::Members;
use crate::state::{OwnerId, State};

static NAMED: LazyLock<DashMap<String, Weak<Inner>>> = LazyLock::new(DashMap::new);

/// A whole store inside the process, shared by any number of handles. Cloning copies a pointer.
///
/// It keeps time by tokio's monotonic clock, so tests may pause it. It runs no task: what is due happens before the
/// next access, and every open watch sleeps until the next instant at which something is due.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    name: Option<String>,
    readiness: bool,
    state: Mutex<State>,
    weather: watch::Sender<Weather>,
    calls: [AtomicU64; Operation::ALL.len()],
}

/// What all links of a cluster have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) down: bool,
    pub(crate) breaks: u64,
    pub(crate) members: Members,
}

/// A call of a handle, for [`Counters::calls`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Opening a session.
    Open,
    /// Renewing one.
    Renew,
    /// Writing.
    Publish,
    /// Comparing what is stored with what an owner wants.
    Verify,
    /// Closing a session.
    Close,
    /// Opening a watch.
    Watch,
    /// Listing a scope.
    List,
    /// Asking for a barrier.
    Barrier,
    /// Asking the change log for a token or for its changes.
    ChangeLog,
    /// A health check.
    Health,
}

impl Operation {
    const ALL: [Self; 10] = [
        Self::Open,
        Self::Renew,
        Self::Publish,
        Self::Verify,
        Self::Close,
        Self::Watch,
        Self::List,
        Self::Barrier,
        Self::ChangeLog,
        Self::Health,
    ];

    /// The name used in errors.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Renew => "renew",
            Self::Publish => "publish",
            Self::Verify => "verify",
            Self::Close => "close",
            Self::Watch => "watch",
            Self::List => "list",
            Self::Barrier => "barrier",
            Self::ChangeLog => "changes_since",
            Self::Health => "health",
        }
    }
}

/// What a cluster has been asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Watches that are open.
    pub open_watches: usize,
    /// Watches that were ever opened.
    pub watches_opened: u64,
    /// Streams of the change log that are open.
    pub open_change_logs: usize,
    /// Calls by operation, those that failed included. An operation that was never called is left out.
    pub calls: BTreeMap<Operation, u64>,
}

impl Counters {
    /// How often one operation was called.
    pub fn calls_of(&self, operation: Operation) -> u64 {
        self.calls.get(&operation).copied().unwrap_or_default()
    }
}

/// How a cluster is built: see [`Cluster::builder`].
#[derive(Clone, Copy, Debug)]
pub struct ClusterBuilder {
    history: usize,
    readiness: bool,
    members: usize,
}

impl ClusterBuilder {
    /// How many revisions of history are kept: 10,000 where nothing is said, 1 at least.
    pub fn history(mut self, revisions: usize) -> Self {
        self.history = revisions.max(1);
        self
    }

    /// Records are visible only while their owner is ready: see [`Cluster::set_ready`]. Claims `[readiness]`.
    pub fn readiness(mut self) -> Self {
        self.readiness = true;
        self
    }

    /// How many members it has, from 1, where nothing is said, to 7. More than one claims `[cluster]`: see
    /// [`Cluster::lose_member`].
    pub fn members(mut self, members: usize) -> Self {
        self.members = members;
        self
    }

    /// An empty cluster without a name.
    pub fn build(self) -> Cluster {
        self.build_as(None)
    }

    fn build_as(self, name: Option<String>) -> Cluster {
        Cluster {
            inner: Arc::new(Inner {
                name,
                readiness: self.readiness,
                state: Mutex::new(State::new(self.history, self.readiness)),
                weather: watch::Sender::new(Weather { down: false, breaks: 0, members: Members::new(self.members) }),
                calls: Default::default(),
            }),
        }
    }
}

impl Cluster {
    /// An empty cluster without a name, apart from all others.
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// An empty cluster in which records are visible only while their owner is ready: see [`Cluster::set_ready`].
    pub fn with_readiness() -> Self {
        Self::builder().readiness().build()
    }

    /// Settings for a cluster without a name.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder { history: 10_000, readiness: false, members: 1 }
    }

    /// The cluster of this name in this process, empty where there was none. It lives, with all that it stores, for as
    /// long as something holds it: this object, a handle, a session or a stream.
    pub fn named(name: &str) -> Self {
        let make = || Self::builder().build_as(Some(name.to_owned()));
        match NAMED.entry(name.to_owned()) {
            Slot::Occupied(mut slot) => match slot.get().upgrade() {
                Some(inner) => Self { inner },
                None => {
                    let cluster = make();
                    slot.insert(Arc::downgrade(&cluster.inner));
                    cluster
                }
            },
            Slot::Vacant(slot) => {
                let cluster = make();
                slot.insert(Arc::downgrade(&cluster.inner));
                cluster
            }
        }
    }

    /// The name, where it has one.
    pub fn name(&self) -> Option<&str> {
        self.inner.name.as_deref()
    }

    /// A new handle: one process, as the cluster sees it, with a link of its own.
    pub fn connect(&self) -> MemoryBackend {
        self.connect_with_ttl(DEFAULT_TTL)
    }

    /// A new handle whose sessions live for `ttl` where they ask for nothing else. Raised to 100 ms where it is below.
    pub fn connect_with_ttl(&self, ttl: Duration) -> MemoryBackend {
        let owner = OwnerId(self.state().new_id());
        MemoryBackend::new(self.clone(), owner, ttl.max(MIN_TTL))
    }

    /// The newest revision. It grows by one with each transaction and each loss of data, and never shrinks.
    pub fn revision(&self) -> u64 {
        self.state().revision
    }

    /// Every stored record, visible or not, by key.
    pub fn records(&self) -> Vec<Entry> {
        self.state().records.within(&Scope::all()).map(|(key, record)| record.entry(key)).collect()
    }

    /// How many records are stored.
    pub fn record_count(&self) -> usize {
        self.state().records.len()
    }

    /// Which handle holds a key; `None` where it is absent or foreign.
    pub fn owner_of(&self, key: &Key) -> Option<OwnerId> {
        Some(self.state().records.get(key)?.lease?.owner)
    }

    /// How many sessions are alive, superseded ones that have not expired yet included.
    pub fn session_count(&self) -> usize {
        self.state().session_count()
    }

    /// What the cluster has been asked for so far.
    pub fn counters(&self) -> Counters {
        let state = self.state();
        let calls = Operation::ALL.iter().map(|operation| (*operation, self.calls(*operation).load(Ordering::Relaxed)));
        Counters {
            open_watches: state.watchers.open_watches,
            watches_opened: state.watchers.watches_opened,
            open_change_logs: state.watchers.open_logs,
            calls: calls.filter(|(_, count)| *count > 0).collect(),
        }
    }

    /// Waits until `condition` holds. It is asked now, and again after every change of what is stored, of sessions and
    /// of open watches, and when a call begins. Cancel-safe.
    pub async fn wait_until(&self, mut condition: impl FnMut(&Cluster) -> bool) {
        let mut activity = self.state().activity();
        loop {
            activity.mark_unchanged();
            if condition(self) {
                return;
            }
            let due = self.state().next_due();
            tokio::select! {
                biased;
                // The sender lives in the state, which `self` holds.
                _ = activity.changed() => {}
                () = sleep_until(due) => {}
            }
        }
    }

    pub(crate) fn claims_readiness(&self) -> bool {
        self.inner.readiness
    }

    /// The state as of now: what is due has happened.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.inner.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.advance(Instant::now());
        state
    }

    pub(crate) fn weather(&self) -> Weather {
        *self.inner.weather.borrow()
    }

    pub(crate) fn subscribe_weather(&self) -> watch::Receiver<Weather> {
        self.inner.weather.subscribe()
    }

    pub(crate) fn change_weather(&self, change: impl FnOnce(&mut Weather)) {
        self.inner.weather.send_modify(change);
    }

    fn calls(&self, operation: Operation) -> &AtomicU64 {
        &self.inner.calls[operation as usize]
    }

    pub(crate) fn count(&self, operation: Operation) {
        self.calls(operation).fetch_add(1, Ordering::Relaxed);
        self.state().noticed();
    }
}

/// `after` from `now`, or so late that nobody waits for it.
pub(crate) fn later(now: Instant, after: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);
    now + after.min(FAR)
}

/// Sleeps until `at`, for ever without one.
pub(crate) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("name", &self.inner.name).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            // Another one may have taken the name since.
            NAMED.remove_if(name, |_, cluster| cluster.strong_count() == 0);
        }
    }
}
