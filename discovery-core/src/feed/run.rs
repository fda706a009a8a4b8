//! The task of a feed: opens the watch, applies what it says, opens it again when it fails.

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::handover::Adoption;
use super::progress::Teller;
use super::slots::SlotIndex;
use super::staging::Staging;
use super::{Command, Feed, FeedContext, FeedSettings, Released, closed};
use crate::backend::{Change, Position, WatchEvent, WatchStream};
use crate::backoff::Backoff;
use crate::deadline::later;
use crate::error::{Error, ErrorKind, Result};
use crate::freshness::Freshness;
use crate::store::{Effective, LastGood, RawStore, Source};
use crate::telemetry::FeedMeter;

/// Why the task stops.
pub(super) enum Stop {
    /// Nobody needs the feed any more, or the handle is shut down.
    Cancelled,
    /// A wider feed takes its slots over.
    Released(oneshot::Sender<Released>),
}

/// What a resumed watch still lacks of what it missed.
enum Gap {
    /// Nothing.
    Closed,
    /// The store has not said yet where it is.
    Unknown,
    /// All up to here.
    Until(Position),
}

/// What a stream is left waiting for.
enum Next {
    Event(Option<Result<WatchEvent>>),
    /// Where the store is, asked when the watch was resumed.
    Barrier(Result<Option<Position>>),
    /// Somebody asked for a new snapshot.
    Reopen,
    Silence,
}

/// Why a stream is left.
pub(super) enum Leave {
    Failed(Error),
    /// For a new snapshot, though nothing is wrong.
    Reopen,
}

pub(super) struct Task {
    pub(super) feed: Arc<Feed>,
    pub(super) inbox: mpsc::Receiver<Command>,
    progress: Teller,
    pub(super) settings: FeedSettings,
    permits: Arc<Semaphore>,
    seed: u64,
    pub(super) raw: RawStore,
    pub(super) slots: SlotIndex,
    pub(super) adoptions: Vec<Adoption>,
    pub(super) last_good: LastGood,
    /// The number of the newest version.
    pub(super) number: u64,
    pub(super) published: Arc<AtomicU64>,
    pub(super) position: Option<Position>,
    gap: Gap,
    /// Why the open watch is out of touch, since it said so.
    interrupted: Option<Error>,
    /// The newest opening of the watch, the one whose snapshot is complete, and the one that somebody waits for.
    pub(super) opening: u64,
    pub(super) snapshot_of: u64,
    pub(super) wanted_opening: u64,
    /// Why the store will never answer this scope.
    pub(super) hopeless: Option<Error>,
    pub(super) meter: FeedMeter,
}

impl Task {
    pub(super) fn new(
        feed: Arc<Feed>,
        inbox: mpsc::Receiver<Command>,
        progress: Teller,
        context: &FeedContext,
    ) -> Self {
        let meter = FeedMeter::new(feed.backend.name(), &feed.scope);
        Self {
            feed,
            inbox,
            progress,
            settings: context.settings,
            permits: Arc::clone(&context.permits),
            seed: context.seed,
            raw: RawStore::default(),
            slots: SlotIndex::default(),
            adoptions: Vec::new(),
            last_good: Mutex::default(),
            number: 0,
            published: Arc::default(),
            position: None,
            gap: Gap::Closed,
            interrupted: None,
            opening: 0,
            snapshot_of: 0,
            wanted_opening: 0,
            hopeless: None,
            meter,
        }
    }

    pub(super) async fn run(mut self, cancel: CancellationToken) {
        let span = tracing::info_span!("discovery_feed", backend = self.feed.backend.name(), scope = %self.feed.scope);
        // A span that nobody records would be entered and left for nothing with each change.
        let recorded = !span.is_disabled();
        let follow = self.follow();
        let follow = if recorded { follow.instrument(span).left_future() } else { follow.right_future() };
        let stop = tokio::select! {
            biased;
            () = cancel.cancelled() => Stop::Cancelled,
            stop = follow => stop,
        };
        self.inbox.close();
        match stop {
            // Whoever asked may be gone at shutdown; the slots end with it.
            Stop::Released(reply) => drop(reply.send(self.release())),
            Stop::Cancelled => {
                for (_, slot) in self.every_slot() {
                    slot.end(closed());
                }
                self.set_freshness(|_| Freshness::Stale { since: Instant::now(), cause: closed() });
            }
        }
    }

