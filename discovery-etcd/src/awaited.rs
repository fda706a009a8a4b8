//! How far is an open watch to come? As far as whoever asked for a barrier waits for, where the watch covers what that was
//! asked of: the others need not ask the server how far they are.

use std::future::poll_fn;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Poll;

use futures_util::task::AtomicWaker;

use crate::names::Range;

/// How far one open watch is to come. The watch looks at it with everything that it hears, which a watch channel makes
/// dear, and nobody else waits for it.
#[derive(Debug, Default)]
pub(crate) struct Target {
    revision: AtomicI64,
    watch: AtomicWaker,
}

impl Target {
    pub(crate) fn revision(&self) -> i64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Waits until it is another one than `known`. Cancel-safe. For one task at a time.
    pub(crate) async fn changed(&self, known: i64) -> i64 {
        poll_fn(|context| {
            // Before the look, so that a change in between wakes.
            self.watch.register(context.waker());
            let revision = self.revision();
            if revision == known { Poll::Pending } else { Poll::Ready(revision) }
        })
        .await
    }
}

/// The targets of the watches that are open.
#[derive(Debug, Default)]
pub(crate) struct Awaited(Mutex<Vec<(Range, Weak<Target>)>>);

impl Awaited {
    /// For a watch of this range: the newest revision that somebody waits for since this call.
    pub(crate) fn subscribe(&self, range: &Range) -> Arc<Target> {
        let target = Arc::<Target>::default();
        self.open().push((range.clone(), Arc::downgrade(&target)));
        target
    }

    /// Watches that cover `range` are to come to `revision`.
    pub(crate) fn expect(&self, range: &Range, revision: i64) {
        for target in
            self.open().iter().filter(|(watched, _)| watched.covers(range)).filter_map(|(_, held)| held.upgrade())
        {
            if target.revision.fetch_max(revision, Ordering::AcqRel) < revision {
                target.watch.wake();
            }
        }
    }

    /// What was awaited was a revision of a history that is gone.
    pub(crate) fn forget(&self) {
        for target in self.open().iter().filter_map(|(_, held)| held.upgrade()) {
            target.revision.store(0, Ordering::Release);
            target.watch.wake();
        }
    }

    /// Those of watches that are still open.
    fn open(&self) -> MutexGuard<'_, Vec<(Range, Weak<Target>)>> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(_, target)| target.strong_count() > 0);
        open
    }
}

#[cfg(test)]
mod tests {
    use discovery_core::Scope;

    use super::*;
    use crate::names::Names;

    #[test]
    fn a_watch_is_to_come_as_far_as_is_awaited_of_what_it_covers() {
        let range = |path: &[&str]| Names::new("").range(&Scope::new("endpoint", path).unwrap()).unwrap();
        let awaited = Awaited::default();
        let [wide, narrow, beside] = [&["a"][..], &["a", "b"], &["a", "c"]].map(|path| awaited.subscribe(&range(path)));
        let told = || [&wide, &narrow, &beside].map(|told| told.revision());
        awaited.expect(&range(&["a", "b"]), 7);
        assert_eq!(told(), [7, 7, 0]);
        awaited.expect(&range(&["a"]), 9);
        awaited.expect(&range(&["a", "b"]), 8);
        assert_eq!(told(), [9, 8, 0], "no watch is sent back");
        awaited.forget();
        assert_eq!(told(), [0, 0, 0]);
    }

    #[tokio::test]
    async fn a_watch_that_waits_is_woken() {
        let (awaited, everything) = (Awaited::default(), Names::new("").everything());
        let target = awaited.subscribe(&everything);
        let mut waiting = tokio::spawn(async move { target.changed(0).await });
        assert!(futures_util::poll!(&mut waiting).is_pending());
        tokio::task::yield_now().await;
        awaited.expect(&everything, 7);
        let woken = tokio::time::timeout(std::time::Duration::from_secs(10), waiting).await;
        assert_eq!(woken.expect("it is woken").unwrap(), 7);
    }

    #[test]
    fn a_watch_that_is_closed_is_forgotten() {
        let awaited = Awaited::default();
        let everything = Names::new("").everything();
        for _ in 0..100 {
            drop(awaited.subscribe(&everything));
        }
        assert_eq!(awaited.open().len(), 0);
    }
}
