//! The changes of a view: the difference between what a stream saw last and what is there now.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use tokio::sync::futures::OwnedNotified;

use crate::freshness::Freshness;
use crate::key::Key;
use crate::record::Registered;
use crate::store::tree::{Diff, Tree};
use crate::view::{Snapshot, View};

/// One change of a view.
pub enum ViewChange<T> {
    /// The record was not in the view before.
    Added(Registered<T>),
    /// The record has another value.
    Updated {
        /// What it was.
        old: Registered<T>,
        /// What it is.
        new: Registered<T>,
    },
    /// The record left the view: its last known value.
    Removed(Registered<T>),
}

impl<T> ViewChange<T> {
    /// The key that changed.
    pub fn key(&self) -> &Key {
        self.record().key()
    }

    /// The record after the change; the last known one where it was removed.
    pub fn record(&self) -> &Registered<T> {
        match self {
            Self::Added(record) | Self::Updated { new: record, .. } | Self::Removed(record) => record,
        }
    }
}

impl<T> Clone for ViewChange<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Added(record) => Self::Added(record.clone()),
            Self::Updated { old, new } => Self::Updated { old: old.clone(), new: new.clone() },
            Self::Removed(record) => Self::Removed(record.clone()),
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for ViewChange<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Added(record) => f.debug_tuple("Added").field(record).finish(),
            Self::Updated { old, new } => f.debug_struct("Updated").field("old", old).field("new", new).finish(),
            Self::Removed(record) => f.debug_tuple("Removed").field(record).finish(),
        }
    }
}

/// What happened to a view since its stream's last batch.
#[derive(Clone)]
pub struct Batch<T> {
    changes: Vec<ViewChange<T>>,
    version: u64,
    freshness: Freshness,
    synced: bool,
    reset: bool,
}

impl<T> Batch<T> {
    /// The changes, ordered by key. Empty where only the freshness changed, or where the first state is empty.
    pub fn changes(&self) -> &[ViewChange<T>] {
        &self.changes
    }

    /// The changes, owned.
    pub fn into_changes(self) -> Vec<ViewChange<T>> {
        self.changes
    }

    /// The version that the batch leads to. A `load()` from now on is at least that version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether the view is current.
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// Whether this is the stream's first batch: with it, the fold is a state that the store had.
    pub fn is_synced(&self) -> bool {
        self.synced
    }

    /// Whether the consumer must drop what it had before it applies this batch. Only in
    /// [bounded](View::changes_bounded) streams.
    pub fn is_reset(&self) -> bool {
        self.reset
    }
}

impl<T: fmt::Debug> fmt::Debug for Batch<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("changes", &self.changes)
            .field("version", &self.version)
            .field("freshness", &self.freshness)
            .field("synced", &self.synced)
            .field("reset", &self.reset)
            .finish()
    }
}

/// The state that a stream saw last.
enum Base<T> {
    /// Kept for as long as the consumer takes.
    Kept(Tree<Registered<T>>),
    /// Dropped by the publisher once too much has changed.
    Bounded(Arc<BoundedBase<T>>),
}

/// A stream's base that the slot may drop: see [`View::changes_bounded`].
pub(crate) struct BoundedBase<T> {
    limit: usize,
    state: Mutex<(Option<Tree<Registered<T>>>, usize)>,
}

impl<T> BoundedBase<T> {
    /// Counts changes that the consumer has not seen. Answers the state that was dropped for it, to be freed.
    pub(crate) fn count(&self, changes: usize) -> Option<Tree<Registered<T>>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 = state.1.saturating_add(changes);
        if state.1 > self.limit { state.0.take() } else { None }
    }

    fn take(&self) -> Option<Tree<Registered<T>>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    fn set(&self, records: Tree<Registered<T>>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = (Some(records), 0);
    }
}

/// The streams of a slot that are bounded.
pub(crate) type BoundedBases<T> = Mutex<Vec<Weak<BoundedBase<T>>>>;

/// The changes of a view, without a queue: a stream keeps the state that it saw last, and its next batch is the
/// difference to the newest. A consumer that is slow gets fewer, larger batches with the newest values.
///
/// It is a [`Stream`] too. It ends when the handle is shut down or the query cannot be answered, and not for failures
/// of the transport.
pub struct Changes<T> {
    view: View<T>,
    /// Ready once there is something that was not there when the state was last read. One allocation for all waits.
    news: Pin<Box<OwnedNotified>>,
    /// Whether the state was read since `news` was made, so that there is nothing to tell before it is ready.
    told: bool,
    base: Base<T>,
    synced: bool,
    freshness: Freshness,
}

