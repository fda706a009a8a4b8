//! How often chaos strikes, and how often it has.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often [`Chaos`](super::Chaos) does what: probabilities from 0 to 1, each for one call or one event.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Rates {
    /// A call fails before it reaches the store: `Unavailable`, without effect.
    pub fail: f64,
    /// A call reaches the store and its answer is lost: `Unavailable`, of unknown effect where it writes.
    pub lose_answer: f64,
    /// A stream ends before an event, half of the times with an error. What it had not delivered is lost.
    pub cut: f64,
    /// A stream says `Interrupted` before an event, and `Recovered` after [`Rates::delay_by`].
    pub interrupt: f64,
    /// A batch comes twice in a row.
    pub duplicate: f64,
    /// An event comes late, and those behind it with it.
    pub delay: f64,
    /// How late at most. Not more than a quarter of the silence that the backend inside declares.
    pub delay_by: Duration,
    /// A renewal or a check ends the session: its records are removed and the session says that it is lost.
    pub lose_session: f64,
}

impl Default for Rates {
    /// A rough day: two calls in a hundred fail, two lose their answer, one event in a hundred ends its stream.
    fn default() -> Self {
        Self {
            fail: 0.02,
            lose_answer: 0.02,
            cut: 0.01,
            interrupt: 0.01,
            duplicate: 0.05,
            delay: 0.1,
            delay_by: Duration::from_millis(20),
            lose_session: 0.002,
        }
    }
}

impl Rates {
    /// Nothing at all.
    pub fn none() -> Self {
        Self {
            fail: 0.0,
            lose_answer: 0.0,
            cut: 0.0,
            interrupt: 0.0,
            duplicate: 0.0,
            delay: 0.0,
            delay_by: Duration::ZERO,
            lose_session: 0.0,
        }
    }

    /// Sets [`Rates::fail`] and [`Rates::lose_answer`].
    pub fn calls(mut self, fail: f64, lose_answer: f64) -> Self {
        (self.fail, self.lose_answer) = (fail, lose_answer);
        self
    }

    /// Sets [`Rates::cut`], [`Rates::interrupt`] and [`Rates::duplicate`].
    pub fn streams(mut self, cut: f64, interrupt: f64, duplicate: f64) -> Self {
        (self.cut, self.interrupt, self.duplicate) = (cut, interrupt, duplicate);
        self
    }

    /// Sets [`Rates::delay`] and [`Rates::delay_by`].
    pub fn delays(mut self, delay: f64, by: Duration) -> Self {
        (self.delay, self.delay_by) = (delay, by);
        self
    }

    /// Sets [`Rates::lose_session`].
    pub fn sessions(mut self, lose: f64) -> Self {
        self.lose_session = lose;
        self
    }
}

/// How often each thing was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Injected {
    /// Calls that failed before they reached the store.
    pub failed: u64,
    /// Calls whose answer was lost.
    pub lost_answers: u64,
    /// Streams that ended.
    pub cut: u64,
    /// Streams that were interrupted and recovered.
    pub interrupted: u64,
    /// Batches that came twice.
    pub duplicated: u64,
    /// Events that came late.
    pub delayed: u64,
    /// Sessions that were ended.
    pub lost_sessions: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) failed: AtomicU64,
    pub(super) lost_answers: AtomicU64,
    pub(super) cut: AtomicU64,
    pub(super) interrupted: AtomicU64,
    pub(super) duplicated: AtomicU64,
    pub(super) delayed: AtomicU64,
    pub(super) lost_sessions: AtomicU64,
}

impl Counts {
    pub(super) fn read(&self) -> Injected {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Injected {
            failed: read(&self.failed),
            lost_answers: read(&self.lost_answers),
            cut: read(&self.cut),
            interrupted: read(&self.interrupted),
            duplicated: read(&self.duplicated),
            delayed: read(&self.delayed),
            lost_sessions: read(&self.lost_sessions),
        }
    }
}
