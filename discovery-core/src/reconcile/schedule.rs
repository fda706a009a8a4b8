//! When what is stored is read again.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::Backoff;

/// What a session that is open takes for a repair before it knows better, as a part of R, and how much sooner each read may
/// come by chance.
const LEAST: u32 = 50;
/// The most that a repair counts for, as a part of R: a store that is slower than this is not asked more often for it.
const MOST: u32 = 5;

/// One read in each R, sooner by what a repair takes: what was taken away right after a read is found by the next one, and is
/// put back before R is over (LIV 5). So it cannot be less than one, and is more by that part of R alone. A repair takes a read
/// that finds it, one more, and a write, none of which is quicker than those of late were. The time is counted from when a read
/// was sent, not from when its answer came. A publish is no read: it proves what it wrote, and nothing of the owner's other
/// records.
///
/// Who begins together does not go on reading together: the first read, and the first after reads that failed, come at any
/// moment of their R.
pub(super) struct Schedule {
    recovery: Duration,
    /// The delays after reads that failed.
    backoff: Backoff,
    at: Instant,
    /// When the newest read was sent.
    sent: Instant,
    /// Whether it failed.
    failed: bool,
    /// How long reads and writes take.
    read: Duration,
    write: Duration,
    random: fastrand::Rng,
}

impl Schedule {
    /// For a session that is open: what its records are is known from now on. `patience` is the longest pause after a
    /// read that failed.
    pub(super) fn new(recovery: Duration, patience: Duration, seed: u64) -> Self {
        let now = Instant::now();
        let mut schedule = Self {
            recovery,
            backoff: Backoff::seeded(patience, seed),
            at: now,
            sent: now,
            failed: false,
            read: Duration::ZERO,
            write: Duration::ZERO,
            random: fastrand::Rng::with_seed(seed),
        };
        schedule.at = now + schedule.part_of_period();
        schedule
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

    /// The session wants a read at that moment at the latest, unless one was sent since.
    pub(super) fn wanted_by(&mut self, by: Option<Instant>) {
        if let Some(by) = by.filter(|by| *by > self.sent) {
            self.at = self.at.min(by);
        }
    }

    pub(super) fn done(&mut self, sent: Instant) {
        self.sent = sent;
        self.backoff.reset();
        self.read = slowest(self.read, sent.elapsed());
        let next = sent + if std::mem::take(&mut self.failed) { self.part_of_period() } else { self.period() };
        let now = Instant::now();
        // A store whose answers take that long is not asked without a pause. Those that it kept waiting were answered together.
        self.at = if next < now + self.pause() { now + self.part_of_period() } else { next };
    }

    /// What a read that failed was to find is still to be found within R.
    pub(super) fn failed(&mut self, sent: Instant) {
        (self.sent, self.failed) = (sent, true);
        self.at = Instant::now() + self.backoff.next();
    }

    /// A write has taken this long.
    pub(super) fn wrote(&mut self, took: Duration) {
        self.write = slowest(self.write, took);
    }

    /// What is found by a read that is sent now is put back in this time.
    fn repair(&self) -> Duration {
        let measured = (self.read + self.write.max(self.read)) * 2;
        measured.clamp(self.recovery / LEAST, self.recovery / MOST)
    }

    fn period(&mut self) -> Duration {
        let sooner = (self.recovery / LEAST).mul_f64(self.random.f64());
        (self.recovery - self.repair() - sooner).max(Duration::from_millis(100))
    }

    /// What is left of a period at a moment that chance decides, but for the pause.
    fn part_of_period(&mut self) -> Duration {
        let pause = self.pause();
        pause + self.period().saturating_sub(pause).mul_f64(self.random.f64())
    }

    fn pause(&self) -> Duration {
        self.recovery / 10
    }
}

/// The slowest of late: each is forgotten by an eighth with every one of its kind that follows.
fn slowest(known: Duration, took: Duration) -> Duration {
    took.max(known - known / 8)
}

#[cfg(test)]
mod tests {
    use tokio::time::{advance, sleep_until};

    use super::*;

    const R: Duration = Duration::from_secs(10);

    fn schedule(seed: u64) -> Schedule {
        Schedule::new(R, R / 2, seed)
    }

