//! A watch of a store that can only be listed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, Fuse};
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use crate::backend::{Change, Entry, Lineage, Position, WatchEvent, WatchStream, Watcher};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::query::Scope;

/// Hints that something may have changed. Each makes a watch list at once.
pub type Nudges = BoxStream<'static, ()>;

/// How far lists that hints ask for stay apart at least: a store that is written all the time is not listed all the time.
const GAP: Duration = Duration::from_millis(20);

/// What a list answers. Made of a `Vec` where the store cannot tell its lineage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing<T> {
    /// What there is.
    pub items: Vec<T>,
    /// A number that goes with the data and never changes or vanishes while none are lost: one that is drawn with the
    /// first write and kept beside the records, for example. Where it differs from before, or is no longer there, data
    /// were lost, and views can bridge that until their owners have put the records back.
    pub lineage: Option<u64>,
}

impl<T> From<Vec<T>> for Listing<T> {
    fn from(items: Vec<T>) -> Self {
        Self { items, lineage: None }
    }
}

/// A store that can be listed, and may hint that it is time to.
#[async_trait]
pub trait Lister: Send + Sync + 'static {
    /// Every record of `scope`, as one committed state of the store that is no older than this call, each key once.
    /// Records outside the scope do no harm. An incarnation changes whenever its key was absent meanwhile, also between two calls.
    ///
    /// # Errors
    /// Where the store cannot be asked. Never an empty list instead: absent records are shown as removed.
    async fn list(&self, scope: &Scope) -> Result<Listing<Entry>>;

    /// Hints that something may have changed since this call. One that is missing or lost delays what it was about
    /// until the next list, and nothing else; one too many costs a list. Where the stream ends, the watch ends with an
    /// error and is opened again. The default has none.
    ///
    /// # Errors
    /// Where the store cannot be asked; the watch is opened again with back-off.
    async fn nudges(&self) -> Result<Nudges> {
        Ok(stream::pending().boxed())
    }

    /// How often a watch lists when nothing nudges it.
    fn interval(&self) -> Duration {
        Duration::from_millis(500)
    }

    /// See [`Watcher::coarsen`]. The default lists each scope by itself.
    fn coarsen(&self, scope: &Scope) -> Scope {
        scope.clone()
    }
}

/// The watches of a [`Lister`].
///
/// A watch begins with a snapshot. Each list after that is one [`WatchEvent::Batch`] of what differs from the one
/// before, or else [`WatchEvent::Progress`] as a sign of life; one of another lineage is a new snapshot. A list that fails
/// is the stream's last item, and the core opens the watch again. A list under way gives signs of life too, once in an
/// interval, for up to twice the time that the lists before it took: a slow store is not taken for dead, and one that no
/// longer answers falls silent. There is no task: a stream lists while it is polled, and dropping it at any time, a list under
/// way included, leaves nothing behind.
///
/// A barrier is a list that begins after the call. Open watches begin one at once.
#[derive(Debug)]
pub struct Polling<L> {
    shared: Arc<Shared<L>>,
}

#[derive(Debug)]
struct Shared<L> {
    lister: L,
    /// Counts the beginnings and the ends of lists, and barriers, so that their order can be told.
    clock: AtomicU64,
    /// The newest barrier.
    barrier: watch::Sender<u64>,
}

/// When a list began and ended, by the clock of its [`Polling`], and the lineage that it found. What it shows was the
/// store's state in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    began: u64,
    ended: u64,
    lineage: Option<u64>,
}

impl Span {
    fn position(self) -> Position {
        let numbers = [Some(self.began), Some(self.ended), self.lineage];
        Position(numbers.into_iter().flatten().flat_map(u64::to_be_bytes).collect())
    }

    fn parse(position: &Position) -> Option<Self> {
        let (numbers, rest) = position.0.as_chunks();
        let mut numbers = numbers.iter().map(|number| u64::from_be_bytes(*number));
        let span = Self { began: numbers.next()?, ended: numbers.next()?, lineage: numbers.next() };
        (rest.is_empty() && numbers.next().is_none()).then_some(span)
    }

    /// How this list's data relate to those of an earlier one.
    fn follows(self, earlier: Self) -> Lineage {
        match earlier.lineage {
            Some(_) if earlier.lineage == self.lineage => Lineage::Same,
            Some(_) => Lineage::Reset,
            None => Lineage::Unknown,
        }
    }

    /// Two lists that overlap in time may show the store in either order.
    fn reached(self, target: Self) -> bool {
        self == target || self.began >= target.ended
    }
}

impl<L: Lister> Polling<L> {
    /// Watches of `lister`.
    pub fn new(lister: L) -> Self {
        Self { shared: Arc::new(Shared { lister, clock: AtomicU64::new(0), barrier: watch::Sender::new(0) }) }
    }

    /// The store.
    pub fn lister(&self) -> &L {
        &self.shared.lister
    }
}

impl<L: Lister> Shared<L> {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst) + 1
    }

    async fn list(&self, scope: &Scope) -> Result<(Vec<Entry>, Span)> {
        let began = self.tick();
        let Listing { items: mut entries, lineage } = self.lister.list(scope).await?;
        let span = Span { began, ended: self.tick(), lineage };
        entries.retain(|entry| scope.contains(&entry.key));
        Ok((entries, span))
    }
}

