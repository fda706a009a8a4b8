//! Which watches a handle holds open, and which of them serves a scope.

use std::any::TypeId;
use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_util::FutureExt;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{Command, Feed, FeedContext, FeedOwner, FeedSettings, closed};
use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::executor::TaskScope;
use crate::query::Scope;
use crate::store::{AnySlot, Decode, Slot};

/// How many watches may stand below one parent before the parent is watched instead.
const SIBLINGS: usize = 16;

pub(crate) struct Scopes {
    pub(super) context: FeedContext,
    pub(super) tasks: TaskScope,
    table: Mutex<Table>,
    changed: watch::Sender<()>,
    /// Ends every feed, before the rest of the handle.
    cancel: CancellationToken,
    reading: TaskTracker,
}

#[derive(Default)]
pub(super) struct Table {
    /// Those that serve. A narrow one serves beside a wider one until that has its first snapshot.
    pub(super) feeds: BTreeMap<Scope, Weak<FeedOwner>>,
    /// Those whose slots go to a wider one, each until its slots have arrived. There may be another one of the same scope
    /// that serves by then.
    pub(super) moves: Vec<Move>,
    /// Scopes that the store refused: never opened in the place of narrower ones again.
    pub(super) refused: HashSet<Scope>,
}

pub(super) struct Move {
    pub(super) feed: Arc<Feed>,
    /// Held by the slots until they have arrived.
    pub(super) owner: Weak<FeedOwner>,
    pub(super) stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its slots are with no feed.
    Leaving,
    /// The wider feed has them, and shows them once it is as far as they are.
    Arriving,
}

/// A feed, while it takes commands.
fn running(owner: &Weak<FeedOwner>) -> Option<Arc<FeedOwner>> {
    owner.upgrade().filter(|owner| !owner.feed.is_over())
}

fn overlap(one: &Scope, other: &Scope) -> bool {
    one.covers(other) || other.covers(one)
}

impl Table {
    /// The narrowest running feed that covers `wanted` and is of use to it. A narrow one is never passed over for a wider
    /// one: as long as it runs, its slots are ahead of what a wider one would show.
    fn serving(&self, wanted: &Scope) -> Option<Arc<FeedOwner>> {
        // The map is ordered, a covering scope is a prefix: the narrowest comes last.
        let covering = self.feeds.range(..=wanted).rev().filter(|(held, _)| held.covers(wanted));
        covering
            .filter_map(|(held, owner)| Some((held, running(owner)?)))
            .find(|(held, owner)| *held == wanted || !owner.feed.status.borrow().refused)
            .map(|(_, owner)| owner)
    }

    /// The scopes around `wanted`, itself included, whose slots are with no feed.
    fn leaving(&self, wanted: &Scope) -> impl Iterator<Item = &Scope> {
        let leaving = self.moves.iter().filter(|one| one.stage == Stage::Leaving);
        leaving.map(|one| &one.feed.scope).filter(move |held| held.covers(wanted))
    }
}

impl Scopes {
    pub(crate) fn new(backend: Arc<dyn Backend>, tasks: TaskScope, settings: FeedSettings) -> Self {
        let permits = Arc::new(Semaphore::new(backend.bounds().max_watches.clamp(1, Semaphore::MAX_PERMITS)));
        Self {
            context: FeedContext { backend, settings, permits, seed: tasks.seed() },
            cancel: tasks.child_token(),
            tasks,
            table: Mutex::default(),
            changed: watch::Sender::new(()),
            reading: TaskTracker::new(),
        }
    }

