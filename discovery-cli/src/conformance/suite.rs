//! Runs the selected cases, several at once, and sums them up.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use discovery_conformance::history::{self, Config};
use discovery_conformance::{
    Absent, Case, Claims, Clock, Factory, Outcome as Judged, Ran, Report, cases as every_case, claims, run as run_case,
};

use super::progress::Progress;
use crate::failure::{Failure, Outcome};

/// The name of the randomised run among the cases.
const RANDOMISED: &str = "randomised_run";

/// What a worker tells.
enum Told {
    Began(&'static str),
    Ended(Ran),
}

/// Runs the cases, then the randomised run where there is a seed. Blocks until all is over.
pub(super) fn run(factory: &dyn Factory, cases: &[&'static Case], seed: Option<u64>, again: String) -> Outcome<Report> {
    let began = Instant::now();
    if let Some(Absent::Fails(why) | Absent::Ignored(why)) = factory.absent() {
        return Err(Failure::failed(format!("conformance: {}: no store: {why}", factory.name())));
    }
    let claims = claims(factory)
        .map_err(|why| Failure::failed(format!("conformance: {}: no store could be made: {why}", factory.name())))?;
    let randomised_runs = usize::from(seed.is_some());
    let mut progress = Progress::new(cases.len() + randomised_runs);
    let mut ran = all(factory, &claims, cases, &mut progress);
    // Cases end in any order; the contract has one.
    ran.sort_by_key(|ran| cases.iter().position(|case| case.name == ran.name));
    if let Some(seed) = seed {
        progress.began(RANDOMISED);
        let random = randomised(factory, seed);
        progress.ended(&random);
        ran.push(random);
    }
    progress.over();
    let expected = every_case().count() + randomised_runs;
    let report = Report::new(factory.name(), claims, ran, expected, began.elapsed(), again);
    Ok(match seed {
        Some(seed) => report.with_seed(seed),
        None => report,
    })
}

fn all(factory: &dyn Factory, claims: &Claims, cases: &[&'static Case], progress: &mut Progress) -> Vec<Ran> {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    // On a real clock a case mostly waits.
    let workers = if claims.clock == Clock::Real { processors * 4 } else { processors };
    let queue = Mutex::new(cases.iter());
    let mut ran = Vec::with_capacity(cases.len());
    std::thread::scope(|scope| {
        let (sender, told) = channel();
        for _ in 0..workers.min(cases.len()) {
            let (sender, queue) = (sender.clone(), &queue);
            scope.spawn(move || work(factory, claims, queue, &sender));
        }
        drop(sender);
        for told in told {
            match told {
                Told::Began(name) => progress.began(name),
                Told::Ended(one) => {
                    progress.ended(&one);
                    ran.push(one);
                }
            }
        }
    });
    ran
}

fn work(
    factory: &dyn Factory,
    claims: &Claims,
    queue: &Mutex<std::slice::Iter<'_, &'static Case>>,
    sender: &Sender<Told>,
) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some(case) = next else { return };
        // The receiver outlives every worker.
        let _ = sender.send(Told::Began(case.name));
        let _ = sender.send(Told::Ended(run_case(factory, claims, case)));
    }
}

/// The randomised run, told as a case.
fn randomised(factory: &dyn Factory, seed: u64) -> Ran {
    let began = Instant::now();
    let (mut statement, mut faults) = ("ORD, FLT, WAT".to_owned(), Default::default());
    let outcome = match history::run(factory, &Config::new(seed)) {
        Err(why) => Judged::Failed(format!("no run: {why}")),
        Ok(summary) => {
            faults = summary.faults.keys().copied().collect();
            match summary.violations.first() {
                None => Judged::Passed,
                Some(first) => {
                    statement = first.statement.to_owned();
                    let all: Vec<_> = summary.violations.iter().map(ToString::to_string).collect();
                    Judged::Failed(format!("seed {seed}: {}", all.join("; ")))
                }
            }
        }
    };
    Ran {
        name: RANDOMISED,
        statement,
        profile: "core",
        outcome,
        took: began.elapsed(),
        faults,
        patience: factory.patience().max(1),
    }
}
