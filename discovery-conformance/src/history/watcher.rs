//! What a watcher does: opens and closes views, reads their streams fast or slowly, loads and lists.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use discovery_core::{Batch, Changes, Discovery, Query, View, ViewChange, ViewOptions};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::Spoil;
use super::log::{Id, Lens, Opened, Recorder, Tell, Told};
use super::owner::{LENSES, list, load};
use crate::item::Item;

/// How many views a watcher has open at once at most.
const MOST_VIEWS: usize = 5;

/// What a stream's batches fold to, for the checkpoint.
pub(super) type Fold = Arc<Mutex<BTreeMap<Id, u64>>>;

/// A view that is open, and the task that reads its stream.
pub(super) struct Watched {
    pub(super) number: usize,
    pub(super) lens: Lens,
    pub(super) view: View<Item>,
    pub(super) fold: Fold,
    reader: JoinHandle<()>,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// One handle that reads.
pub(super) struct Watcher {
    pub(super) handle: usize,
    pub(super) discovery: Discovery,
    pub(super) views: Vec<Watched>,
    random: fastrand::Rng,
    recorder: Arc<Recorder>,
    limit: Duration,
    spoil: Option<Spoil>,
    /// The bytes of foreign records, by their numbers.
    foreign: Arc<Mutex<BTreeMap<u64, serde_json::Value>>>,
}

impl Watcher {
    pub(super) fn new(
        handle: usize,
        discovery: Discovery,
        random: fastrand::Rng,
        recorder: Arc<Recorder>,
        limit: Duration,
        spoil: Option<Spoil>,
        foreign: Arc<Mutex<BTreeMap<u64, serde_json::Value>>>,
    ) -> Self {
        Self { handle, discovery, views: Vec::new(), random, recorder, limit, spoil, foreign }
    }

    /// Works until all others are done.
    pub(super) async fn run(mut self, over: Arc<AtomicBool>) -> Self {
        while !over.load(Ordering::Acquire) {
            sleep(Duration::from_millis(self.random.u64(5..60))).await;
            match self.random.u32(0..100) {
                0..15 => {
                    let lens = LENSES[self.random.usize(0..LENSES.len())].clone();
                    self.open(lens).await;
                }
                15..22 if self.views.len() > 1 => {
                    let index = self.random.usize(0..self.views.len());
                    let view = self.views.swap_remove(index).number;
                    let mut log = self.recorder.log();
                    let at = self.recorder.tick_in(&mut log);
                    log.views[view].closed = Some(at);
                }
                22..40 => {
                    let lens = &LENSES[self.random.usize(0..LENSES.len())];
                    list(&self.recorder, self.handle, &self.discovery, lens).await;
                    self.load_all();
                }
                40..46 => self.raw_list().await,
                _ => self.load_all(),
            }
        }
        self
    }

    pub(super) async fn open(&mut self, lens: Lens) {
        if self.views.len() >= MOST_VIEWS {
            return;
        }
        let lazy = self.random.u32(0..4) == 0;
        let joined = self.views.iter().any(|open| open.lens.segments == lens.segments);
        let limit = self.limit.mul_f64(0.2 + self.random.f64());
        let options = ViewOptions::default().deadline(limit);
        let options = if lazy { options.lazy() } else { options };
        let call = self.recorder.tick();
        let result = self.discovery.view_with::<Item>(lens.query(), options).await;
        let number = {
            let mut log = self.recorder.log();
            let answered = self.recorder.tick_in(&mut log);
            let (handle, failed) = (self.handle, result.as_ref().err().map(discovery_core::Error::kind));
            let lens = lens.clone();
            let closed = failed.map(|_| answered);
            log.views.push(Opened { handle, lens, call, answered, closed, limit, failed, lazy, joined });
            log.views.len() - 1
        };
        let Ok(view) = result else { return };
        let view = if lens.even { view.filter(|item: &Item| item.n.is_multiple_of(2)) } else { view };
        let changes = match self.random.u32(0..4) {
            0 => view.changes_bounded(self.random.usize(1..20)),
            _ => view.changes(),
        };
        let slow = (self.random.u32(0..4) == 0).then(|| self.random.fork());
        let fold = Fold::default();
        let reader = Reader {
            number,
            changes,
            slow,
            fold: Arc::clone(&fold),
            recorder: Arc::clone(&self.recorder),
            spoil: self.spoil,
            batches: 0,
        };
        let reader = tokio::spawn(reader.run());
        self.views.push(Watched { number, lens, view, fold, reader });
    }

