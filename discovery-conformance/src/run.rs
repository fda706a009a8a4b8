//! Runs cases, each in a world and on a runtime of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use discovery_core::{Bounds, Capabilities};
use futures_util::FutureExt;

use crate::case::{Case, CaseResult, End, fail};
use crate::cases::all;
use crate::trial::Trial;
use crate::witness::{Witness, kept_waiting, longest};
use crate::world::{Clock, Factory, Hook};

/// How long a case may take by the clock on the wall, whatever the bounds say.
const LIMIT: Duration = Duration::from_secs(300);

/// How long one may take on a paused clock, where an hour costs nothing.
const PAUSED_LIMIT: Duration = Duration::from_secs(86_400 * 2);

/// Where the machine kept a thread that had nothing to do waiting for longer than this, a failed case on the real clock
/// tells as much of the machine as of the backend: what is told goes through a dozen such threads. It is judged again. So
/// it is where at least one thread of this process, on average, was waiting for a processor all the time.
const STALL: Duration = Duration::from_millis(25);

/// How many times the factory's patience each try has. The first one judges; the others are for a machine that is busy.
const TRIES: [u32; 3] = [1, 4, 16];

/// What part of [`LIMIT`] a case that is judged again waits for one bound at most, so that it still says which was broken.
const PART: u32 = 2;

/// How a case went.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "detail")]
pub enum Outcome {
    /// The statement holds.
    Passed,
    /// It does not, and how that showed.
    Failed(String),
    /// The case is not about this backend: it does not claim what the case is about, or another case says the statement
    /// of it, or a fault that it needs cannot exist there.
    NotApplicable(String),
    /// It should have run, and the factory cannot do the faults that it needs.
    NoHook(String),
    /// It should have run, and came to no judgement.
    Skipped(String),
}

/// A case and how it went.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Ran {
    /// The case's name.
    pub name: &'static str,
    /// The statement it is a case of.
    pub statement: String,
    /// `core`, or the capability it belongs to.
    pub profile: &'static str,
    /// How it went.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// How long it took by the clock on the wall.
    pub took: Duration,
    /// The faults that it did.
    pub faults: BTreeSet<Hook>,
    /// How many times a bound was waited for by the judgement that counts, and 0 where it did not run. It is more than
    /// [`Claims::patience`] where the machine was busy, and the case was judged again.
    pub patience: u32,
}

/// What a backend says of itself, asked before the first case.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Claims {
    /// What it claims.
    pub capabilities: Capabilities,
    /// The bounds that it declares.
    pub bounds: Bounds,
    /// The faults that its factory offers.
    pub hooks: Vec<Hook>,
    /// The faults that cannot exist on this backend, and why.
    pub impossible: BTreeMap<Hook, &'static str>,
    /// Which clock its cases run on.
    pub clock: Clock,
    /// How many times a bound is waited for at first: see [`Ran::patience`].
    pub patience: u32,
}

/// Asks a factory what its backend claims.
///
/// # Errors
/// What keeps a first world from being made.
pub fn claims(factory: &dyn Factory) -> Result<Claims, String> {
    let clock = factory.clock();
    let trial = on_runtime(clock, async || {
        let trial = Trial::new(factory, clock, &[], factory.patience()).await?;
        let claims = (trial.capabilities(), trial.bounds());
        trial.finish().await;
        Ok(claims)
    });
    let (capabilities, bounds) = trial.map_err(|end| end.to_string())?;
    let mut hooks = factory.hooks();
    hooks.sort_unstable();
    hooks.dedup();
    let impossible = Hook::ALL.into_iter().filter(|hook| !hooks.contains(hook));
    let impossible = impossible.filter_map(|hook| Some((hook, factory.impossible(hook)?))).collect();
    Ok(Claims { capabilities, bounds, hooks, impossible, clock, patience: factory.patience() })
}

/// Runs one case, or says why it does not run. Blocks until it is over.
pub fn run(factory: &dyn Factory, claims: &Claims, case: &Case) -> Ran {
    let started = Instant::now();
    let Judgement { outcome, faults, patience } = judge(factory, claims, case);
    Ran {
        name: case.name,
        statement: case.statement(),
        profile: case.profile(),
        outcome,
        took: started.elapsed(),
        faults,
        patience,
    }
}

/// How a case went, the faults that it did, and how many times a bound was waited for.
struct Judgement {
    outcome: Outcome,
    faults: BTreeSet<Hook>,
    patience: u32,
}

impl Judgement {
    fn without_a_run(outcome: Outcome) -> Self {
        Self { outcome, faults: BTreeSet::new(), patience: 0 }
    }
}

fn judge(factory: &dyn Factory, claims: &Claims, case: &Case) -> Judgement {
    if let Some(why) = case.not_for(&claims.capabilities, claims.clock) {
        return Judgement::without_a_run(Outcome::NotApplicable(why + &said_by_others(claims, case)));
    }
    let missing: Vec<_> = case.missing(&claims.hooks).collect();
    if let Some((hook, why)) = missing.iter().find_map(|hook| claims.impossible.get_key_value(hook)) {
        let why = format!("{hook} cannot happen: {why}");
        return Judgement::without_a_run(Outcome::NotApplicable(why + &said_by_others(claims, case)));
    }
    if !missing.is_empty() {
        let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
        return Judgement::without_a_run(Outcome::NoHook(format!("no hook for {}", missing.join(", "))));
    }
    let clock = case.clock.unwrap_or(claims.clock);
    again_where_busy(&patiences(factory.patience(), &claims.bounds), |patience| {
        let witness = if clock == Clock::Real { Witness::start() } else { None };
        let (began, waited) = (Instant::now(), kept_waiting());
        let (outcome, faults) = attempt(factory, clock, case, patience);
        let stall = longest(&witness.map(Witness::end).unwrap_or_default());
        let waited = kept_waiting().zip(waited).map_or(Duration::ZERO, |(now, before)| now.saturating_sub(before));
        let busy = clock == Clock::Real && (stall > STALL || waited > began.elapsed());
        if busy && let Outcome::Failed(why) = &outcome {
            tracing::warn!(
                case = case.name,
                patience,
                ?stall,
                ?waited,
                why,
                "a case failed while the machine was busy"
            );
        }
        (Judgement { outcome, faults, patience }, busy)
    })
}

