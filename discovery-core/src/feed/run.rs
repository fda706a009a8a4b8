//! The task of a feed: opens the watch, applies what it says, opens it again when it fails.

use std::any::TypeId;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::slots::SlotIndex;
use super::{Command, Feed, FeedSettings, Released};
use crate::backend::{Change, Entry, Lineage, Position, WatchEvent, WatchStream};
use crate::backoff::Backoff;
use crate::error::{Error, ErrorKind, Result};
use crate::freshness::Freshness;
use crate::store::{AnySlot, Effective, LastGood, RawStore, Source};
use crate::telemetry::FeedMeter;

/// Why the task stops.
enum Stop {
    /// Nobody needs the feed any more, or the handle is shut down.
    Cancelled,
    /// A wider feed takes its slots over.
    Released(oneshot::Sender<Released>),
}

/// What a stream is left waiting for.
enum Next {
    Event(Option<Result<WatchEvent>>),
    /// Somebody asked for a new snapshot.
    Reopen,
    Silence,
}

/// Why a stream is left.
enum Leave {
    Failed(Error),
    /// For a new snapshot, though nothing is wrong.
    Reopen,
}

/// Slots of a narrower feed that wait until this one is as far as they are.
struct Adoption {
    slots: Vec<(TypeId, Weak<dyn AnySlot>)>,
    position: Option<Position>,
    reply: oneshot::Sender<()>,
}

pub(super) struct Task {
    feed: Arc<Feed>,
    inbox: mpsc::Receiver<Command>,
    settings: FeedSettings,
    raw: RawStore,
    slots: SlotIndex,
    adoptions: Vec<Adoption>,
    last_good: LastGood,
    /// The number of the newest version.
    number: u64,
    published: Arc<AtomicU64>,
    position: Option<Position>,
    /// The newest opening of the watch, the one whose snapshot is complete, and the one that somebody waits for.
    opening: u64,
    snapshot_of: u64,
    wanted_opening: u64,
    meter: FeedMeter,
}

