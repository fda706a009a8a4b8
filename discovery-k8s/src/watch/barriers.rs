//! What open watches have to catch up with.
//!
//! A barrier is at most what the store holds when it is asked for, so whoever asks while one is under way has to wait for the
//! next. That one is for all who have asked by the time it begins, whoever they are: many at once are two of them.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use discovery_core::backend::Position;
use discovery_core::{Error, ErrorKind, Result};
use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture, Shared, WeakShared};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::progress;
use crate::reflector::{self, Mark};
use crate::source::{Census, Leg};

/// How often, and after what pause, it is counted again while a watch begins anew on a store that went back: for `R` together.
const BACK_TRIES: u32 = 40;
const BACK_PAUSE: Duration = Duration::from_millis(250);

/// One mark for each leg of an open watch.
pub(super) type Marks = Arc<[Arc<Mark>]>;

/// A census, and when it was asked for: it holds all that was so by then.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) census: Arc<Census>,
    pub(super) asked: Instant,
}

/// One of each leg.
pub(super) type Counted = Arc<[Taken]>;

/// Where barriers tell open watches what they have to catch up with.
#[derive(Clone)]
pub(crate) struct Barriers {
    /// The newest census of each leg: it holds the earlier ones.
    newest: watch::Sender<Option<Counted>>,
    /// The legs of open watches.
    open: Arc<Mutex<Vec<Open>>>,
    raised: Arc<Mutex<Raised>>,
}

/// The legs of one open watch.
type Open = Weak<[Arc<Mark>]>;
type Raising = BoxFuture<'static, Result<Position>>;

/// Those that somebody waits for.
#[derive(Default)]
struct Raised {
    under_way: Option<WeakShared<Raising>>,
    /// It begins when that one has ended.
    next: Option<WeakShared<Raising>>,
}

impl Raised {
    /// One that has not ended. Nobody waits any more for one that is gone.
    fn going(raising: Option<&WeakShared<Raising>>) -> Option<Shared<Raising>> {
        raising.and_then(WeakShared::upgrade).filter(|raising| raising.peek().is_none())
    }
}

impl Barriers {
    pub(crate) fn new() -> Self {
        Self { newest: watch::Sender::new(None), open: Arc::default(), raised: Arc::default() }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Option<Counted>> {
        self.newest.subscribe()
    }

    pub(super) fn marks(&self, legs: usize) -> Marks {
        let marks: Marks = (0..legs).map(|_| Arc::default()).collect();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|watch| watch.strong_count() > 0);
        open.push(Arc::downgrade(&marks));
        marks
    }

    pub(super) fn open(&self) -> Vec<(Marks, Vec<u64>)> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let versions = |marks: &[Arc<Mark>]| marks.iter().map(|mark| mark.version()).collect();
        open.iter().filter_map(Weak::upgrade).map(|marks| (Arc::clone(&marks), versions(&marks))).collect()
    }

    /// Asks for a census of each leg, after this call, and answers where a watch is that has caught up with it.
    pub(crate) async fn raise(&self, legs: &[Leg]) -> Result<Position> {
        self.raising(legs).await
    }

    /// One that begins after this call. It goes on for as long as somebody waits for it.
    fn raising(&self, legs: &[Leg]) -> Shared<Raising> {
        let mut raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(next) = Raised::going(raised.next.as_ref()) {
            return next;
        }
        let before = Raised::going(raised.under_way.as_ref());
        let is_next = before.is_some();
        let (barriers, legs) = (self.clone(), legs.to_vec());
        let raising = async move {
            if let Some(before) = before {
                let _: Result<_> = before.await;
                let mut raised = barriers.raised.lock().unwrap_or_else(PoisonError::into_inner);
                // Whoever comes from now on waits for another.
                raised.under_way = raised.next.take();
            }
            barriers.ask(&legs).await
        };
        let raising = raising.boxed().shared();
        let place = if is_next { &mut raised.next } else { &mut raised.under_way };
        *place = raising.downgrade();
        raising
    }

    /// A census below what a watch had seen before it was taken proves that the store went back: the watch looks further on
    /// than it is, and is waited for until it has begun anew.
    async fn ask(&self, legs: &[Leg]) -> Result<Position> {
        for again in 0..BACK_TRIES {
            let (open, asked) = (self.open(), Instant::now());
            let counted = future::try_join_all(legs.iter().map(|leg| reflector::count(&*leg.source)));
            let counted = counted.await?.into_iter().map(|census| Taken { census: Arc::new(census), asked });
            let counted: Counted = counted.collect();
            let seen = open.iter().flat_map(|(marks, seen)| marks.iter().zip(seen).zip(&*counted));
            // A type that is not there has no version.
            let back: Vec<_> = seen.filter(|((_, seen), taken)| (1..**seen).contains(&taken.census.version)).collect();
            if back.is_empty() {
                let position = progress::position(counted.iter().map(|taken| taken.census.version));
                self.newest.send_replace(Some(counted));
                return Ok(position);
            }
            if again == 0 {
                back.iter().for_each(|((mark, _), _)| mark.back.notify_one());
            }
            sleep(BACK_PAUSE).await;
        }
        let text = "the cluster's store went back to an earlier state: it is read anew, try again";
        Err(Error::new(ErrorKind::Unavailable, text))
    }
}