/// How many times a bound each try waits. A bound that is too long to be waited for so often gets fewer tries.
fn patiences(first: u32, bounds: &Bounds) -> Vec<u32> {
    let first = first.max(1);
    let longest = bounds.propagation.max(bounds.recovery).max(bounds.slack).as_millis().max(1);
    let fits = u32::try_from(LIMIT.as_millis() / u128::from(PART) / longest).unwrap_or(u32::MAX).max(first);
    let mut patiences: Vec<_> = TRIES.into_iter().map(|times| first.saturating_mul(times).min(fits)).collect();
    patiences.dedup();
    patiences
}

/// Judges with the first of these patiences, and with the next where it failed and the machine was busy.
fn again_where_busy(patiences: &[u32], mut judge: impl FnMut(u32) -> (Judgement, bool)) -> Judgement {
    let mut rest = patiences.iter();
    loop {
        let (judgement, busy) = judge(rest.next().copied().unwrap_or(1));
        if !(busy && matches!(judgement.outcome, Outcome::Failed(_)) && rest.len() > 0) {
            return judgement;
        }
    }
}

/// One run of a case in a world of its own.
fn attempt(factory: &dyn Factory, clock: Clock, case: &Case, patience: u32) -> (Outcome, BTreeSet<Hook>) {
    let mut faults = BTreeSet::new();
    let result = catch_unwind(AssertUnwindSafe(|| {
        on_runtime(clock, async || {
            let trial = Trial::new(factory, clock, case.hooks, patience).await?;
            let limit = if clock == Clock::Paused { PAUSED_LIMIT } else { LIMIT };
            let case = AssertUnwindSafe((case.run)(&trial)).catch_unwind();
            let result = match tokio::time::timeout(limit, case).await {
                Ok(Ok(result)) => result,
                Ok(Err(panic)) => Err(fail!("the case panicked: {}", said(&*panic))),
                Err(_) => Err(fail!("the case did not end within {limit:?}")),
            };
            faults = trial.injected();
            trial.finish().await;
            result
        })
    }));
    let outcome = match result {
        Ok(Ok(())) => Outcome::Passed,
        Ok(Err(End::Failed(why))) => Outcome::Failed(why),
        Ok(Err(End::Skipped(why))) => Outcome::Skipped(why),
        Err(panic) => Outcome::Failed(format!("the case panicked: {}", said(&*panic))),
    };
    (outcome, faults)
}

/// Which cases say a statement of a backend that one case of it is not about.
fn said_by_others(claims: &Claims, case: &Case) -> String {
    let statement = case.statement();
    let others = all().filter(|other| other.statement() == statement);
    let others = others.filter(|other| other.not_for(&claims.capabilities, claims.clock).is_none());
    let others = others.filter(|other| other.missing(&claims.hooks).all(|hook| !claims.impossible.contains_key(&hook)));
    let names: Vec<_> = others.map(|other| other.name).collect();
    if names.is_empty() { String::new() } else { format!(": {statement} is said by {}", names.join(", ")) }
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

fn on_runtime<T>(clock: Clock, work: impl AsyncFnOnce() -> CaseResult<T>) -> CaseResult<T> {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().start_paused(clock == Clock::Paused);
    let runtime = builder.build().map_err(|error| fail!("no runtime: {error}"))?;
    let result = runtime.block_on(work());
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(busy: bool, passes_at: u32) -> (u32, bool) {
        let judgement = again_where_busy(&[4, 16, 64], |patience| {
            let outcome = if patience >= passes_at { Outcome::Passed } else { Outcome::Failed("late".to_owned()) };
            (Judgement { outcome, faults: BTreeSet::new(), patience }, busy)
        });
        (judgement.patience, judgement.outcome == Outcome::Passed)
    }

    #[test]
    fn a_judgement_tells_the_patience_that_it_took() {
        assert_eq!(judged(true, 4), (4, true));
        assert_eq!(judged(true, 16), (16, true));
        assert_eq!(judged(true, 65), (64, false));
        assert_eq!(judged(false, 16), (4, false));
    }

    #[test]
    fn no_bound_is_waited_for_until_the_case_has_to_end() {
        let bounds = |recovery| {
            let mut bounds = Bounds::default();
            bounds.recovery = Duration::from_secs(recovery);
            bounds
        };
        assert_eq!(patiences(4, &bounds(2)), [4, 16, 64]);
        assert_eq!(patiences(4, &bounds(5)), [4, 16, 30]);
        assert_eq!(patiences(4, &bounds(30)), [4, 5]);
        // The factory's own patience is its author's to choose.
        assert_eq!(patiences(4, &bounds(100)), [4]);
        assert_eq!(patiences(0, &bounds(2))[0], 1);
    }
}
