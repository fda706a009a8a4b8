//! The randomised run: random operations and faults, everything that every client saw, and one validator for each
//! statement that a history can show.
//!
//! A run is made of rounds. In each, owners register, update and withdraw, watchers open and close views, read slowly,
//! load and list, and faults strike that the world offers. At a round's end everything is healed, and every list, fold
//! and load must come to what the owners want stored, within the bound of recovery times the factory's patience (plus
//! the time to live, where an owner died). Afterwards the validators ([`statements`]) read the history.
//!
//! What is known of a write is what its caller knows: one that was not acknowledged may have happened or not. Values
//! are never written twice, so what a reader sees says which write it comes from.
//!
//! The seed decides what each client does, and which fault strikes when, whatever the backend answers. With tokio's clock
//! paused nearly all else follows from it: what does not is the order in which things happen that happen at one
//! instant. Tokio and the hash maps of the standard library draw that from generators of their own, so two runs of one
//! seed can differ in a few observations of the same story.

mod checkpoint;
mod evidence;
mod faults;
mod log;
mod owner;
mod run;
mod soak;
mod validators;
mod watcher;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use discovery_core::backend::Backend;

pub use run::run;
pub use soak::{Soak, Soaked, Until, soak};
pub use validators::{UNSEEN, statements};

use crate::world::Hook;

/// The variable that sets the seed.
pub const SEED_VARIABLE: &str = "DYN_DISCOVERY_CONFORMANCE_SEED";

/// The variable that sets for how many seconds runs go on, each with the seed after the one before.
pub const SECONDS_VARIABLE: &str = "DYN_DISCOVERY_CONFORMANCE_SECONDS";

/// Puts something around the backend of the n-th owner.
pub type Wrap = Arc<dyn Fn(usize, Arc<dyn Backend>) -> Arc<dyn Backend> + Send + Sync>;

/// What a run is made of.
#[derive(Clone)]
#[non_exhaustive]
pub struct Config {
    /// Decides everything that is random.
    pub seed: u64,
    /// How many rounds, each with a checkpoint at its end.
    pub rounds: usize,
    /// How many operations the owners do in one round, all together.
    pub operations: usize,
    /// How many handles register.
    pub owners: usize,
    /// How many handles watch.
    pub watchers: usize,
    /// Which faults may strike, among those that the world offers.
    pub faults: Option<Vec<Hook>>,
    /// What is put around each backend.
    pub wrap: Option<Wrap>,
    /// What the observers get wrong, to prove that the validators notice.
    pub spoil: Option<Spoil>,
}

impl Config {
    /// Six rounds of 400 operations, by three owners and three watchers, with every fault that the world offers.
    pub fn new(seed: u64) -> Self {
        Self { seed, rounds: 6, operations: 400, owners: 3, watchers: 3, faults: None, wrap: None, spoil: None }
    }

    /// With so many rounds.
    pub fn rounds(mut self, rounds: usize) -> Self {
        self.rounds = rounds;
        self
    }

    /// With so many operations in a round.
    pub fn operations(mut self, operations: usize) -> Self {
        self.operations = operations;
        self
    }

    /// With these faults alone.
    pub fn faults(mut self, faults: impl IntoIterator<Item = Hook>) -> Self {
        self.faults = Some(faults.into_iter().collect());
        self
    }

    /// With something around each backend.
    pub fn wrap(mut self, wrap: impl Fn(usize, Arc<dyn Backend>) -> Arc<dyn Backend> + Send + Sync + 'static) -> Self {
        self.wrap = Some(Arc::new(wrap));
        self
    }

    /// With an observer that gets something wrong.
    pub fn spoil(mut self, spoil: Spoil) -> Self {
        self.spoil = Some(spoil);
        self
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("seed", &self.seed).field("rounds", &self.rounds).finish_non_exhaustive()
    }
}

/// What an observer gets wrong: errors that the core makes impossible, whatever the backend does, planted in the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Spoil {
    /// The first state comes again, as changes.
    FirstAgain,
    /// A record is added that was not removed.
    AddedTwice,
    /// A version goes back.
    VersionBack,
    /// A load answers less than a batch before it.
    LoadBehind,
}

/// How a run went.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Summary {
    /// Its seed.
    pub seed: u64,
    /// What the owners did: registers, updates, withdrawals, lists.
    pub operations: usize,
    /// How often each kind of fault struck.
    pub faults: BTreeMap<Hook, usize>,
    /// How often each kind of fault should have struck, and the world answered with an error.
    pub failed: BTreeMap<Hook, usize>,
    /// Batches, loads and lists that were recorded.
    pub observations: usize,
    /// Views that were opened.
    pub views: usize,
    /// What each validator found.
    pub violations: Vec<Violation>,
    /// A hash of what each client did and saw, and when.
    pub digest: u64,
    /// The longest time for which the machine did not let a thread of the run go on. Zero where the clock is paused.
    pub stall: Duration,
}

impl Summary {
    /// How many faults struck.
    pub fn fault_count(&self) -> usize {
        self.faults.values().sum()
    }
}

/// One line, without the violations.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {}: {} operations, {} faults of {} kinds, {} observations of {} views, {} violations, history {:016x}",
            self.seed,
            self.operations,
            self.fault_count(),
            self.faults.len(),
            self.observations,
            self.views,
            self.violations.len(),
            self.digest
        )?;
        tell_failed(f, &self.failed)?;
        if self.stall >= Duration::from_millis(100) {
            write!(f, "; the machine stood still for up to {:?}", self.stall)?;
        }
        Ok(())
    }
}

fn tell_failed(f: &mut fmt::Formatter<'_>, failed: &BTreeMap<Hook, usize>) -> fmt::Result {
    for (n, (hook, count)) in failed.iter().enumerate() {
        write!(f, "{}{hook} {count}", if n == 0 { "; failed: " } else { ", " })?;
    }
    Ok(())
}

/// A statement that a history shows to be broken.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// The statement: `ORD 4`.
    pub statement: &'static str,
    /// What was seen, by whom, when.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.statement, self.text)
    }
}
