//! Which watches a handle holds open: one for each scope in use, merged upward where there are many.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::{Command, Feed, FeedOwner, FeedSettings, Released};
use crate::backend::Backend;
use crate::error::{Error, ErrorKind, Result};
use crate::executor::TaskScope;
use crate::query::Scope;
use crate::store::{AnySlot, Decode, Slot};

/// How many watches may stand below one parent before the parent is watched instead.
const SIBLINGS: usize = 16;

/// How long a merge waits before it asks an unreachable store again.
const NUDGE: Duration = Duration::from_millis(50);

pub(crate) struct Scopes {
    backend: Arc<dyn Backend>,
    tasks: TaskScope,
    settings: FeedSettings,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    open: BTreeMap<Scope, Weak<FeedOwner>>,
    /// Narrower feeds that a merge has not closed yet: they still hold a watch each.
    retiring: Vec<Weak<FeedOwner>>,
}

impl Scopes {
    pub(crate) fn new(backend: Arc<dyn Backend>, tasks: TaskScope, settings: FeedSettings) -> Self {
        Self { backend, tasks, settings, table: Mutex::default() }
    }

    /// The slot of this type and scope: one that is open already, or a new one in the watch that covers it.
    pub(crate) async fn slot<T: Send + Sync + 'static>(
        self: &Arc<Self>,
        scope: &Scope,
        decode: Decode<T>,
    ) -> Result<Arc<Slot<T>>> {
        let wanted = self.backend.coarsen(scope);
        // A feed can be released to a wider one between finding and asking it; the wider one is found then.
        loop {
            let owner = self.feed_for(&wanted);
            let slot: Arc<dyn AnySlot> = Arc::new(Slot::<T>::new(scope.clone(), decode));
            let feed = owner.feed();
            let attach = |reply| Command::Attach { type_id: TypeId::of::<T>(), slot, owner, reply };
            match feed.ask(attach).await {
                Some(found) => {
                    return found
                        .downcast::<Slot<T>>()
                        .map_err(|_| Error::new(ErrorKind::Internal, "a view of another type: please report it"));
                }
                None => self.forget(&feed),
            }
            if self.tasks.is_closed() {
                return Err(Error::new(ErrorKind::Closed, "this discovery handle was shut down: build a new one"));
            }
        }
    }

    /// The open feed that covers `scope`, if there is one.
    pub(crate) fn covering(&self, scope: &Scope) -> Option<Arc<FeedOwner>> {
        let table = self.table();
        table.open.iter().filter(|(held, _)| held.covers(scope)).find_map(|(_, owner)| owner.upgrade())
    }

    /// The open feeds inside `scope`.
    pub(crate) fn inside(&self, scope: &Scope) -> Vec<Arc<FeedOwner>> {
        let table = self.table();
        table.open.iter().filter(|(held, _)| scope.covers(held)).filter_map(|(_, owner)| owner.upgrade()).collect()
    }

    fn forget(&self, feed: &Arc<Feed>) {
        let mut table = self.table();
        let ended = |owner: &Weak<FeedOwner>| owner.upgrade().is_none_or(|owner| Arc::ptr_eq(&owner.feed, feed));
        if table.open.get(&feed.scope).is_some_and(ended) {
            table.open.remove(&feed.scope);
        }
    }

    /// Finds or opens the feed for `wanted`. Merges where `wanted` would be one watch too many.
    fn feed_for(self: &Arc<Self>, wanted: &Scope) -> Arc<FeedOwner> {
        let mut guard = self.table();
        let table = &mut *guard;
        table.open.retain(|_, owner| owner.strong_count() > 0);
        table.retiring.retain(|owner| owner.strong_count() > 0);
        // The map is ordered, a covering scope is a prefix: the widest comes first.
        let mut covering = table.open.iter().filter(|(held, _)| held.covers(wanted));
        if let Some(owner) = covering.find_map(|(_, owner)| owner.upgrade()) {
            return owner;
        }
        let scope = self.place(wanted, table);
        let owner = Feed::open(scope.clone(), Arc::clone(&self.backend), &self.tasks, self.settings);
        let inside = table.open.iter().filter(|(held, _)| scope.covers(held));
        let narrower: Vec<_> = inside.filter_map(|(_, owner)| owner.upgrade()).collect();
        table.open.retain(|held, _| !scope.covers(held));
        table.retiring.extend(narrower.iter().map(Arc::downgrade));
        table.open.insert(scope, Arc::downgrade(&owner));
        drop(guard);
        if !narrower.is_empty() {
            self.tasks.spawn(Arc::clone(self).merge(Arc::clone(&owner), narrower));
        }
        owner
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The scope to open for `wanted`: itself, or an ancestor where too many watches are open already.
    fn place(&self, wanted: &Scope, table: &Table) -> Scope {
        // While a merge is under way the wider watch is open beside the narrower ones: one is kept in reserve.
        let held = table.open.len() + table.retiring.len();
        let full = held + 1 >= self.backend.bounds().max_watches.max(2);
        let mut scope = wanted.clone();
        while let Some(parent) = scope.parent() {
            let parent = self.backend.coarsen(&parent);
            let below = table.open.keys().filter(|held| parent.covers(held)).count();
            if below >= SIBLINGS || (full && below > 0) {
                return parent;
            }
            if parent == scope {
                break;
            }
            scope = parent;
        }
        wanted.clone()
    }

    /// Moves the slots of narrower feeds to a wider one, which catches up with each before it shows anything.
    async fn merge(self: Arc<Self>, wide: Arc<FeedOwner>, narrower: Vec<Arc<FeedOwner>>) {
        let mut progress = wide.feed_ref().progress.subscribe();
        if progress.wait_for(|progress| progress.position.is_some()).await.is_err() {
            return;
        }
        drop(wide);
        for narrow in narrower {
            let scope = narrow.feed_ref().scope.clone();
            let Some(released) = narrow.feed_ref().ask(|reply| Command::Release { reply }).await else { continue };
            drop(narrow);
            // The wider feed may itself be released to a still wider one meanwhile.
            while !self.tasks.is_closed() && !self.hand_over(&scope, released.clone()).await {}
        }
    }

    /// Answers whether the feed that covers `scope` now has the slots.
    async fn hand_over(self: &Arc<Self>, scope: &Scope, released: Released) -> bool {
        let owner = self.feed_for(scope);
        let feed = owner.feed();
        // Nothing need change in the store for the wider feed to get where the narrower one was: ask for a barrier
        // until it has.
        let nudge = async {
            while feed.catch_up().await.is_err() {
                tokio::time::sleep(NUDGE).await;
            }
            std::future::pending::<()>().await;
        };
        let adopted = feed.ask(|reply| Command::Adopt { released, owner, reply });
        let done = tokio::select! {
            adopted = adopted => adopted.is_some(),
            () = nudge => false,
        };
        if !done {
            self.forget(&feed);
        }
        done
    }
}
