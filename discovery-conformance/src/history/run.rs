//! One run: who takes part, its rounds, and its judgement.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use discovery_core::backend::{Backend, Change};
use discovery_core::{Bounds, ChangeToken, Discovery, Error, ExecutorKind, Key, Query};
use futures_util::StreamExt;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::checkpoint::Scene;
use super::evidence::{Evidence, Setting};
use super::faults::Sky;
use super::log::{Log, Recorder};
use super::owner::{LENSES, Lane, Work};
use super::validators::VALIDATORS;
use super::watcher::Watcher;
use super::{Config, Summary};
use crate::probe::{Call, Probe};
use crate::witness::{Witness, longest};
use crate::world::{Clock, Factory};

/// How many lanes an owner has.
const LANES: usize = 2;

/// How often each of a round's storms strikes.
const STRIKES: usize = 4;

/// In how many times the bound of recovery lanes by a real clock do their operations: about as long as storms pause.
const LULLS: f64 = 1.2;

/// Does one run and judges it. Blocks until it is over, on a runtime of its own: with the clock paused, where the
/// factory says so.
///
/// # Errors
/// What keeps the world, its owners or the runtime from being made. Violations are no errors: they are in the summary.
pub fn run(factory: &dyn Factory, config: &Config) -> Result<Summary, String> {
    // What the core and the backends draw on this thread follows from the seed too.
    fastrand::seed(config.seed);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(factory.clock() == Clock::Paused);
    let runtime = builder.build().map_err(|error| format!("no runtime: {error}"))?;
    let witness = if factory.clock() == Clock::Real { Witness::start() } else { None };
    let played = runtime.block_on(play(factory, config));
    runtime.shutdown_background();
    let stalls = witness.map(Witness::end).unwrap_or_default();
    let mut played = played.map_err(|error| format!("{error} [{}]", error.kind()))?;
    let since = |at: std::time::Instant| at.saturating_duration_since(played.began);
    let pauses = stalls.iter().map(|stall| (since(stall.from), since(stall.from + stall.lasted)));
    played.setting.stalls = pauses.collect();
    let summary = judge(&played.log, &played.setting, config.seed, played.operations);
    Ok(Summary { stall: longest(&stalls), ..summary })
}

/// Those who take part.
struct Cast<'a> {
    config: &'a Config,
    clock: Clock,
    sky: Arc<Sky>,
    probes: BTreeMap<usize, Arc<Probe>>,
    handles: BTreeMap<usize, Discovery>,
    bounds: Bounds,
    ttl: Option<Duration>,
    random: fastrand::Rng,
    next: usize,
}

/// A run that is over, and is to be judged.
struct Played {
    log: Log,
    began: std::time::Instant,
    setting: Setting,
    operations: usize,
}

