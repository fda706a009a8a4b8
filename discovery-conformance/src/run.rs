//! Runs cases, each in a world and on a runtime of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use discovery_core::{Bounds, Capabilities};
use futures_util::FutureExt;

use crate::case::{Case, CaseResult, End, fail};
use crate::cases::all;
use crate::trial::Trial;
use crate::witness::{Witness, kept_waiting};
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
    /// How many times a bound is waited for.
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
    let (outcome, faults) = judge(factory, claims, case);
    Ran {
        name: case.name,
        statement: case.statement(),
        profile: case.profile(),
        outcome,
        took: started.elapsed(),
        faults,
    }
}

fn judge(factory: &dyn Factory, claims: &Claims, case: &Case) -> (Outcome, BTreeSet<Hook>) {
    if let Some(why) = case.not_for(&claims.capabilities, claims.clock) {
        return (Outcome::NotApplicable(why + &said_by_others(claims, case)), BTreeSet::new());
    }
    let missing: Vec<_> = case.missing(&claims.hooks).collect();
    if let Some((hook, why)) = missing.iter().find_map(|hook| claims.impossible.get_key_value(hook)) {
        let why = format!("{hook} cannot happen: {why}");
        return (Outcome::NotApplicable(why + &said_by_others(claims, case)), BTreeSet::new());
    }
    if !missing.is_empty() {
        let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
        return (Outcome::NoHook(format!("no hook for {}", missing.join(", "))), BTreeSet::new());
    }
    let clock = case.clock.unwrap_or(claims.clock);
    let mut tries = TRIES.into_iter();
    loop {
        let patience = factory.patience().max(1) * tries.next().unwrap_or(1);
        let witness = if clock == Clock::Real { Witness::start() } else { None };
        let (began, waited) = (Instant::now(), kept_waiting());
        let (outcome, faults) = attempt(factory, clock, case, patience);
        let stall = witness.map(Witness::end).unwrap_or_default();
        let waited = kept_waiting().zip(waited).map_or(Duration::ZERO, |(now, before)| now.saturating_sub(before));
        let busy = clock == Clock::Real && (stall > STALL || waited > began.elapsed());
        match &outcome {
            Outcome::Failed(why) if busy && tries.len() > 0 => {
                tracing::warn!(
                    case = case.name,
                    ?stall,
                    ?waited,
                    why,
                    "the machine was busy: the case is judged again"
                );
            }
            _ => return (outcome, faults),
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