    /// When each of so many reads was sent, of which every one took `took`.
    async fn reads(schedule: &mut Schedule, count: usize, took: Duration) -> Vec<Instant> {
        let mut all = Vec::new();
        for _ in 0..count {
            sleep_until(schedule.at()).await;
            let sent = Instant::now();
            all.push(sent);
            advance(took).await;
            schedule.done(sent);
        }
        all
    }

    fn gaps(reads: &[Instant]) -> Vec<Duration> {
        reads.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_answers_is_read_once_in_each_r_and_in_time_for_a_repair() {
        for milliseconds in [0, 5, 50] {
            let took = Duration::from_millis(milliseconds);
            let mut schedule = schedule(milliseconds);
            schedule.wrote(took);
            let gaps = gaps(&reads(&mut schedule, 200, took).await);
            let repair = took * 3;
            assert!(gaps.iter().all(|gap| *gap + repair <= R), "{took:?}: {gaps:?}");
            let average = gaps.iter().sum::<Duration>() / 199;
            assert!(average >= R.div_f64(1.05), "{took:?}: one in {average:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_is_slow_is_read_sooner_and_no_more_often_than_that_takes() {
        for (read, write) in [(300, 10), (10, 600), (400, 400), (3000, 3000)] {
            let (read, write) = (Duration::from_millis(read), Duration::from_millis(write));
            let mut schedule = schedule(1);
            let first = reads(&mut schedule, 1, read).await[0];
            schedule.wrote(write);
            let second = reads(&mut schedule, 1, read).await[0];
            reads(&mut schedule, 1, read).await;
            let gap = schedule.at() - schedule.sent;
            assert!(gap >= R.mul_f64(0.78) && second - first >= R.mul_f64(0.78), "{read:?}, {write:?}: {gap:?}");
            let repair = (read * 2 + write).min(R / MOST);
            assert!(gap + repair <= R, "{read:?}, {write:?}: {gap:?}");
        }
        // What was slow once is forgotten by those that follow.
        let mut schedule = schedule(1);
        schedule.wrote(R);
        let first = gaps(&reads(&mut schedule, 2, Duration::from_millis(5)).await);
        (0..60).for_each(|_| schedule.wrote(Duration::from_millis(5)));
        let later = gaps(&reads(&mut schedule, 3, Duration::from_millis(5)).await);
        assert!(first[0] < R.mul_f64(0.81) && later[1] > R.mul_f64(0.95), "{first:?}, then {later:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_write_takes_is_not_forgotten_for_want_of_writes() {
        let (read, write) = (Duration::from_millis(10), Duration::from_millis(300));
        let mut schedule = schedule(1);
        schedule.wrote(write);
        let gaps = gaps(&reads(&mut schedule, 100, read).await);
        assert!(gaps.iter().all(|gap| *gap + read * 2 + write <= R), "{gaps:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn those_that_were_held_up_together_do_not_go_on_together() {
        let mut fleet: Vec<_> = (0..1000).map(schedule).collect();
        let sent = Instant::now();
        // All reads are answered at once when nearly all of R is over.
        advance(R.mul_f64(0.95)).await;
        let answered = Instant::now();
        fleet.iter_mut().for_each(|schedule| schedule.done(sent));
        let next = fullest(fleet.iter().map(|schedule| schedule.at() - answered));
        assert!(next < 160, "{next} of 1000 in a tenth of R");
    }

    /// How many of a fleet's reads fall into the fullest tenth of an R.
    fn fullest(reads: impl Iterator<Item = Duration>) -> usize {
        let mut tenths = [0; 20];
        reads.for_each(|read| tenths[(read.as_secs_f64() / R.as_secs_f64() * 10.0) as usize] += 1);
        tenths.into_iter().max().unwrap_or_default()
    }

    #[tokio::test(start_paused = true)]
    async fn a_fleet_that_begins_together_does_not_read_together() {
        let began = Instant::now();
        let mut fleet: Vec<_> = (0..1000).map(schedule).collect();
        let first = fullest(fleet.iter().map(|schedule| schedule.at() - began));
        assert!(first < 160, "{first} of 1000 in a tenth of R");
        // Nor after an outage, which all of them have met at the same moment.
        for schedule in &mut fleet {
            schedule.failed(began);
            schedule.done(began);
        }
        let after = fullest(fleet.iter().map(|schedule| schedule.at() - began));
        assert!(after < 160, "{after} of 1000 in a tenth of R");
    }
}