async fn play(factory: &dyn Factory, config: &Config) -> Result<Played, Error> {
    // For these alone: what a world needs for others, such as a small disk, may be in the way of a long run.
    let hooks = Sky::hooks(&factory.hooks(), config.faults.as_deref());
    let world = factory.world_for(&hooks).await?;
    let recorder = Arc::new(Recorder::new());
    let first = world.owner(0).await?;
    let wrapped = config.wrap.as_ref().map_or_else(|| Arc::clone(&first), |wrap| wrap(0, Arc::clone(&first)));
    let (capabilities, bounds) = (wrapped.capabilities(), wrapped.bounds());
    let ttl = capabilities.ttl.then(|| bounds.min_ttl.unwrap_or_default().max(Duration::from_secs(2)));
    let observer = config.owners + config.watchers;
    let sky = Arc::new(Sky {
        world,
        recorder: Arc::clone(&recorder),
        hooks,
        recovery: bounds.recovery,
        ttl: ttl.unwrap_or(bounds.recovery * 2),
        unnoticed: (factory.clock() == Clock::Real).then(|| bounds.recovery * factory.patience().max(1)),
        foreign: Arc::default(),
        owners: Mutex::default(),
        watchers: (config.owners..observer).collect(),
        member_lost: false.into(),
    });
    let mut cast = Cast {
        config,
        clock: factory.clock(),
        sky,
        probes: BTreeMap::new(),
        handles: BTreeMap::new(),
        bounds,
        ttl,
        random: fastrand::Rng::with_seed(config.seed),
        next: observer + 1,
    };
    cast.build(0, first).await?;
    for n in 1..=observer {
        let backend = cast.sky.world.owner(n).await?;
        cast.build(n, backend).await?;
    }
    let operations = cast.rounds(observer, factory.patience().max(1)).await?;

    for (handle, probe) in &cast.probes {
        let times = probe.times(Call::Watch).into_iter().map(|at| at.saturating_duration_since(recorder.start()));
        recorder.log().watches.insert(*handle, times.collect());
    }
    let goodbye = cast.handles.values().map(|handle| handle.shutdown(Duration::from_secs(1)));
    futures_util::future::join_all(goodbye).await;
    cast.sky.world.close().await;
    let log = std::mem::take(&mut *recorder.log());
    let setting = Setting {
        capabilities,
        bounds,
        ttl: cast.sky.ttl,
        networked: factory.clock() == Clock::Real,
        patience: factory.patience().max(1),
        owners: config.owners,
        observer,
        wrapped: config.wrap.is_some(),
        stalls: Vec::new(),
    };
    Ok(Played { log, began: recorder.start().into_std(), setting, operations })
}

fn judge(log: &Log, setting: &Setting, seed: u64, operations: usize) -> Summary {
    let evidence = Evidence::new(log, setting);
    let mut violations = Vec::new();
    for (statement, validate) in VALIDATORS {
        violations.extend(validate(&evidence).into_iter().map(|text| super::Violation { statement, text }));
    }
    let (mut faults, mut failed) = (BTreeMap::new(), BTreeMap::new());
    for harm in &log.harms {
        let counts = if harm.struck.is_some() { &mut faults } else { &mut failed };
        *counts.entry(harm.hook).or_default() += 1;
    }
    Summary {
        seed,
        operations,
        faults,
        failed,
        observations: log.told.len() + log.loads.len() + log.listings.len(),
        views: log.views.len(),
        violations,
        digest: log.digest(),
        stall: Duration::ZERO,
    }
}