    /// Opens the watch again and again until something stops the feed.
    async fn follow(&mut self) -> Stop {
        let cap = (self.feed.backend.bounds().recovery / 2).max(Duration::from_millis(100));
        let mut backoff = Backoff::seeded(cap, self.seed);
        loop {
            let life = AssertUnwindSafe(self.serve(&mut backoff)).catch_unwind().await;
            let error = match life {
                Ok(Err(stop)) => return stop,
                Ok(Ok(Leave::Reopen)) => continue,
                Ok(Ok(Leave::Failed(error))) => error,
                Err(_) => {
                    // Where the panic left the watch cannot be known: nothing is resumed.
                    self.wanted_opening = self.wanted_opening.max(self.opening + 1);
                    Error::new(ErrorKind::Internal, "the backend panicked: please report it").with_temporary(true)
                }
            };
            let error = error.with_backend(self.feed.backend.name()).with_operation("watch");
            self.failed(&error);
            if matches!(error.kind(), ErrorKind::InvalidQuery | ErrorKind::Unsupported) {
                return self.give_up(error).await;
            }
            self.meter.reconnects.increment(1);
            if let Err(stop) = self.alongside(sleep(backoff.next())).await {
                return stop;
            }
        }
    }

    /// A view may ask only for what the store can watch: answers those that come later, until the feed is dropped.
    async fn give_up(&mut self, error: Error) -> Stop {
        for (_, slot) in self.slots.all() {
            if !self.is_misplaced(slot.scope()) {
                slot.end(error.clone());
            }
        }
        self.hopeless = Some(error);
        match self.alongside(pending::<Infallible>()).await {
            Ok(never) => match never {},
            Err(stop) => stop,
        }
    }

    /// One life of the watch.
    async fn serve(&mut self, backoff: &mut Backoff) -> Result<Leave, Stop> {
        // Held until the stream is dropped: the store's limit counts every watch, whichever feed it belongs to.
        let permits = Arc::clone(&self.permits);
        let _permit = self.alongside(permits.acquire()).await?;
        // A snapshot that somebody waits for must not be spared by resuming.
        let resume = (self.wanted_opening <= self.snapshot_of).then(|| self.position.clone()).flatten();
        self.begin_reading();
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
        let opened = Instant::now();
        let leave = self.listen(&mut stream, resume.is_some(), backoff).await?;
        // Proof of progress is a change of the store, or a watch that went on for a while. A store that answers each
        // opening with a snapshot, a sign of life and an error is asked less and less often.
        if opened.elapsed() > self.feed.backend.bounds().recovery {
            backoff.reset();
        }
        Ok(leave)
    }

