//! One backend watch, its store, and the slots that show parts of it.

mod handover;
mod merge;
mod overtaken;
mod progress;
mod resync;
mod run;
mod scopes;
mod slots;
mod staging;

use std::any::{Any, TypeId};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub(crate) use scopes::Scopes;

use crate::backend::{Backend, Position};
use crate::error::{Error, ErrorKind, Result};
use crate::freshness::Freshness;
use crate::query::Scope;
use crate::store::{AnySlot, KnownGood};

/// How many commands may wait for a feed before their senders do.
const COMMANDS: usize = 64;

/// What all feeds of a handle share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FeedSettings {
    /// How long records that a reset store lost stay visible.
    pub(crate) resync_grace: Duration,
    /// How long opening a watch may take, and a snapshot may be silent.
    pub(crate) open_timeout: Duration,
}

/// How a feed is doing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Status {
    pub(crate) freshness: Freshness,
    /// How often opening or holding the watch has failed.
    pub(crate) failures: u64,
    /// Why it failed last, and when, unless it is live again.
    pub(crate) last_error: Option<(Error, Instant)>,
    /// The store does not let this scope be watched, and never has: views of narrower scopes must go elsewhere.
    pub(crate) refused: bool,
    /// Whether the first snapshot is here, shown or about to be.
    arrived: bool,
    /// Whether a list has answered since the watch was opened that is to bring it.
    overtaken: bool,
}

pub(crate) enum Command {
    /// Answers an existing slot of this type and scope, or takes this one in. No answer: ask for another feed.
    Attach {
        type_id: TypeId,
        slot: Arc<dyn AnySlot>,
        owner: Arc<FeedOwner>,
        reply: oneshot::Sender<Arc<dyn Any + Send + Sync>>,
    },
    /// A new snapshot, unless one that was begun at or after this opening is there or under way.
    Reopen { opening: u64 },
    /// Stops the feed and answers its slots and how far they are.
    Release { reply: oneshot::Sender<Released> },
    /// Answers the slots of narrower scopes, for which this feed is of no use.
    Expel { reply: oneshot::Sender<Released> },
    /// Takes over slots once this feed is as far as they are; answers when that is done.
    Adopt { released: Released, owner: Arc<FeedOwner>, reply: oneshot::Sender<()> },
    /// The slots that came from this feed are to be adopted now: a barrier that was asked for since is reached.
    AdoptNow { from: Arc<Feed> },
    /// Forgets the slots that nobody uses any more.
    Prune,
}

/// Slots between two feeds. Their streams end with it: whoever takes them over takes them out.
pub(crate) struct Released {
    /// The feed that they come from.
    from: Arc<Feed>,
    slots: Vec<(TypeId, Arc<dyn AnySlot>)>,
    /// None of them is beyond it. `None`: they have shown nothing yet.
    position: Option<Position>,
    /// The feeds that still speak for the slots' freshness.
    speakers: Vec<Arc<Feed>>,
    last_good: KnownGood,
}

impl Drop for Released {
    fn drop(&mut self) {
        for (_, slot) in &self.slots {
            slot.end(closed());
        }
    }
}

/// The shared side of a feed; its task is in `run`.
pub(crate) struct Feed {
    pub(crate) scope: Scope,
    backend: Arc<dyn Backend>,
    commands: mpsc::Sender<Command>,
    status: watch::Sender<Status>,
    progress: progress::Follower,
    openings: AtomicU64,
    /// Whether a slot was dropped since those that are left were looked through.
    slot_dropped: AtomicBool,
    /// Whether the task is to look at what is wanted of its watch: told by itself to what it waits for, which it looks at
    /// again after each command.
    reopen: AtomicBool,
}

/// Keeps a feed open: held by its slots and by whoever is about to attach one. The feed closes with the last.
pub(crate) struct FeedOwner {
    feed: Arc<Feed>,
    cancel: CancellationToken,
}

impl FeedOwner {
    pub(crate) fn feed(&self) -> Arc<Feed> {
        Arc::clone(&self.feed)
    }

    pub(crate) fn feed_ref(&self) -> &Feed {
        &self.feed
    }
}

impl Drop for FeedOwner {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// What every feed of a handle is opened with.
pub(crate) struct FeedContext {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) settings: FeedSettings,
    /// One for each watch that the backend allows.
    pub(crate) permits: Arc<Semaphore>,
    /// Of the delays after failures.
    pub(crate) seed: u64,
}

impl Feed {
    /// A feed, and the work that keeps it: to be run until the token is cancelled.
    fn open(
        scope: Scope,
        context: &FeedContext,
        cancel: CancellationToken,
    ) -> (Arc<FeedOwner>, impl Future<Output = ()> + Send + use<>) {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (told, progress) = progress::progress();
        let feed = Arc::new(Feed {
            scope,
            backend: Arc::clone(&context.backend),
            commands,
            status: watch::Sender::new(Status::default()),
            progress,
            openings: AtomicU64::new(0),
            slot_dropped: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
        });
        let task = run::Task::new(Arc::clone(&feed), inbox, told, context);
        let work = task.run(cancel.clone());
        (Arc::new(FeedOwner { feed, cancel }), work)
    }

    pub(crate) fn freshness(&self) -> Freshness {
        self.status.borrow().freshness.clone()
    }

    pub(crate) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    pub(crate) fn slot_dropped(&self) {
        self.slot_dropped.store(true, Ordering::Release);
        // Where the queue is full, the task comes by with each command that is in it. One that is over has no slots.
        let _ = self.commands.try_send(Command::Prune);
    }

    /// Whether its task takes no commands any more.
    pub(crate) fn is_over(&self) -> bool {
        self.commands.is_closed()
    }

    /// Waits for the first snapshot, but not beyond the first failure. Answers whether it is there.
    pub(crate) async fn opened(&self) -> bool {
        let mut status = self.status.subscribe();
        tokio::select! {
            biased;
            ready = self.progress.wait_for(|progress| progress.position.is_some()) => ready.is_ok(),
            _ = status.wait_for(|status| status.failures > 0) => false,
        }
    }

    /// Sends a command; `None` where the feed has ended.
    async fn ask<A>(&self, command: impl FnOnce(oneshot::Sender<A>) -> Command) -> Option<A> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Waits until the feed has seen every write that was acknowledged before this call.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] where the feed ends before: its slots are another's by then, or about to be. Why the store
    /// could not be asked.
    pub(crate) async fn catch_up(&self) -> Result<()> {
        match self.backend.barrier(&self.scope).await? {
            Some(target) => self.reach(&target).await,
            None => {
                let opening = self.openings.load(Ordering::Acquire) + 1;
                self.commands.send(Command::Reopen { opening }).await.map_err(|_| closed())?;
                self.progress.wait_for(|progress| progress.snapshot_of >= opening).await
            }
        }
    }

    /// Waits until the feed's position is at or beyond `target`.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`] where the feed ends before.
    pub(crate) async fn reach(&self, target: &Position) -> Result<()> {
        let there = |at: &Position| self.backend.reached(at, target);
        self.progress.wait_for(|progress| progress.position.as_ref().is_some_and(there)).await
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "this discovery handle was shut down: build a new one")
}