impl Cast<'_> {
    async fn build(&mut self, n: usize, backend: Arc<dyn Backend>) -> Result<Discovery, Error> {
        let probe = Probe::new(backend);
        self.probes.insert(n, Arc::clone(&probe));
        let backend: Arc<dyn Backend> = match &self.config.wrap {
            Some(wrap) => wrap(n, probe),
            None => probe,
        };
        let executor = match self.clock {
            Clock::Paused => ExecutorKind::Current,
            Clock::Real => ExecutorKind::Dedicated,
        };
        let limit = self.bounds.recovery * 3;
        let builder = Discovery::builder().with_backend(backend).executor(executor);
        let builder = builder.operation_timeout(limit).sync_timeout(limit);
        let builder = match self.ttl {
            Some(ttl) => builder.ttl(ttl),
            None => builder,
        };
        let discovery = builder.build().await?;
        self.handles.insert(n, discovery.clone());
        Ok(discovery)
    }

    /// The lanes of one owner.
    async fn lanes_of(&mut self, owner: usize) -> Result<Vec<Lane>, Error> {
        let discovery = self.handles[&owner].clone();
        let instance = discovery.instance_id().await?;
        let mut lanes = Vec::new();
        for lane in 0..LANES {
            let recorder = Arc::clone(&self.sky.recorder);
            lanes.push(Lane::new(owner, lane, discovery.clone(), instance, self.random.fork(), recorder, None));
        }
        Ok(lanes)
    }

    async fn rounds(&mut self, observer: usize, patience: u32) -> Result<usize, Error> {
        let recorder = Arc::clone(&self.sky.recorder);
        let mut lanes = Vec::new();
        for owner in 0..self.config.owners {
            lanes.extend(self.lanes_of(owner).await?);
            self.owners().push((owner, Arc::default()));
        }
        if let Some(first) = lanes.first_mut() {
            first.settle_quietly().await;
        }
        let mut watchers = Vec::new();
        for handle in self.config.owners..observer {
            let discovery = self.handles[&handle].clone();
            let (random, limit) = (self.random.fork(), self.bounds.recovery * 3);
            let foreign = Arc::clone(&self.sky.foreign);
            let recorder = Arc::clone(&recorder);
            let mut watcher = Watcher::new(handle, discovery, random, recorder, limit, self.config.spoil, foreign);
            // What nobody has written to yet, and what nobody will change. The first one sees all of it by one watch.
            let first: &[usize] = if handle == self.config.owners { &[0, 4, 5] } else { &[4, 5] };
            for lens in first {
                watcher.open(LENSES[*lens].clone()).await;
            }
            watchers.push(watcher);
        }
        lanes.extend(self.mixed_lane(&watchers).await?);
        let tail = Tail::start(self.handles[&observer].clone());
        for round in 0..self.config.rounds {
            let dead = self.round(&mut lanes, &mut watchers).await?;
            let handles = self.handles.keys().copied().filter(|n| !dead.contains(n)).collect();
            let (mut gone, mut alive): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
            for lane in lanes {
                if dead.contains(&lane.owner) { gone.push(lane) } else { alive.push(lane) }
            }
            lanes = alive;
            // Whoever was killed holds nothing any more, and is followed by another process.
            gone.into_iter().for_each(Lane::die);
            for owner in &dead {
                self.handles.remove(owner);
            }
            let limit = self.bounds.recovery * patience
                + if dead.is_empty() { Duration::ZERO } else { self.sky.ttl + self.bounds.slack * patience };
            let scene = Scene {
                sky: &self.sky,
                lanes: &lanes,
                watchers: &watchers,
                observer: (observer, &self.handles[&observer]),
                tail: &tail,
                handles,
                limit,
            };
            if !scene.settle().await {
                tracing::warn!(round, "the round did not settle: the run ends here");
                break;
            }
            for _ in dead {
                let n = self.next;
                self.next += 1;
                let backend = self.sky.world.owner(n).await?;
                self.build(n, backend).await?;
                lanes.extend(self.lanes_of(n).await?);
                self.owners().push((n, Arc::default()));
            }
        }
        Ok(lanes.iter().map(|lane| lane.operations).sum::<usize>() + recorder.log().listings.len())
    }

    /// A lane of a handle that watches too, which reads its own writes.
    async fn mixed_lane(&mut self, watchers: &[Watcher]) -> Result<Option<Lane>, Error> {
        let Some(watcher) = watchers.first() else { return Ok(None) };
        let instance = watcher.discovery.instance_id().await?;
        let all = watcher.views.first().map(|open| (open.number, open.view.clone()));
        let (random, recorder) = (self.random.fork(), Arc::clone(&self.sky.recorder));
        Ok(Some(Lane::new(watcher.handle, LANES, watcher.discovery.clone(), instance, random, recorder, all)))
    }

    fn owners(&self) -> std::sync::MutexGuard<'_, Vec<(usize, Arc<AtomicBool>)>> {
        self.sky.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets everybody act at once. Answers which owners died.
    async fn round(&mut self, lanes: &mut Vec<Lane>, watchers: &mut Vec<Watcher>) -> Result<Vec<usize>, Error> {
        let each = self.config.operations / lanes.len().max(1) + 1;
        let calm = Arc::new(AtomicBool::new(false));
        let work = match self.clock {
            Clock::Paused => Work::of(each),
            Clock::Real => Work::through(each, self.bounds.recovery.mul_f64(LULLS), &calm),
        };
        let dead: BTreeMap<usize, Arc<AtomicBool>> = self.owners().iter().cloned().collect();
        let at_work: Vec<_> = lanes
            .drain(..)
            .map(|lane| {
                let dead = dead.get(&lane.owner).cloned().unwrap_or_default();
                tokio::spawn(lane.run(work.clone(), dead))
            })
            .collect();
        let over = Arc::new(AtomicBool::new(false));
        let reading: Vec<_> = watchers.drain(..).map(|watcher| tokio::spawn(watcher.run(Arc::clone(&over)))).collect();
        let storms: Vec<_> =
            (0..2).map(|_| tokio::spawn(Arc::clone(&self.sky).storm(self.random.fork(), STRIKES))).collect();
        joined(storms).await?;
        calm.store(true, Ordering::Release);
        *lanes = joined(at_work).await?;
        over.store(true, Ordering::Release);
        *watchers = joined(reading).await?;
        let mut owners = self.owners();
        let died = |dead: &Arc<AtomicBool>| dead.load(Ordering::Acquire);
        let gone = owners.iter().filter(|(_, dead)| died(dead)).map(|(owner, _)| *owner).collect();
        owners.retain(|(_, dead)| !died(dead));
        Ok(gone)
    }
}

