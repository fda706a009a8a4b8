//! Which sessions may have something stored, and how is all of it withdrawn?

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use discovery_core::backend::Session;
use discovery_core::{Error, ErrorKind, Result};
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::watch;
use tokio::time::timeout;

/// How many sessions are closed at a time.
const AT_ONCE: usize = 64;

/// How long they may take together.
const FAREWELL: Duration = Duration::from_secs(30);

/// Those of all worlds.
#[derive(Default)]
pub(super) struct Sessions {
    open: Mutex<Open>,
    stopped: watch::Sender<bool>,
}

#[derive(Default)]
struct Open {
    count: u64,
    sessions: BTreeMap<(World, u64), Arc<dyn Session>>,
}

/// The number of a world.
pub(super) type World = u64;

/// Under which a session is kept.
pub(super) type Number = (World, u64);

impl Sessions {
    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that no world has had.
    pub(super) fn world(&self) -> World {
        let mut open = self.open();
        open.count += 1;
        open.count
    }

    /// Keeps a session, whoever else drops it, until it is closed or lost.
    pub(super) fn keep(&self, world: World, session: &Arc<dyn Session>) -> Number {
        let mut open = self.open();
        open.count += 1;
        let number = (world, open.count);
        open.sessions.insert(number, Arc::clone(session));
        number
    }

    /// Nothing of this one is stored any more, or nothing of it can be withdrawn.
    pub(super) fn forget(&self, number: Number) {
        self.open().sessions.remove(&number);
    }

    /// From now on nothing is written.
    pub(super) fn stop(&self) {
        self.stopped.send_replace(true);
    }

    /// Why nothing may be written, where that is so.
    pub(super) fn check(&self) -> Result<()> {
        if *self.stopped.borrow() { Err(stopped()) } else { Ok(()) }
    }

    /// Resolves once nothing may be written any more. Cancel-safe.
    pub(super) async fn stopped(&self) -> Error {
        // The sender lives in `self`.
        let _ = self.stopped.subscribe().wait_for(|stopped| *stopped).await;
        stopped()
    }

    async fn end(&self, number: Number, session: Arc<dyn Session>) -> Result<()> {
        let closed = session.close().await;
        self.forget(number);
        closed
    }

    /// Closes those of one world, or of all, which removes what they wrote. Cancelled, it goes on with the rest when it is
    /// called again.
    pub(super) async fn close(&self, world: Option<World>) -> Result<()> {
        let meant: Vec<_> = {
            let open = self.open();
            let meant = open.sessions.iter().filter(|((of, _), _)| world.is_none_or(|world| world == *of));
            meant.map(|(number, session)| (*number, Arc::clone(session))).collect()
        };
        let all = async {
            let closing: Vec<_> =
                meant.into_iter().map(|(number, session)| self.end(number, session).boxed()).collect();
            let mut closing = stream::iter(closing).buffer_unordered(AT_ONCE);
            let mut failure = None;
            while let Some(closed) = closing.next().await {
                // A lost one has nothing stored, or a later one has taken that over.
                failure = failure.or(closed.err().filter(|error| error.kind() != ErrorKind::SessionLost));
            }
            failure.map_or(Ok(()), Err)
        };
        let late = |_| Err(Error::new(ErrorKind::Timeout, format!("sessions were not closed within {FAREWELL:?}")));
        timeout(FAREWELL, all).await.unwrap_or_else(late)
    }
}

fn stopped() -> Error {
    Error::new(ErrorKind::Closed, "the run was stopped")
}