impl Task {
    pub(super) fn new(feed: Arc<Feed>, inbox: mpsc::Receiver<Command>, settings: FeedSettings) -> Self {
        let meter = FeedMeter::new(feed.backend.name(), &feed.scope);
        Self {
            feed,
            inbox,
            settings,
            raw: RawStore::default(),
            slots: SlotIndex::default(),
            adoptions: Vec::new(),
            last_good: Mutex::default(),
            number: 0,
            published: Arc::default(),
            position: None,
            opening: 0,
            snapshot_of: 0,
            wanted_opening: 0,
            meter,
        }
    }

    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let span = tracing::info_span!("discovery_feed", backend = self.feed.backend.name(), scope = %self.feed.scope);
        let stop = tokio::select! {
            biased;
            () = cancel.cancelled() => Stop::Cancelled,
            stop = self.follow().instrument(span) => stop,
        };
        match stop {
            Stop::Released(reply) => {
                self.inbox.close();
                // Whoever asked may be gone at shutdown; the slots end with it.
                let _ = reply.send(self.released());
            }
            Stop::Cancelled => {
                let closed = Error::new(ErrorKind::Closed, "this discovery handle was shut down: build a new one");
                self.end_slots(&closed);
            }
        }
    }

    /// Every slot, those that wait to be adopted included, and a position that none of them is beyond.
    fn released(&self) -> Released {
        let further = |a: Position, b: &Position| if self.feed.backend.reached(&a, b) { a } else { b.clone() };
        let waiting = self.adoptions.iter().filter_map(|adoption| adoption.position.as_ref());
        let position = waiting.fold(self.position.clone(), |furthest, position| match furthest {
            Some(furthest) => Some(further(furthest, position)),
            None => Some(position.clone()),
        });
        Released { slots: self.every_slot(), position }
    }

    fn every_slot(&self) -> Vec<(TypeId, Arc<dyn AnySlot>)> {
        let waiting = self.adoptions.iter().flat_map(|adoption| &adoption.slots);
        let waiting = waiting.filter_map(|(type_id, slot)| Some((*type_id, slot.upgrade()?)));
        self.slots.all().into_iter().chain(waiting).collect()
    }

    fn end_slots(&self, cause: &Error) {
        for (_, slot) in self.every_slot() {
            slot.end(cause.clone());
        }
    }

    /// Opens the watch again and again until something stops the feed.
    async fn follow(&mut self) -> Stop {
        let cap = (self.feed.backend.bounds().recovery / 2).max(Duration::from_millis(100));
        let mut backoff = Backoff::new(cap);
        loop {
            match self.serve(&mut backoff).await {
                Err(stop) => return stop,
                Ok(Leave::Reopen) => {}
                Ok(Leave::Failed(error)) => {
                    let error = error.with_backend(self.feed.backend.name()).with_operation("watch");
                    self.failed(&error);
                    if matches!(error.kind(), ErrorKind::InvalidQuery | ErrorKind::Unsupported) {
                        self.end_slots(&error);
                        return self.refuse(&error).await;
                    }
                    self.meter.reconnects.increment(1);
                    if let Err(stop) = self.alongside(sleep(backoff.next())).await {
                        return stop;
                    }
                }
            }
        }
    }

    /// One life of the watch.
    async fn serve(&mut self, backoff: &mut Backoff) -> Result<Leave, Stop> {
        // A snapshot that somebody waits for must not be spared by resuming.
        let resume = (self.wanted_opening <= self.snapshot_of).then(|| self.position.clone()).flatten();
        self.opening += 1;
        self.feed.openings.store(self.opening, Ordering::Release);
        let feed = Arc::clone(&self.feed);
        let limit = self.settings.open_timeout;
        let opened = self.alongside(timeout(limit, feed.backend.watch(&feed.scope, resume.as_ref()))).await?;
        let mut stream = match opened {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return Ok(Leave::Failed(error)),
            Err(_) => return Ok(Leave::Failed(silent(limit, "opening the watch got no answer"))),
        };
        self.listen(&mut stream, backoff).await
    }

    async fn listen(&mut self, stream: &mut WatchStream, backoff: &mut Backoff) -> Result<Leave, Stop> {
        let silence = self.feed.backend.bounds().silence;
        let feed = Arc::clone(&self.feed);
        let opened = Instant::now();
        let mut resumed = false;
        let mut staging: Option<(Lineage, Vec<Entry>)> = None;
        let mut started = false;
        loop {
            let limit = if started && staging.is_none() { silence } else { Some(self.settings.open_timeout) };
            let next = async {
                let silence = async {
                    match limit {
                        Some(limit) => sleep(limit).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    event = stream.next() => Next::Event(event),
                    () = feed.reopen.notified() => Next::Reopen,
                    () = silence => Next::Silence,
                }
            };
            let event = match self.alongside(next).await? {
                Next::Event(Some(Ok(event))) => Some(event),
                Next::Event(Some(Err(error))) => return Ok(self.fail(error, opened, backoff)),
                Next::Event(None) => {
                    let error = Error::new(ErrorKind::Unavailable, "the store ended the watch");
                    return Ok(self.fail(error, opened, backoff));
                }
                Next::Silence => return Ok(Leave::Failed(silent(limit.unwrap_or_default(), "the watch went silent"))),
                Next::Reopen => None,
            };
            // A snapshot that is wanted is under way, unless this opening resumed or came before the wish.
            let Some(event) = event else {
                if self.wanted_opening > self.opening || (resumed && self.wanted_opening > self.snapshot_of) {
                    return Ok(Leave::Reopen);
                }
                continue;
            };
            match event {
                WatchEvent::SnapshotStart { lineage } => staging = Some((lineage, Vec::new())),
                WatchEvent::SnapshotChunk(mut chunk) => match &mut staging {
                    Some((_, entries)) if entries.is_empty() => *entries = chunk,
                    Some((_, entries)) => entries.append(&mut chunk),
                    None => return Ok(Leave::Failed(broken("a snapshot's part without its start"))),
                },
                WatchEvent::SnapshotEnd(position) => {
                    let Some((lineage, entries)) = staging.take() else {
                        return Ok(Leave::Failed(broken("a snapshot's end without its start")));
                    };
                    self.resync(entries, lineage).await;
                    self.settled(position).await;
                    started = true;
                }
                WatchEvent::Resumed => {
                    started = true;
                    resumed = true;
                    self.live();
                    // Somebody may have asked for a snapshot since the watch was opened.
                    feed.reopen.notify_one();
                }
                WatchEvent::Batch { changes, position } => {
                    self.apply(changes);
                    self.settled(position).await;
                    backoff.reset();
                }
                WatchEvent::Progress(position) => {
                    self.settled(position).await;
                    backoff.reset();
                }
                WatchEvent::Interrupted(error) => self.failed(&error),
                WatchEvent::Recovered => self.live(),
            }
        }
    }

    /// A stream that ended: what it delivered is proof of progress only if it went on for a while. A store that answers
    /// each opening with a snapshot and an error is asked less and less often.
    fn fail(&self, error: Error, opened: Instant, backoff: &mut Backoff) -> Leave {
        if opened.elapsed() > self.feed.backend.bounds().recovery {
            backoff.reset();
        }
        Leave::Failed(error)
    }

    /// Awaits `work` while commands are answered and timers kept. `work` is never dropped half-way but at a stop.
    async fn alongside<F: Future>(&mut self, work: F) -> Result<F::Output, Stop> {
        tokio::pin!(work);
        let feed = Arc::clone(&self.feed);
        loop {
            let ghost = self.raw.next_ghost();
            let give_up = async {
                match ghost {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(command) = self.inbox.recv() => self.obey(command).await?,
                output = &mut work => return Ok(output),
                () = feed.slot_dropped.notified() => self.slots.prune(),
                () = give_up => {
                    let gone = self.raw.drop_ghosts(Instant::now());
                    self.publish(&gone);
                }
            }
        }
    }

    async fn obey(&mut self, command: Command) -> Result<(), Stop> {
        match command {
            Command::Attach { type_id, slot, owner, reply } => {
                let known = self.slots.find(type_id, slot.scope().as_str());
                let slot = match known {
                    Some(known) => known,
                    None => {
                        slot.attach(owner);
                        self.slots.insert(type_id, &slot);
                        if self.position.is_some() {
                            self.rebase([&slot]).await;
                        }
                        slot
                    }
                };
                // The caller may have given up; the slot then goes with the reply.
                let _ = reply.send(slot.into_any());
            }
            Command::Reopen { opening } => {
                self.wanted_opening = self.wanted_opening.max(opening);
                self.feed.reopen.notify_one();
            }
            Command::Release { reply } => return Err(Stop::Released(reply)),
            Command::Adopt { released, owner, reply } => {
                for (_, slot) in &released.slots {
                    slot.attach(Arc::clone(&owner));
                }
                drop(owner);
                let slots = released.slots.iter().map(|(type_id, slot)| (*type_id, Arc::downgrade(slot))).collect();
                self.adoptions.push(Adoption { slots, position: released.position, reply });
                self.adopt().await;
            }
        }
        Ok(())
    }

    /// A view may ask only for what the store can watch: answers those that come later, until the feed is dropped.
    async fn refuse(&mut self, error: &Error) -> Stop {
        while let Some(command) = self.inbox.recv().await {
            match self.obey(command).await {
                Ok(()) => self.end_slots(error),
                Err(stop) => return stop,
            }
        }
        Stop::Cancelled
    }

    /// After a sign of life from the store.
    async fn settled(&mut self, position: Position) {
        self.position = Some(position);
        self.feed.progress.send_modify(|progress| progress.position.clone_from(&self.position));
        if !self.adoptions.is_empty() {
            self.adopt().await;
        }
        self.live();
    }

    fn apply(&mut self, changes: Vec<Change>) {
        let arrived = std::time::Instant::now();
        let effective = self.raw.apply(changes);
        self.publish(&effective);
        self.meter.change_to_view.record(arrived.elapsed().as_secs_f64());
    }

    /// Shows changes in every slot that they touch, in all of them at once.
    fn publish(&mut self, changes: &[Effective]) {
        if changes.is_empty() {
            return;
        }
        let touched = self.slots.touched(changes);
        self.number += 1;
        let source = Source { number: self.number, published: &self.published, last_good: &self.last_good };
        for (slot, changes) in &touched {
            slot.stage(changes, &source);
        }
        self.published.store(self.number, Ordering::Release);
        for (slot, _) in &touched {
            slot.commit();
        }
        self.meter.records.set(self.raw.len() as f64);
    }

    async fn resync(&mut self, entries: Vec<Entry>, lineage: Lineage) {
        if lineage == Lineage::Reset {
            tracing::warn!(records = entries.len(), "the store lost data: resynchronised with what it holds now");
        }
        self.raw.replace(entries, lineage, self.settings.resync_grace);
        let slots = self.slots.all();
        self.rebase(slots.iter().map(|(_, slot)| slot)).await;
        self.snapshot_of = self.opening;
        self.feed.progress.send_modify(|progress| progress.snapshot_of = self.opening);
        self.meter.records.set(self.raw.len() as f64);
    }

    async fn rebase<'a>(&mut self, slots: impl IntoIterator<Item = &'a Arc<dyn AnySlot>>) {
        let slots: Vec<_> = slots.into_iter().collect();
        let newest = slots.iter().map(|slot| slot.number()).max().unwrap_or_default();
        self.number = self.number.max(newest) + 1;
        let source = Source { number: self.number, published: &self.published, last_good: &self.last_good };
        for slot in &slots {
            slot.rebase(self.raw.tree(), &source).await;
        }
        self.published.store(self.number, Ordering::Release);
        for slot in &slots {
            slot.commit();
        }
    }

    /// Takes over the slots of narrower feeds that this one has caught up with.
    async fn adopt(&mut self) {
        let Some(at) = self.position.clone() else { return };
        let backend = Arc::clone(&self.feed.backend);
        let caught_up =
            |adoption: &Adoption| adoption.position.as_ref().is_none_or(|target| backend.reached(&at, target));
        let (ready, waiting) = std::mem::take(&mut self.adoptions).into_iter().partition(caught_up);
        self.adoptions = waiting;
        for Adoption { slots, reply, .. } in ready {
            let slots: Vec<_> =
                slots.into_iter().filter_map(|(type_id, slot)| Some((type_id, slot.upgrade()?))).collect();
            self.rebase(slots.iter().map(|(_, slot)| slot)).await;
            for (type_id, slot) in &slots {
                self.slots.insert(*type_id, slot);
                slot.wake();
            }
            // The merge may have been cut short by a shutdown.
            let _ = reply.send(());
        }
    }

    fn live(&mut self) {
        if self.feed.status.borrow().freshness.is_live() || self.position.is_none() {
            return;
        }
        tracing::debug!(records = self.raw.len(), "live");
        self.set_freshness(|_| Freshness::Live);
    }

    fn failed(&mut self, error: &Error) {
        tracing::warn!(error = %error, "watch interrupted: the last known set is still served");
        self.feed.status.send_modify(|status| {
            status.failures += 1;
            status.last_error = Some(error.clone());
        });
        self.set_freshness(|freshness| match freshness {
            Freshness::Syncing => Freshness::Syncing,
            Freshness::Live => Freshness::Stale { since: Instant::now(), cause: error.clone() },
            Freshness::Stale { since, .. } => Freshness::Stale { since: *since, cause: error.clone() },
        });
    }

    fn set_freshness(&mut self, change: impl FnOnce(&Freshness) -> Freshness) {
        self.feed.status.send_modify(|status| {
            status.freshness = change(&status.freshness);
            self.meter.freshness(&status.freshness);
        });
        for (_, slot) in self.every_slot() {
            slot.wake();
        }
    }
}

fn silent(limit: Duration, what: &str) -> Error {
    Error::new(ErrorKind::Timeout, format!("{what} for {limit:?}: is the store reachable?"))
}

fn broken(what: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("the backend sent {what}: please report it")).with_temporary(true)
}