    /// The slot of this type and scope: one that is open already, or a new one in the watch that covers it. Cancel-safe.
    pub(crate) async fn slot<T: Send + Sync + 'static>(
        self: &Arc<Self>,
        scope: &Scope,
        decode: Decode<T>,
    ) -> Result<Arc<Slot<T>>> {
        let wanted = self.context.backend.coarsen(scope);
        // A feed can be released to a wider one between finding and asking it; the wider one is found then.
        loop {
            let owner = self.feed_for(&wanted).await?;
            let slot: Arc<dyn AnySlot> = Arc::new(Slot::<T>::new(scope.clone(), decode));
            let feed = owner.feed();
            let attach = |reply| Command::Attach { type_id: TypeId::of::<T>(), slot, owner, reply };
            match feed.ask(attach).await {
                Some(found) => {
                    return found
                        .downcast::<Slot<T>>()
                        .map_err(|_| Error::new(ErrorKind::Internal, "a view of another type: please report it"));
                }
                None => tokio::task::yield_now().await,
            }
        }
    }

    /// The feed that serves `scope`, if there is one and it has a snapshot: at once, or after its first try.
    pub(crate) async fn ready(&self, scope: &Scope) -> Option<Arc<FeedOwner>> {
        let owner = self.table().serving(scope)?;
        owner.feed.opened().await.then_some(owner)
    }

    /// Lets every feed that overlaps `scope` see what was written before this call, but `known`, which does. A load after
    /// a list must not go back, whichever feed answered the list. A feed that was never in touch shows nothing yet, and is
    /// told that it must not begin with what is older.
    ///
    /// # Errors
    /// Why the store could not be asked.
    pub(crate) async fn catch_up(&self, scope: &Scope, known: Option<Arc<Feed>>) -> Result<()> {
        let mut seen: Vec<Arc<Feed>> = known.into_iter().collect();
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            let (next, moving) = {
                let table = self.table();
                let serving = table.feeds.iter().filter(|(held, _)| overlap(held, scope));
                let mut feeds = serving.filter_map(|(_, owner)| Some(running(owner)?.feed()));
                let next = feeds.find(|feed| !seen.iter().any(|known| Arc::ptr_eq(known, feed)));
                let moving = |one: &Move| overlap(&one.feed.scope, scope) && one.owner.strong_count() > 0;
                (next, table.moves.iter().any(moving))
            };
            match next {
                Some(feed) => {
                    if feed.opened().await || !feed.overtake() {
                        match feed.catch_up().await {
                            // Its slots are another feed's by now, or about to be.
                            Err(error) if error.kind() == ErrorKind::Closed => {}
                            outcome => outcome?,
                        }
                    }
                    seen.push(feed);
                }
                // The sender is here.
                None if moving => drop(changed.changed().await),
                None => return Ok(()),
            }
        }
    }

    /// Runs what reads from the store until it is done or reading ends with the handle.
    pub(crate) fn reading<T, W: Future<Output = Result<T>>>(
        &self,
        work: W,
    ) -> impl Future<Output = Result<T>> + use<T, W> {
        let cancel = self.cancel.clone();
        self.reading.track_future(async move {
            tokio::select! {
                biased;
                () = cancel.cancelled() => Err(closed()),
                outcome = work => outcome,
            }
        })
    }

    /// Goes on reading from the store in the background, for as long as reading goes on.
    pub(crate) fn spawn_reading(&self, work: impl Future<Output = ()> + Send + 'static) {
        let work = self.reading(async move {
            work.await;
            Ok(())
        });
        self.tasks.spawn_graceful(work.map(drop));
    }

    /// Ends every feed and every read, and waits until the last watch is closed. Cancel-safe.
    pub(crate) async fn close(&self) {
        self.cancel.cancel();
        self.reading.close();
        self.reading.wait().await;
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells those who wait for slots to arrive.
    pub(super) fn table_changed(&self) {
        self.changed.send_replace(());
    }

    /// Finds or opens the feed for `wanted`. Opens an ancestor where `wanted` would be one watch too many.
    pub(super) async fn feed_for(self: &Arc<Self>, wanted: &Scope) -> Result<Arc<FeedOwner>> {
        // Slots of this scope may be with no feed, and a second one must not show something older.
        self.feed_unless(wanted, |table| table.leaving(wanted).next().is_some()).await
    }

    /// The same for slots of `wanted` that are themselves with no feed: only for wider ones do they wait.
    pub(super) async fn feed_for_moving(self: &Arc<Self>, wanted: &Scope) -> Result<Arc<FeedOwner>> {
        self.feed_unless(wanted, |table| table.leaving(wanted).any(|held| held != wanted)).await
    }

    async fn feed_unless(
        self: &Arc<Self>,
        wanted: &Scope,
        must_wait: impl Fn(&Table) -> bool,
    ) -> Result<Arc<FeedOwner>> {
        let mut changed = self.changed.subscribe();
        loop {
            changed.borrow_and_update();
            if self.cancel.is_cancelled() {
                return Err(closed());
            }
            {
                let mut table = self.table();
                table.feeds.retain(|_, owner| owner.strong_count() > 0);
                if !must_wait(&table) {
                    return Ok(table.serving(wanted).unwrap_or_else(|| self.open(wanted, &mut table)));
                }
            }
            // The sender is here.
            let _ = changed.changed().await;
        }
    }

    fn open(self: &Arc<Self>, wanted: &Scope, table: &mut Table) -> Arc<FeedOwner> {
        let scope = self.place(wanted, table);
        let (owner, work) = Feed::open(scope.clone(), &self.context, self.cancel.child_token());
        table.feeds.insert(scope, Arc::downgrade(&owner));
        self.tasks.spawn_graceful(self.reading.track_future(work));
        let merge = Arc::clone(self).merge(Arc::downgrade(&owner), owner.feed());
        self.tasks.spawn(merge);
        owner
    }

    /// The scope to open for `wanted`: itself, or an ancestor where too many watches are open already.
    fn place(&self, wanted: &Scope, table: &Table) -> Scope {
        let backend = &self.context.backend;
        let running: Vec<_> =
            table.feeds.iter().filter(|(_, owner)| running(owner).is_some()).map(|(scope, _)| scope).collect();
        // Until a merge is done the wider watch is open beside the narrower ones: one is kept in reserve.
        let full = running.len() + 1 >= backend.bounds().max_watches.max(2);
        let mut scope = wanted.clone();
        while let Some(parent) = scope.parent() {
            let parent = backend.coarsen(&parent);
            if parent == scope {
                break;
            }
            let below = running.iter().filter(|held| parent.covers(held)).count();
            // One that runs and did not serve `wanted` is refused, though that has not been noted yet.
            let refused = table.refused.contains(&parent) || running.contains(&&parent);
            if (below >= SIBLINGS || (full && below > 0)) && !refused {
                return parent;
            }
            scope = parent;
        }
        wanted.clone()
    }
}
