//! What a case works with: a world, handles on it, and waiting that ends.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use discovery_core::backend::Backend;
use discovery_core::{
    Bounds, Builder, Capabilities, Discovery, ErrorKind, ExecutorKind, Key, Query, Registration, View,
};
use tokio::time::{Instant, sleep, timeout};

use crate::case::{CaseResult, End, fail};
use crate::follow::Follow;
use crate::item::Item;
use crate::probe::Probe;
use crate::world::{Clock, Factory, Fault, Hook, World};

/// The set of a view or a list: every key with its number.
pub(crate) type Set = BTreeMap<Key, u64>;

/// One run of one case.
pub struct Trial {
    world: Box<dyn World>,
    clock: Clock,
    patience: u32,
    capabilities: Capabilities,
    bounds: Bounds,
    probes: Mutex<BTreeMap<usize, Arc<Probe>>>,
    handles: Mutex<Vec<Discovery>>,
    injected: Mutex<BTreeSet<Hook>>,
}

impl Trial {
    /// A trial in a new world, where these faults may be done, and a bound is waited for `patience` times.
    ///
    /// # Errors
    /// [`End::Failed`] where the world or its first owner cannot be made.
    pub(crate) async fn new(factory: &dyn Factory, clock: Clock, faults: &[Hook], patience: u32) -> CaseResult<Self> {
        let world = factory.world_for(faults).await?;
        let first = world.owner(0).await?;
        let trial = Self {
            world,
            clock,
            patience: patience.max(1),
            capabilities: first.capabilities(),
            bounds: first.bounds(),
            probes: Mutex::default(),
            handles: Mutex::default(),
            injected: Mutex::default(),
        };
        lock(&trial.probes).insert(0, Probe::new(first));
        Ok(trial)
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    pub(crate) fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    pub(crate) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// `P`, as often as the factory's patience says, and once more for each side's scheduling.
    pub(crate) fn propagation(&self) -> Duration {
        self.bounds.propagation * self.patience
    }

    /// `R` with the same patience.
    pub(crate) fn recovery(&self) -> Duration {
        self.bounds.recovery * self.patience
    }

    /// The time to live that cases ask for: short, and not below the backend's minimum.
    pub(crate) fn ttl(&self) -> Duration {
        self.bounds.min_ttl.unwrap_or_default().max(Duration::from_secs(2))
    }

    /// After an owner's last sign of life, its records are gone by then.
    pub(crate) fn death(&self) -> Duration {
        self.ttl() + self.bounds.slack * self.patience + self.propagation()
    }

    /// Twice `R`, in which the core has done whatever it does by itself.
    pub(crate) fn calm(&self) -> Duration {
        self.bounds.recovery * 2
    }

    /// Longer than a session lives that nobody renews, and its records after it.
    pub(crate) fn past_ttl(&self) -> Duration {
        self.ttl() + self.bounds.slack + self.bounds.propagation * 2
    }

    /// How long nothing must happen for a case to believe that nothing does.
    pub(crate) fn a_while(&self) -> Duration {
        (self.bounds.propagation * 3).max(Duration::from_millis(50))
    }

    /// The handle of the n-th owner on the store, without the core.
    pub(crate) async fn backend(&self, n: usize) -> CaseResult<Arc<Probe>> {
        if let Some(probe) = lock(&self.probes).get(&n) {
            return Ok(Arc::clone(probe));
        }
        let probe = Probe::new(self.world.owner(n).await?);
        lock(&self.probes).insert(n, Arc::clone(&probe));
        Ok(probe)
    }

    /// A builder for the n-th owner.
    pub(crate) async fn builder(&self, n: usize) -> CaseResult<Builder> {
        let backend: Arc<dyn Backend> = self.backend(n).await?;
        let executor = match self.clock {
            Clock::Paused => ExecutorKind::Current,
            Clock::Real => ExecutorKind::Dedicated,
        };
        let builder = Discovery::builder().with_backend(backend).executor(executor);
        let builder = builder.operation_timeout(self.recovery().max(Duration::from_secs(5)));
        let builder = builder.sync_timeout(self.recovery().max(Duration::from_secs(5)));
        Ok(if self.capabilities.ttl { builder.ttl(self.ttl()) } else { builder })
    }

    /// The handle of the n-th owner, through the core. It is shut down when the case is over.
    pub(crate) async fn owner(&self, n: usize) -> CaseResult<Discovery> {
        let builder = self.builder(n).await?;
        self.build(builder).await
    }

    /// A handle that is shut down when the case is over.
    pub(crate) async fn build(&self, builder: Builder) -> CaseResult<Discovery> {
        let discovery = builder.build().await?;
        lock(&self.handles).push(discovery.clone());
        Ok(discovery)
    }

    /// Does a fault.
    pub(crate) async fn inject(&self, fault: Fault) -> CaseResult {
        let hook = fault.hook();
        match self.world.inject(fault).await {
            Ok(()) => {
                lock(&self.injected).insert(hook);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                Err(End::Skipped(format!("no hook for {hook}: {error}")))
            }
            Err(error) => Err(fail!("the fault {hook} could not be done: {error}")),
        }
    }

    /// How many tasks run for the world elsewhere than on the case's runtime.
    pub(crate) fn tasks(&self) -> usize {
        self.world.tasks()
    }

    /// The kinds of faults that were done.
    pub(crate) fn injected(&self) -> BTreeSet<Hook> {
        lock(&self.injected).clone()
    }

    /// Awaits `work` for at most `limit`.
    pub(crate) async fn within<T>(&self, limit: Duration, what: &str, work: impl Future<Output = T>) -> CaseResult<T> {
        timeout(limit, work).await.map_err(|_| fail!("{what}: not within {limit:?}"))
    }

    /// Waits until `check` answers something, and fails with what it said last after `limit`.
    pub(crate) async fn eventually<T>(
        &self,
        limit: Duration,
        what: &str,
        mut check: impl AsyncFnMut() -> Result<T, String>,
    ) -> CaseResult<T> {
        let until = Instant::now() + limit;
        let pause = (self.bounds.propagation / 4).clamp(Duration::from_millis(1), Duration::from_millis(100));
        loop {
            let last = match timeout(limit, check()).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(last)) => last,
                Err(_) => "no answer".to_owned(),
            };
            if Instant::now() >= until {
                return Err(fail!("{what}: not within {limit:?}: {last}"));
            }
            sleep(pause).await;
        }
    }

    /// What a list of everything shows.
    pub(crate) async fn listed(&self, discovery: &Discovery) -> CaseResult<Set> {
        Ok(discovery.list::<Item>(Query::all()).await?.iter().map(|item| (item.key().clone(), item.n)).collect())
    }

    /// Waits until a list shows exactly `expected`.
    pub(crate) async fn lists(&self, discovery: &Discovery, limit: Duration, expected: &Set) -> CaseResult {
        self.eventually(limit, "the list is right", async || match self.listed(discovery).await {
            Ok(listed) if listed == *expected => Ok(()),
            Ok(listed) => Err(difference(&listed, expected)),
            Err(error) => Err(error.to_string()),
        })
        .await
    }

    /// A live view of everything.
    pub(crate) async fn view(&self, discovery: &Discovery) -> CaseResult<View<Item>> {
        Ok(discovery.view::<Item>(Query::all()).await?)
    }

    /// A followed stream of everything, its first state read.
    pub(crate) async fn follow(&self, discovery: &Discovery) -> CaseResult<Follow> {
        Follow::start(&self.view(discovery).await?, self.propagation()).await
    }

    /// Ends every handle and the world.
    pub(crate) async fn finish(&self) {
        let handles = std::mem::take(&mut *lock(&self.handles));
        let goodbye = handles.iter().map(|handle| handle.shutdown(Duration::from_secs(2)));
        futures_util::future::join_all(goodbye).await;
        self.world.close().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The set that a view shows now.
pub(crate) fn shown(view: &View<Item>) -> Set {
    view.load().iter().map(|item| (item.key().clone(), item.n)).collect()
}

/// The set that some registrations stand for.
pub(crate) fn registered<'a>(registrations: impl IntoIterator<Item = &'a Registration<Item>>) -> Set {
    registrations.into_iter().map(|one| (one.key().clone(), one.value().n)).collect()
}

/// What tells two sets apart, for a failure's message.
pub(crate) fn difference(found: &Set, expected: &Set) -> String {
    let some = |items: Vec<String>| {
        let more = items.len().saturating_sub(5);
        let shown = items.into_iter().take(5).collect::<Vec<_>>().join(", ");
        if more > 0 { format!("{shown} and {more} more") } else { shown }
    };
    let missing = expected.keys().filter(|key| !found.contains_key(key)).map(ToString::to_string).collect::<Vec<_>>();
    let extra = found.keys().filter(|key| !expected.contains_key(key)).map(ToString::to_string).collect::<Vec<_>>();
    let other = expected.iter().filter_map(|(key, n)| match found.get(key) {
        Some(found) if found != n => Some(format!("{key} is {found} and not {n}")),
        _ => None,
    });
    let other = other.collect::<Vec<_>>();
    let mut parts = vec![format!("{} records for {}", found.len(), expected.len())];
    for (what, items) in [("missing", missing), ("too many", extra), ("other value", other)] {
        if !items.is_empty() {
            parts.push(format!("{what}: {}", some(items)));
        }
    }
    parts.join("; ")
}