impl<T: Send + Sync + 'static> Changes<T> {
    pub(crate) fn new(view: View<T>, limit: Option<usize>) -> Self {
        let base = match limit {
            None => Base::Kept(Tree::new()),
            Some(limit) => {
                let bounded = Arc::new(BoundedBase { limit, state: Mutex::new((Some(Tree::new()), 0)) });
                view.slot.add_bounded(&bounded);
                Base::Bounded(bounded)
            }
        };
        // The first call looks at what there is, whatever is new.
        let news = Box::pin(view.slot.news_owned());
        Self { view, news, told: false, base, synced: false, freshness: Freshness::Syncing }
    }

    /// The view that this stream follows.
    pub fn view(&self) -> &View<T> {
        &self.view
    }

    /// The next batch, once there is one; `None` once the view has ended. Cancel-safe: what a dropped call would have
    /// answered is in the next one's batch.
    pub async fn next(&mut self) -> Option<Batch<T>> {
        std::future::poll_fn(|context| self.poll_batch(context)).await
    }

    fn poll_batch(&mut self, context: &mut Context<'_>) -> Poll<Option<Batch<T>>> {
        loop {
            if self.told {
                ready!(self.news.as_mut().poll(context));
            }
            // Made anew before the state is read, so that a change in between wakes again.
            self.news.set(self.view.slot.news_owned());
            // Where a predicate of the consumer's panics, the next call looks again.
            self.told = false;
            let batch = self.difference();
            // The end is told by the call after the last batch, and by every one from then on.
            self.told = self.view.slot.ended().is_none();
            if batch.is_some() || !self.told {
                return Poll::Ready(batch);
            }
        }
    }

    /// What is new since the last batch, if anything is.
    fn difference(&mut self) -> Option<Batch<T>> {
        // Read before the state: a set that is live now is at least as new as this says.
        let freshness = self.view.slot.freshness();
        let newest = self.view.load();
        if !newest.is_synced() {
            return None;
        }
        let (base, reset) = match &self.base {
            Base::Kept(base) => (base.clone(), false),
            Base::Bounded(bounded) => match bounded.take() {
                Some(base) => (base, false),
                None => (Tree::new(), true),
            },
        };
        let changes = difference(&base, &newest, &self.view);
        let first = !self.synced;
        // A stream that ends says so by ending.
        let fresh_news = !freshness.same_news(&self.freshness) && self.view.slot.ended().is_none();
        let news = first || reset || !changes.is_empty() || fresh_news;
        match &mut self.base {
            Base::Kept(base) => *base = newest.records().clone(),
            Base::Bounded(bounded) => bounded.set(newest.records().clone()),
        }
        if !news {
            return None;
        }
        self.synced = true;
        self.freshness = freshness.clone();
        Some(Batch { changes, version: newest.version(), freshness, synced: first, reset })
    }
}

fn difference<T: Send + Sync + 'static>(
    base: &Tree<Registered<T>>,
    newest: &Snapshot<T>,
    view: &View<T>,
) -> Vec<ViewChange<T>> {
    let mut changes = Vec::new();
    let admits = |record: &Registered<T>| view.filter.admits(record);
    let tell = |diff: Diff<'_, Registered<T>>| match diff {
        Diff::Added(new) => {
            if admits(new) {
                changes.push(ViewChange::Added(new.clone()));
            }
        }
        Diff::Removed(old) => {
            if admits(old) {
                changes.push(ViewChange::Removed(old.clone()));
            }
        }
        Diff::Changed(old, new) => {
            let same_incarnation = old.entry().incarnation == new.entry().incarnation;
            // The value may have gone and come back between two batches.
            if same_incarnation && old.stored() == new.stored() {
                return;
            }
            match (admits(old), admits(new)) {
                (true, true) if same_incarnation => {
                    changes.push(ViewChange::Updated { old: old.clone(), new: new.clone() });
                }
                (was, is) => {
                    if was {
                        changes.push(ViewChange::Removed(old.clone()));
                    }
                    if is {
                        changes.push(ViewChange::Added(new.clone()));
                    }
                }
            }
        }
    };
    match newest.step().filter(|step| step.leads_on_from(base)) {
        Some(step) => step.change().into_iter().for_each(tell),
        None => Tree::diff(base, newest.records(), Registered::is_same, tell),
    }
    changes
}

impl<T: Send + Sync + 'static> Stream for Changes<T> {
    type Item = Batch<T>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Batch<T>>> {
        self.get_mut().poll_batch(context)
    }
}

impl<T> Unpin for Changes<T> {}

impl<T> fmt::Debug for Changes<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").field("synced", &self.synced).field("freshness", &self.freshness).finish()
    }
}