async fn joined<T>(tasks: Vec<JoinHandle<T>>) -> Result<Vec<T>, Error> {
    let mut all = Vec::with_capacity(tasks.len());
    for task in tasks {
        let failed =
            |error| Error::new(discovery_core::ErrorKind::Internal, "a client of the run panicked").with_source(error);
        all.push(task.await.map_err(failed)?);
    }
    Ok(all)
}

type Entries = BTreeMap<Key, Bytes>;

/// Somebody who follows the change log and folds it.
pub(super) struct Tail {
    fold: Arc<Mutex<Entries>>,
    claimed: bool,
    task: JoinHandle<()>,
}

impl Drop for Tail {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Tail {
    fn start(discovery: Discovery) -> Self {
        let fold = Arc::new(Mutex::new(Entries::new()));
        let claimed = discovery.capabilities().changelog;
        let task = tokio::spawn(follow(discovery, Arc::clone(&fold)));
        Self { fold, claimed, task }
    }

    /// What the log folds to; `None` where the backend claims none.
    pub(super) fn fold(&self) -> Option<Entries> {
        self.claimed.then(|| self.fold.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

async fn follow(discovery: Discovery, fold: Arc<Mutex<Entries>>) {
    let mut token: Option<ChangeToken> = None;
    while discovery.capabilities().changelog {
        if token.is_none() {
            token = begin(&discovery, &fold).await;
        }
        if let Some(from) = &token {
            match discovery.changes_since(Query::kind("item"), from).await {
                Ok(mut changes) => {
                    while let Some(item) = changes.next().await {
                        match item {
                            Ok(committed) => {
                                apply(&fold, committed.changes);
                                token = Some(committed.token);
                            }
                            Err(error) if error.kind() == discovery_core::ErrorKind::Expired => {
                                token = None;
                                break;
                            }
                            Err(_) => break,
                        }
                    }
                }
                Err(error) if error.kind() == discovery_core::ErrorKind::Expired => token = None,
                Err(_) => {}
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// A token, and then the state to start from: what lies between is applied twice, which changes nothing.
async fn begin(discovery: &Discovery, fold: &Mutex<Entries>) -> Option<ChangeToken> {
    let token = discovery.change_token().await.ok()?;
    let entries = discovery.list_entries(Query::kind("item")).await.ok()?;
    let entries = entries.iter().map(|entry| (entry.key().clone(), entry.stored().clone())).collect();
    *fold.lock().unwrap_or_else(PoisonError::into_inner) = entries;
    Some(token)
}

fn apply(fold: &Mutex<Entries>, changes: Vec<Change>) {
    let mut fold = fold.lock().unwrap_or_else(PoisonError::into_inner);
    for change in changes {
        match change {
            Change::Put(entry) => fold.insert(entry.key, entry.value),
            Change::Delete(key) => fold.remove(&key),
        };
    }
}