    async fn listen(
        &mut self,
        stream: &mut WatchStream,
        may_resume: bool,
        backoff: &mut Backoff,
    ) -> Result<Leave, Stop> {
        let silence = self.feed.backend.bounds().silence;
        let feed = Arc::clone(&self.feed);
        let mut staging: Option<Staging> = None;
        let mut started = false;
        // Since the newest snapshot began. If not, its end says that the watch is in touch.
        let mut interrupted = false;
        self.interrupted = None;
        let mut barrier: Option<BoxFuture<'static, Result<Option<Position>>>> = None;
        // Not set anew with each event: when it is due too soon, it waits for the rest.
        let mut heard = Instant::now();
        let silent_at = sleep_until(later(heard, self.settings.open_timeout));
        tokio::pin!(silent_at);
        loop {
            let settled = started && staging.is_none();
            // A snapshot under way is never thrown away: lists that keep coming would starve each other.
            if settled && self.wanted_opening > self.snapshot_of {
                return Ok(Leave::Reopen);
            }
            let limit = if settled { silence } else { Some(self.settings.open_timeout) };
            let due = limit.map(|limit| later(heard, limit));
            if let Some(due) = due.filter(|due| *due < silent_at.deadline()) {
                silent_at.as_mut().reset(due);
            }
            let next = async {
                let answer = async {
                    match &mut barrier {
                        Some(barrier) => barrier.await,
                        None => pending().await,
                    }
                };
                // Needs no waker: only the commands that are answered beside this set it, and this is polled after each.
                let reopened = poll_fn(|_| match feed.reopen.swap(false, Ordering::Relaxed) {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                });
                tokio::select! {
                    biased;
                    event = stream.next() => Next::Event(event),
                    answer = answer => Next::Barrier(answer),
                    () = reopened => Next::Reopen,
                    () = silent_at.as_mut(), if due.is_some() => Next::Silence,
                }
            };
            let next = self.alongside(next).await?;
            let now = Instant::now();
            match (&next, due) {
                (Next::Silence, Some(due)) if now < due => {
                    silent_at.as_mut().reset(due);
                    continue;
                }
                _ => heard = now,
            }
            let event = match next {
                Next::Event(Some(Ok(event))) => event,
                Next::Event(Some(Err(error))) => return Ok(Leave::Failed(error)),
                Next::Event(None) => {
                    return Ok(Leave::Failed(Error::new(ErrorKind::Unavailable, "the store ended the watch")));
                }
                Next::Barrier(Ok(target)) => {
                    barrier = None;
                    // Where the store cannot say where it is, what was missed is behind the resumption at once.
                    self.gap = target.map_or(Gap::Closed, Gap::Until);
                    self.close_gap();
                    self.live();
                    continue;
                }
                Next::Barrier(Err(error)) => return Ok(Leave::Failed(error)),
                Next::Silence => return Ok(Leave::Failed(silent(limit.unwrap_or_default(), "the watch went silent"))),
                Next::Reopen => continue,
            };
            match event {
                WatchEvent::SnapshotStart { lineage } => (staging, interrupted) = (Some(Staging::new(lineage)), false),
                WatchEvent::SnapshotChunk(part) => match &mut staging {
                    Some(staging) => self.stage(staging, part).await,
                    None => return Ok(Leave::Failed(broken("a snapshot's part without its start"))),
                },
                WatchEvent::SnapshotEnd(position) => {
                    let Some(staging) = staging.take() else {
                        return Ok(Leave::Failed(broken("a snapshot's end without its start")));
                    };
                    if self.position.is_none()
                        && let Some(leave) = self.arrive(&position).await?
                    {
                        return Ok(leave);
                    }
                    self.resync(staging).await;
                    if !interrupted {
                        self.interrupted = None;
                    }
                    (self.gap, barrier) = (Gap::Closed, None);
                    // Woken only now: who hears of a state is told in the same breath whether it is current.
                    if !self.settled(position).await {
                        self.wake();
                    }
                    started = true;
                }
                WatchEvent::Resumed if may_resume && !started => {
                    started = true;
                    // Live is what has all that it missed: who joins now must not take a state from before the gap.
                    self.gap = Gap::Unknown;
                    barrier = Some(whereabouts(Arc::clone(&feed), self.settings.open_timeout).boxed());
                }
                WatchEvent::Resumed => return Ok(Leave::Failed(broken("a resumption that was not asked for"))),
                WatchEvent::Batch { .. } | WatchEvent::Progress(_) if !started => {
                    return Ok(Leave::Failed(broken("a change or a position before its first snapshot")));
                }
                WatchEvent::Batch { changes, position } => {
                    if self.position.as_ref() != Some(&position) {
                        backoff.reset();
                    }
                    self.apply(changes);
                    _ = self.settled(position).await;
                }
                WatchEvent::Progress(position) => _ = self.settled(position).await,
                WatchEvent::Interrupted(error) => {
                    self.failed(&error);
                    (self.interrupted, interrupted) = (Some(error), true);
                }
                WatchEvent::Recovered => {
                    (self.interrupted, interrupted) = (None, false);
                    // Live is what has a snapshot; the first one may be still to come.
                    if started {
                        self.live();
                    }
                }
            }
        }
    }

