//! A view as the stream of changes that `tower` balancers consume.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_util::Stream;
use tower::discover::Change;

use crate::changes::{Changes, ViewChange};
use crate::key::Key;
use crate::record::Registered;

/// The changes of a view as `tower` inserts and removals: see [`View::discover`](crate::View::discover).
pub struct Discover<T, F> {
    changes: Changes<T>,
    /// What is left of the newest batch.
    pending: VecDeque<ViewChange<T>>,
    connect: F,
}

impl<T, F> Discover<T, F> {
    pub(crate) fn new(changes: Changes<T>, connect: F) -> Self {
        Self { changes, pending: VecDeque::new(), connect }
    }
}

impl<T, S, F> Stream for Discover<T, F>
where
    T: Send + Sync + 'static,
    F: FnMut(&Registered<T>) -> S + Unpin,
{
    type Item = Result<Change<Key, S>, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(change) = this.pending.pop_front() {
                return Poll::Ready(Some(Ok(match change {
                    ViewChange::Added(record) | ViewChange::Updated { new: record, .. } => {
                        Change::Insert(record.key().clone(), (this.connect)(&record))
                    }
                    ViewChange::Removed(record) => Change::Remove(record.key().clone()),
                })));
            }
            match ready!(Pin::new(&mut this.changes).poll_next(context)) {
                Some(batch) => this.pending.extend(batch.into_changes()),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl<T, F> fmt::Debug for Discover<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Discover").field("changes", &self.changes).field("pending", &self.pending.len()).finish()
    }
}