    pub(super) fn load_all(&self) {
        for open in &self.views {
            load(&self.recorder, open.number, &open.view, None);
        }
    }

    /// What others wrote is shown as they wrote it.
    async fn raw_list(&self) {
        let Ok(entries) = self.discovery.list_entries(Query::kind("item")).await else { return };
        let at = self.recorder.tick();
        let foreign = self.foreign.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in entries.iter() {
            let Ok(value) = serde_json::from_slice::<serde_json::Value>(entry.stored()) else { continue };
            let written = value.get("n").and_then(serde_json::Value::as_u64).and_then(|n| foreign.get(&n));
            if written.is_some_and(|written| *written != value) {
                self.recorder.log().rewritten.push((at, format!("{} is shown as {value}", entry.key())));
            }
        }
    }
}

/// Reads one stream.
struct Reader {
    number: usize,
    changes: Changes<Item>,
    slow: Option<fastrand::Rng>,
    fold: Fold,
    recorder: Arc<Recorder>,
    spoil: Option<Spoil>,
    batches: usize,
}

impl Reader {
    async fn run(mut self) {
        loop {
            if let Some(random) = &mut self.slow {
                sleep(Duration::from_millis(random.u64(0..400))).await;
            }
            match self.changes.next().await {
                Some(batch) => self.record(&batch),
                None => {
                    let mut log = self.recorder.log();
                    let at = self.recorder.tick_in(&mut log);
                    log.ended.push((self.number, at));
                    return;
                }
            }
        }
    }

    fn record(&mut self, batch: &Batch<Item>) {
        let loaded = self.changes.view().load().version();
        let mut log = self.recorder.log();
        let mut tells = Vec::with_capacity(batch.changes().len());
        let mut fold = self.fold.lock().unwrap_or_else(PoisonError::into_inner);
        if batch.is_reset() {
            fold.clear();
        }
        for change in batch.changes() {
            let key = log.id(change.key());
            match change {
                ViewChange::Added(new) => {
                    fold.insert(key, new.n);
                    tells.push(Tell::Added(key, new.n));
                }
                ViewChange::Updated { old, new } => {
                    fold.insert(key, new.n);
                    tells.push(Tell::Updated(key, old.n, new.n));
                }
                ViewChange::Removed(old) => {
                    fold.remove(&key);
                    tells.push(Tell::Removed(key, old.n));
                }
            }
        }
        let mut told = Told {
            view: self.number,
            at: self.recorder.tick_in(&mut log),
            version: batch.version(),
            loaded,
            fresh: batch.freshness().into(),
            synced: batch.is_synced(),
            reset: batch.is_reset(),
            tells,
        };
        self.batches += 1;
        if let Some(spoil) = self.spoil.filter(|_| self.batches % 7 == 2) {
            spoilt(spoil, &mut told, &fold);
        }
        log.told.push(told);
    }
}

/// What an observer makes of a batch who gets something wrong.
fn spoilt(spoil: Spoil, told: &mut Told, fold: &BTreeMap<Id, u64>) {
    match spoil {
        Spoil::FirstAgain => told.tells.extend(fold.iter().map(|(key, n)| Tell::Added(*key, *n))),
        Spoil::AddedTwice => {
            if let Some(Tell::Updated(key, _, n)) = told.tells.first().copied() {
                told.tells[0] = Tell::Added(key, n);
            } else if let Some((key, n)) = fold.first_key_value() {
                told.tells.push(Tell::Added(*key, *n));
            }
        }
        Spoil::VersionBack => told.version /= 2,
        Spoil::LoadBehind => told.loaded = told.version.saturating_sub(1),
    }
}
