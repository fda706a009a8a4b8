//! Wrappers that make any backend worse, to be put around one's own in one's own tests.
//!
//! [`Chaos`] injects failures by a seed and rates, [`Latency`] makes everything take longer. Each is a backend again,
//! keeps every other promise of the one inside, and declares bounds that count what it adds: code that keeps the
//! contract on the wrapped backend keeps it on the wrapper.

mod chaos;
mod held;
mod latency;
mod rates;

pub use chaos::Chaos;
pub use latency::{Distribution, Latency};
pub use rates::{Injected, Rates};

use std::sync::{Mutex, PoisonError};

/// A seeded generator that several calls share.
struct Dice(Mutex<fastrand::Rng>);

impl Dice {
    fn new(seed: u64) -> Self {
        Self(Mutex::new(fastrand::Rng::with_seed(seed)))
    }

    /// A number in `0.0..1.0`.
    fn roll(&self) -> f64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).f64()
    }

    /// A generator for one stream, so that what happens on the others does not change what happens on it.
    fn fork(&self) -> Self {
        Self(Mutex::new(self.0.lock().unwrap_or_else(PoisonError::into_inner).fork()))
    }
}
