//! Runs one after the other, each with the seed after the one before, and what they come to.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::{Config, SECONDS_VARIABLE, SEED_VARIABLE, run, tell_failed};
use crate::world::{Factory, Hook};

/// How many runs there are where nobody says how long they go on.
const SHORT: u64 = 3;

/// How often a fault has to fail, and never to strike, before it counts as one that the world cannot do: some fail now and then
/// because another fault is in their way.
const FAILURES: usize = 5;

/// When the last run has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// After so many.
    Runs(u64),
    /// After this time by the clock on the wall, but not before the first: a run that has begun is ended.
    Elapsed(Duration),
}

/// Which runs are done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Soak {
    /// The seed of the first run.
    pub seed: u64,
    /// When they end.
    pub until: Until,
    /// The command that does these runs, where [`SEED_VARIABLE`] is set before it: `cargo test --test randomised`. It is
    /// told where a run breaks the contract.
    pub command: String,
}

impl Soak {
    /// As the environment says: from the seed in [`SEED_VARIABLE`], for the time in [`SECONDS_VARIABLE`]. With a seed alone
    /// it is that run alone; with neither a short series that is always the same.
    ///
    /// # Errors
    /// The variable whose text is no number.
    pub fn from_environment(command: &str) -> Result<Self, String> {
        let (seed, seconds) = (number(SEED_VARIABLE)?, number(SECONDS_VARIABLE)?);
        let until = match (seconds, seed) {
            (Some(seconds), _) => Until::Elapsed(Duration::from_secs(seconds)),
            (None, Some(_)) => Until::Runs(1),
            (None, None) => Until::Runs(SHORT),
        };
        Ok(Self { seed: seed.unwrap_or(1), until, command: command.to_owned() })
    }
}

fn number(variable: &str) -> Result<Option<u64>, String> {
    match std::env::var(variable) {
        Ok(text) if !text.is_empty() => {
            text.parse().map(Some).map_err(|_| format!("{variable}={text}: write a whole number"))
        }
        _ => Ok(None),
    }
}

/// What some runs come to, all of them without a violation.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Soaked {
    /// How many there were.
    pub runs: u64,
    /// The seed of the first.
    pub first: u64,
    /// What the owners did.
    pub operations: usize,
    /// How often each kind of fault struck.
    pub faults: BTreeMap<Hook, usize>,
    /// How often each kind of fault failed.
    pub failed: BTreeMap<Hook, usize>,
    /// Batches, loads and lists that were recorded.
    pub observations: usize,
    /// How long they took by the clock on the wall.
    pub took: Duration,
}

impl fmt::Display for Soaked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (last, faults) =
            (self.first.saturating_add(self.runs).saturating_sub(1), self.faults.values().sum::<usize>());
        write!(
            f,
            "{} runs in {:.1?}, seeds {} to {last}: {} operations, {faults} faults, {} observations",
            self.runs, self.took, self.first, self.operations, self.observations
        )?;
        for (n, (hook, count)) in self.faults.iter().enumerate() {
            write!(f, "{}{hook} {count}", if n == 0 { "; " } else { ", " })?;
        }
        tell_failed(f, &self.failed)
    }
}

impl Soaked {
    /// What the worlds say that they can do, and never did.
    fn never_done(&self) -> Option<String> {
        let never = self.failed.iter().filter(|(hook, count)| **count >= FAILURES && !self.faults.contains_key(*hook));
        let never: Vec<_> = never.map(|(hook, count)| format!("{hook} {count}")).collect();
        (!never.is_empty()).then(|| format!("faults that failed each time: {}", never.join(", ")))
    }
}

/// Does runs until they are to end, or until one breaks the contract. Each is told on standard output, with its seed, when
/// it is over; so is what they come to. Blocks, as [`run`] does.
///
/// ```no_run
/// # use discovery_conformance::{Factory, history::{Soak, soak}};
/// # fn my_factory() -> std::sync::Arc<dyn Factory> { unreachable!() }
/// // In a test:
/// let runs = Soak::from_environment("cargo test -p my-backend --test randomised")?;
/// soak(&*my_factory(), &runs)?;
/// # Ok::<(), String>(())
/// ```
///
/// # Errors
/// What keeps a run from being made, or that one broke the contract: which, and how it is done again. A fault that failed
/// each time, which the factory offers and its worlds cannot do.
pub fn soak(factory: &dyn Factory, soak: &Soak) -> Result<Soaked, String> {
    let (name, began) = (factory.name(), Instant::now());
    let mut soaked = Soaked {
        runs: 0,
        first: soak.seed,
        operations: 0,
        faults: BTreeMap::new(),
        failed: BTreeMap::new(),
        observations: 0,
        took: Duration::ZERO,
    };
    let goes_on = |runs| match soak.until {
        Until::Runs(wanted) => runs < wanted,
        Until::Elapsed(time) => runs == 0 || began.elapsed() < time,
    };
    let mut broken = None;
    while broken.is_none() && goes_on(soaked.runs) {
        let (seed, start) = (soak.seed.wrapping_add(soaked.runs), Instant::now());
        let again = format!("again: DYN_DISCOVERY_BACKEND={name} {SEED_VARIABLE}={seed} {}", soak.command);
        let summary = run(factory, &Config::new(seed))
            .map_err(|error| format!("{name}: seed {seed}: no run: {error}; {again}"))?;
        println!("{name}: {summary}, {:.1?}", start.elapsed());
        summary.violations.iter().for_each(|violation| println!("  {violation}"));
        soaked.runs += 1;
        soaked.operations += summary.operations;
        soaked.observations += summary.observations;
        summary.faults.iter().for_each(|(hook, count)| *soaked.faults.entry(*hook).or_default() += count);
        summary.failed.iter().for_each(|(hook, count)| *soaked.failed.entry(*hook).or_default() += count);
        if !summary.violations.is_empty() {
            broken = Some(format!("{name}: seed {seed} breaks the contract; {again}"));
        }
    }
    soaked.took = began.elapsed();
    println!("{name}: {soaked}");
    let never = soaked.never_done().map(|faults| format!("{name}: {faults}: mend them, or do not offer them"));
    broken.or(never).map_or(Ok(soaked), Err)
}