    /// Awaits `work` while commands are answered and timers kept. `work` is never dropped half-way but at a stop.
    pub(super) async fn alongside<F: Future>(&mut self, work: F) -> Result<F::Output, Stop> {
        tokio::pin!(work);
        loop {
            let ghost = self.raw.next_ghost();
            let give_up = async {
                match ghost {
                    Some(until) => sleep_until(until).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(command) = self.inbox.recv() => self.obey(command).await?,
                output = &mut work => return Ok(output),
                () = give_up => {
                    let gone = self.raw.drop_ghosts(Instant::now());
                    self.publish(&gone);
                }
            }
        }
    }

    /// After a sign of life from the store. The slots that wait for this position show it before anybody hears of it.
    /// Answers whether the streams were woken.
    async fn settled(&mut self, position: Position) -> bool {
        self.position = Some(position);
        self.close_gap();
        let woken = self.live();
        self.adopt(None).await;
        self.progress.tell(&self.position, self.snapshot_of);
        woken
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
        // Nothing has to become visible together with one slot.
        if let [(slot, changes)] = &touched[..] {
            self.published.store(self.number, Ordering::Release);
            slot.stage(changes, &source);
            slot.wake();
        } else {
            for (slot, changes) in &touched {
                slot.stage(changes, &source);
            }
            self.published.store(self.number, Ordering::Release);
            for (slot, _) in &touched {
                slot.commit();
                slot.wake();
            }
        }
        self.meter.records.set(self.raw.len() as f64);
    }

    /// Whether a snapshot has been shown that held some.
    pub(super) fn holds_records(&self) -> bool {
        self.raw.len() > 0
    }

    fn close_gap(&mut self) {
        if let (Gap::Until(target), Some(at)) = (&self.gap, &self.position)
            && self.feed.backend.reached(at, target)
        {
            self.gap = Gap::Closed;
        }
    }

    /// Live, where nothing is missing. Answers whether that was news, of which the streams were told.
    fn live(&mut self) -> bool {
        let known = self.position.is_some() && matches!(self.gap, Gap::Closed);
        if self.feed.status.borrow().freshness.is_live() || !known {
            return false;
        }
        if let Some(cause) = self.interrupted.clone() {
            // Whoever has a first state is no longer syncing.
            let syncing = matches!(self.feed.status.borrow().freshness, Freshness::Syncing);
            if syncing {
                self.set_freshness(|_| Freshness::Stale { since: Instant::now(), cause });
            }
            return syncing;
        }
        tracing::debug!(records = self.raw.len(), "live");
        self.feed.status.send_modify(|status| {
            status.last_error = None;
            status.refused = false;
        });
        self.set_freshness(|_| Freshness::Live);
        true
    }

    fn failed(&mut self, error: &Error) {
        tracing::warn!(error = %error, "watch interrupted: the last known set is still served");
        let refusal =
            matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::InvalidQuery | ErrorKind::Unsupported);
        self.feed.status.send_modify(|status| {
            status.failures += 1;
            status.last_error = Some((error.clone(), Instant::now()));
            status.refused |= refusal && self.position.is_none();
            status.arrived &= self.position.is_some();
        });
        self.set_freshness(|freshness| match freshness {
            Freshness::Syncing => Freshness::Syncing,
            Freshness::Live => Freshness::Stale { since: Instant::now(), cause: error.clone() },
            Freshness::Stale { since, .. } => Freshness::Stale { since: *since, cause: error.clone() },
        });
        self.prune();
    }

    fn set_freshness(&mut self, change: impl FnOnce(&Freshness) -> Freshness) {
        self.feed.status.send_modify(|status| {
            status.freshness = change(&status.freshness);
            self.meter.freshness(&status.freshness);
        });
        self.speak_for_adoptions();
        self.wake();
    }

    fn wake(&self) {
        for (_, slot) in self.every_slot() {
            slot.wake();
        }
    }
}

/// Where the store is now.
pub(super) async fn whereabouts(feed: Arc<Feed>, limit: Duration) -> Result<Option<Position>> {
    match timeout(limit, feed.backend.barrier(&feed.scope)).await {
        Ok(answer) => answer,
        Err(_) => Err(silent(limit, "asking where the store is got no answer")),
    }
}

fn silent(limit: Duration, what: &str) -> Error {
    Error::new(ErrorKind::Timeout, format!("{what} for {limit:?}: is the store reachable?"))
}

fn broken(what: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("the backend sent {what}: please report it")).with_temporary(true)
}