#[async_trait]
impl<L: Lister> Watcher for Polling<L> {
    async fn watch(&self, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
        // Hints first: what changes after the list must not be missed.
        let nudges = self.shared.lister.nudges().await?;
        let barrier = self.shared.barrier.subscribe();
        let began = Instant::now();
        let (entries, span) = self.shared.list(scope).await?;
        let listed = Instant::now();
        let lineage = after.and_then(Span::parse).map_or(Lineage::Unknown, |after| span.follows(after));
        let seen = entries.iter().map(|entry| (entry.key.clone(), entry.clone())).collect();
        let first = WatchEvent::snapshot(lineage, entries, span.position()).map(Ok);
        let shared = Arc::clone(&self.shared);
        let (scope, took) = (scope.clone(), listed - began);
        let poller =
            Poller { shared, scope, nudges: nudges.fuse(), barrier, seen, span, under_way: None, listed, took };
        let rest = stream::unfold(Some(poller), |poller| async move {
            let mut poller = poller?;
            Some(match poller.next().await {
                Ok(events) => (stream::iter(events.into_iter().map(Ok).collect::<Vec<_>>()), Some(poller)),
                Err(error) => (stream::iter(vec![Err(error)]), None),
            })
        });
        Ok(stream::iter(first).chain(rest.flatten()).boxed())
    }

    async fn list(&self, scope: &Scope) -> Result<(Vec<Entry>, Position)> {
        let (entries, span) = self.shared.list(scope).await?;
        Ok((entries, span.position()))
    }

    fn coarsen(&self, scope: &Scope) -> Scope {
        self.shared.lister.coarsen(scope)
    }

    async fn barrier(&self, _: &Scope) -> Result<Option<Position>> {
        let now = self.shared.tick();
        self.shared.barrier.send_modify(|newest| *newest = now.max(*newest));
        Ok(Some(Span { began: now, ended: now, lineage: None }.position()))
    }

    fn reached(&self, at: &Position, target: &Position) -> bool {
        matches!((Span::parse(at), Span::parse(target)), (Some(at), Some(target)) if at.reached(target))
    }
}

/// One open watch.
struct Poller<L> {
    shared: Arc<Shared<L>>,
    scope: Scope,
    /// Asked again after their end: whatever else made a list due may have been told first.
    nudges: Fuse<Nudges>,
    barrier: watch::Receiver<u64>,
    /// What the stream has told so far.
    seen: BTreeMap<Key, Entry>,
    /// The newest list, when it ended, and how long such a list takes.
    span: Span,
    listed: Instant,
    took: Duration,
    under_way: Option<UnderWay>,
}

/// A list that has no answer yet.
struct UnderWay {
    began: Instant,
    /// When it gives a sign of life.
    sign: Instant,
    answer: BoxFuture<'static, Result<(Vec<Entry>, Span)>>,
}

impl<L: Lister> Poller<L> {
    async fn next(&mut self) -> Result<Vec<WatchEvent>> {
        if self.under_way.is_none() {
            self.due().await?;
        }
        let interval = self.shared.lister.interval();
        let UnderWay { began, sign, answer } = self.under_way.get_or_insert_with(|| {
            let (shared, scope) = (Arc::clone(&self.shared), self.scope.clone());
            let began = Instant::now();
            UnderWay { began, sign: began + interval, answer: async move { shared.list(&scope).await }.boxed() }
        });
        let until = *began + self.took * 2;
        let (entries, span) = tokio::select! {
            biased;
            listed = answer => listed?,
            () = sleep_until(*sign), if *sign <= until => {
                *sign = Instant::now() + interval;
                return Ok(vec![WatchEvent::Progress(self.span.position())]);
            }
        };
        let lineage = span.follows(self.span);
        self.span = span;
        self.listed = Instant::now();
        // One quick list among slow ones does not make the store a quick one.
        self.took = (self.listed - *began).max(self.took / 2);
        self.under_way = None;
        let position = span.position();
        if lineage == Lineage::Reset {
            self.seen = entries.iter().map(|entry| (entry.key.clone(), entry.clone())).collect();
            return Ok(WatchEvent::snapshot(lineage, entries, position).into());
        }
        let changes = self.advance(entries);
        Ok(vec![match changes.is_empty() {
            true => WatchEvent::Progress(position),
            false => WatchEvent::Batch { changes, position },
        }])
    }

    /// Waits until it is time for another list.
    async fn due(&mut self) -> Result<()> {
        let ended = || Error::new(ErrorKind::Unavailable, "the store's notifications ended: is it reachable?");
        let began = self.span.began;
        let interval = self.shared.lister.interval();
        let Self { nudges, barrier, listed, took, .. } = self;
        // However large the set, hints keep the store busy for half of the time at most.
        let gap = GAP.max(*took);
        // The sender lives in `shared`.
        let barrier = barrier.wait_for(|newest| *newest > began).map(drop);
        let hinted = async {
            let hint = nudges.next().await;
            sleep_until(*listed + gap).await;
            hint
        };
        let hint = tokio::select! {
            biased;
            () = barrier => Some(()),
            hint = hinted => hint,
            () = sleep_until(*listed + interval) => Some(()),
        };
        hint.ok_or_else(ended)?;
        // One list answers all the hints that wait. Bounded, because hints may come as fast as they are taken.
        for _ in 0..1024 {
            match nudges.next().now_or_never() {
                Some(hint) => hint.ok_or_else(ended)?,
                None => break,
            }
        }
        Ok(())
    }

    /// Takes in what was listed and answers how it differs from what the stream has told.
    fn advance(&mut self, entries: Vec<Entry>) -> Vec<Change> {
        let mut now = BTreeMap::new();
        let mut changes = Vec::new();
        for entry in entries {
            if self.seen.remove(&entry.key).as_ref() != Some(&entry) {
                changes.push(Change::Put(entry.clone()));
            }
            now.insert(entry.key.clone(), entry);
        }
        let gone = std::mem::replace(&mut self.seen, now);
        changes.extend(gone.into_keys().map(Change::Delete));
        changes
    }
}
