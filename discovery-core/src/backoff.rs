//! Delays between tries: exponential, capped, jittered.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// Grows with every failure and starts over only on proof of progress. For backends too whose watches mend themselves.
#[derive(Debug)]
pub struct Backoff {
    builder: ExponentialBuilder,
    delays: ExponentialBackoff,
    cap: Duration,
}

impl Backoff {
    /// From 20 ms, doubling, up to `cap`, each with jitter of up to itself on top: what starts together in many processes
    /// does not go on together.
    pub fn new(cap: Duration) -> Self {
        Self::seeded(cap, fastrand::u64(..))
    }

    /// The same, with the jitter that this seed decides.
    pub(crate) fn seeded(cap: Duration, seed: u64) -> Self {
        // The jitter adds up to one delay again, so half the cap keeps the sum below it.
        let builder = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(20).min(cap / 2))
            .with_max_delay(cap / 2)
            .with_factor(2.0)
            .with_jitter()
            .with_jitter_seed(seed)
            .without_max_times();
        Self { builder, delays: builder.build(), cap }
    }

    /// How long to wait before the next try.
    #[expect(clippy::should_implement_trait, reason = "delays never end, and each is asked for after a failure")]
    pub fn next(&mut self) -> Duration {
        self.delays.next().unwrap_or(self.cap).min(self.cap)
    }

    /// Starts over: the store was seen to make progress.
    pub fn reset(&mut self) {
        self.delays = self.builder.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_cap_and_starts_over() {
        let cap = Duration::from_secs(2);
        let mut backoff = Backoff::new(cap);
        let first = backoff.next();
        assert!(first <= Duration::from_millis(40), "{first:?}");
        let later: Vec<_> = (0..20).map(|_| backoff.next()).collect();
        assert!(later.iter().all(|delay| *delay <= cap), "{later:?}");
        assert!(later[10..].iter().all(|delay| *delay >= cap / 2), "{later:?}");
        backoff.reset();
        assert!(backoff.next() <= Duration::from_millis(40));
    }

    #[test]
    fn what_starts_together_does_not_go_on_together() {
        let delays = |seed| {
            let mut backoff = Backoff::seeded(Duration::from_secs(2), seed);
            (0..10).map(|_| backoff.next()).collect::<Vec<_>>()
        };
        assert_eq!(delays(1), delays(1));
        assert!(delays(1).iter().zip(delays(2)).all(|(one, other)| *one != other), "{:?} {:?}", delays(1), delays(2));
    }
}
