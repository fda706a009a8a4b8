//! One backend watch, its store, and the slots that show parts of it.

mod run;
mod scopes;
mod slots;

use std::any::{Any, TypeId};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use scopes::Scopes;

use crate::backend::{Backend, Position};
use crate::error::{Error, ErrorKind, Result};
use crate::executor::TaskScope;
use crate::freshness::Freshness;
use crate::query::Scope;
use crate::store::AnySlot;

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
    pub(crate) last_error: Option<Error>,
}

/// How far a feed is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) position: Option<Position>,
    /// The number of the newest opening whose snapshot is complete.
    pub(crate) snapshot_of: u64,
}

pub(crate) enum Command {
    /// Answers an existing slot of this type and scope, or takes this one in.
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
    /// Takes over the slots of a narrower feed once this one is as far as they are.
    Adopt { released: Released, owner: Arc<FeedOwner>, reply: oneshot::Sender<()> },
}

#[derive(Clone)]
pub(crate) struct Released {
    pub(crate) slots: Vec<(TypeId, Arc<dyn AnySlot>)>,
    pub(crate) position: Option<Position>,
}

/// The shared side of a feed; its task is in `run`.
pub(crate) struct Feed {
    pub(crate) scope: Scope,
    backend: Arc<dyn Backend>,
    commands: mpsc::Sender<Command>,
    status: watch::Sender<Status>,
    progress: watch::Sender<Progress>,
    openings: AtomicU64,
    slot_dropped: Notify,
    reopen: Notify,
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

impl Feed {
    pub(crate) fn open(
        scope: Scope,
        backend: Arc<dyn Backend>,
        tasks: &TaskScope,
        settings: FeedSettings,
    ) -> Arc<FeedOwner> {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let feed = Arc::new(Feed {
            scope,
            backend,
            commands,
            status: watch::Sender::new(Status::default()),
            progress: watch::Sender::new(Progress::default()),
            openings: AtomicU64::new(0),
            slot_dropped: Notify::new(),
            reopen: Notify::new(),
        });
        let cancel = tasks.child_token();
        let task = run::Task::new(Arc::clone(&feed), inbox, settings);
        let stop = cancel.clone();
        tasks.spawn_graceful(task.run(stop));
        Arc::new(FeedOwner { feed, cancel })
    }

    pub(crate) fn freshness(&self) -> Freshness {
        self.status.borrow().freshness.clone()
    }

    pub(crate) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    pub(crate) fn slot_dropped(&self) {
        self.slot_dropped.notify_one();
    }

    /// Sends a command; `None` where the feed has ended.
    async fn ask<A>(&self, command: impl FnOnce(oneshot::Sender<A>) -> Command) -> Option<A> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Waits until the feed has seen every write that was acknowledged before this call.
    pub(crate) async fn catch_up(&self) -> Result<()> {
        match self.backend.barrier(&self.scope).await? {
            Some(target) => self.reach(&target).await,
            None => {
                let opening = self.openings.load(Ordering::Acquire) + 1;
                let ended = || Error::new(ErrorKind::Closed, "the watch was closed meanwhile: try again");
                self.commands.send(Command::Reopen { opening }).await.map_err(|_| ended())?;
                let mut progress = self.progress.subscribe();
                progress.wait_for(|progress| progress.snapshot_of >= opening).await.map(drop).map_err(|_| ended())
            }
        }
    }

    /// Waits until the feed's position is at or beyond `target`.
    pub(crate) async fn reach(&self, target: &Position) -> Result<()> {
        let mut progress = self.progress.subscribe();
        let there = |progress: &Progress| progress.position.as_ref().is_some_and(|at| self.backend.reached(at, target));
        progress
            .wait_for(there)
            .await
            .map(drop)
            .map_err(|_| Error::new(ErrorKind::Closed, "the watch was closed meanwhile: try again"))
    }
}
