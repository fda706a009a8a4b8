//! How far is a feed? Told with every change by its task, and waited for by few.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::closed;
use crate::backend::Position;
use crate::error::Result;

/// How far a feed is.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    pub(super) position: Option<Position>,
    /// The number of the newest opening whose snapshot is complete.
    pub(super) snapshot_of: u64,
}

#[derive(Default)]
struct State {
    progress: Progress,
    over: bool,
}

/// A watch channel would look at eight lists of waiting tasks for each change, where mostly there is none.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    news: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task's side. The feed is over when it is dropped.
pub(super) struct Teller(Arc<Shared>);

/// The side of whoever waits.
#[derive(Clone)]
pub(super) struct Follower(Arc<Shared>);

pub(super) fn progress() -> (Teller, Follower) {
    let shared = Arc::<Shared>::default();
    (Teller(Arc::clone(&shared)), Follower(shared))
}

impl Teller {
    pub(super) fn tell(&self, position: &Option<Position>, snapshot_of: u64) {
        let mut state = self.0.lock();
        state.progress.position.clone_from(position);
        state.progress.snapshot_of = snapshot_of;
        drop(state);
        self.0.news.notify_waiters();
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.news.notify_waiters();
    }
}

impl Follower {
    /// Waits until the feed is as far as `there` says. Cancel-safe.
    ///
    /// # Errors
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed) where the feed ends before.
    pub(super) async fn wait_for(&self, there: impl Fn(&Progress) -> bool) -> Result<()> {
        loop {
            // Before the state is read, so that what is told in between wakes.
            let news = self.0.news.notified();
            {
                let state = self.0.lock();
                if there(&state.progress) {
                    return Ok(());
                }
                if state.over {
                    return Err(closed());
                }
            }
            news.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn whoever_waits_hears_of_what_it_waits_for_and_of_the_end() {
        let (teller, follower) = progress();
        let at = |number: u64| {
            let follower = follower.clone();
            async move {
                let position = Position::from_u64(number);
                follower.wait_for(|progress| progress.position.as_ref() == Some(&position)).await
            }
        };
        let (mut second, mut never) = (Box::pin(at(2)), Box::pin(at(9)));
        for number in 0..2 {
            assert!(second.as_mut().now_or_never().is_none() && never.as_mut().now_or_never().is_none());
            teller.tell(&Some(Position::from_u64(number)), 1);
        }
        teller.tell(&Some(Position::from_u64(2)), 1);
        assert!(matches!(second.now_or_never(), Some(Ok(()))));
        assert!(never.as_mut().now_or_never().is_none());
        drop(teller);
        assert!(matches!(never.now_or_never(), Some(Err(_))));
        assert!(matches!(at(2).now_or_never(), Some(Ok(()))), "it was as far");
    }
}
