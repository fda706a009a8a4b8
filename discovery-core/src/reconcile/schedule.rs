//! When what is stored is read again.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;

/// A read in each R, sooner by a tenth or two: what was taken away right after one is found and put back within R
/// (LIV 5), and owners that started together do not go on reading together. Counted from when a read was sent, not from
/// when its answer came. A publish is no read: it proves what it wrote, and nothing of the owner's other records.
pub(super) struct Schedule {
    recovery: Duration,
    /// The delays after reads that failed.
    backoff: Backoff,
    at: Instant,
    /// When the newest read was sent.
    sent: Instant,
    random: fastrand::Rng,
}

impl Schedule {
    /// For a session that is open: what its records are is known from now on. `patience` is the longest pause after a
    /// read that failed.
    pub(super) fn new(recovery: Duration, patience: Duration, seed: u64) -> Self {
        let (now, mut random) = (Instant::now(), fastrand::Rng::with_seed(seed));
        let at = now + period(recovery, &mut random);
        Self { recovery, backoff: Backoff::seeded(patience, seed), at, sent: now, random }
    }

    /// When the next read is due.
    pub(super) fn at(&self) -> Instant {
        self.at
    }

    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.at
    }

    /// A read is needed at once.
    pub(super) fn now(&mut self) {
        self.at = Instant::now();
    }

    /// Somebody needs a read by then, unless one was sent since.
    pub(super) fn by(&mut self, by: Instant) {
        if by > self.sent {
            self.at = self.at.min(by);
        }
    }

    pub(super) fn done(&mut self, sent: Instant) {
        self.sent = sent;
        self.backoff.reset();
        // A store whose answers take that long is not asked without a pause.
        self.at = (sent + period(self.recovery, &mut self.random)).max(Instant::now() + self.recovery / 10);
    }

    /// What a read that failed was to find is still to be found within R.
    pub(super) fn failed(&mut self, sent: Instant) {
        self.sent = sent;
        self.at = Instant::now() + self.backoff.next();
    }
}

/// Between eight and nine tenths of R.
fn period(recovery: Duration, random: &mut fastrand::Rng) -> Duration {
    let tenth = recovery / 10;
    (recovery - tenth - tenth.mul_f64(random.f64())).max(Duration::from_millis(100))
}
