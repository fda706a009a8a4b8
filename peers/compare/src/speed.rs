//! What does the same work cost on each side? Same data, same machine, one run.
//!
//! The sides take turns, each in a process of its own, so that its processor time and its memory are its own. See
//! `docs/benchmarks.md` for the method.

mod crash;
mod delay;
mod fleet;
mod kubernetes;
mod list;
mod load;
mod lookup;
mod memory;
mod outage;
mod result;
mod sync;
mod watchers;

use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant};

use futures_util::future::LocalBoxFuture;

use crate::Outcome;
use crate::peer::{Peer, Which};

pub(crate) use load::total;
pub(crate) use result::{Comparison, Figures, Goal};

/// For what comes to rest by itself, or never.
const PATIENCE: Duration = Duration::from_secs(120);

/// What is measured: its name, how many minutes it takes on two quiet cores, and how. It has rows whatever happens: where
/// something cannot be measured, they say why.
struct Measurement(&'static str, f64, fn() -> LocalBoxFuture<'static, Vec<Comparison>>);

/// First what other work on the machine disturbs least.
const MEASUREMENTS: &[Measurement] = &[
    Measurement("watchers", 5.0, || Box::pin(watchers::measure())),
    Measurement("memory", 5.0, || Box::pin(memory::measure())),
    Measurement("fleet", 3.0, || Box::pin(fleet::measure())),
    Measurement("list", 1.5, || Box::pin(list::measure())),
    Measurement("lookup", 2.0, || Box::pin(lookup::measure())),
    Measurement("crash", 1.0, || Box::pin(crash::measure())),
    Measurement("outage", 3.0, || Box::pin(outage::measure())),
    Measurement("sync", 2.5, || Box::pin(sync::measure())),
    Measurement("delay", 2.0, || Box::pin(delay::measure())),
    Measurement("kubernetes", 8.0, || Box::pin(kubernetes::measure())),
];

/// The names of all measurements.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    MEASUREMENTS.iter().map(|Measurement(name, ..)| *name)
}

/// Measures whatever `part` is a part of the name of, and hands each result over as soon as it is there. Answers what
/// went wrong; everything else was measured all the same.
pub(crate) async fn run(part: &str, mut keep: impl FnMut(&str, Vec<Comparison>) -> Outcome) -> Outcome<Vec<String>> {
    let chosen: Vec<_> = MEASUREMENTS.iter().filter(|Measurement(name, ..)| name.contains(part)).collect();
    if chosen.is_empty() {
        let names: Vec<_> = names().collect();
        return Err(format!("there is no measurement {part:?}: there are {}", names.join(", ")).into());
    }
    let minutes: f64 = chosen.iter().map(|Measurement(_, minutes, _)| minutes).sum();
    println!("{} measurements, about {} minutes", chosen.len(), minutes.ceil());
    let (mut failed, mut told) = (Vec::new(), Summary::default());
    for Measurement(name, _, measure) in chosen {
        println!("-- {name}");
        let began = Instant::now();
        let comparisons = measure().await;
        println!("-- {name}: {:.1} minutes", began.elapsed().as_secs_f64() / 60.0);
        comparisons.iter().for_each(|comparison| println!("{}", crate::report::line(comparison)));
        failed.extend(failures(name, &comparisons));
        told.add(&comparisons);
        keep(name, comparisons)?;
    }
    println!("{told}");
    Ok(failed)
}

/// What went wrong, each once, with the first line that it is told in.
fn failures(name: &str, comparisons: &[Comparison]) -> Vec<String> {
    let mut known = Vec::new();
    let mut failed = Vec::new();
    for comparison in comparisons {
        for failure in comparison.failures() {
            if !known.contains(&failure) {
                known.push(failure);
                let (side, error) = failure;
                failed.push(format!("{name}: {}, {}: {side}: {error}", comparison.work, comparison.what));
            }
        }
    }
    failed
}

/// How many goals are met, and which are not.
#[derive(Default)]
pub(crate) struct Summary {
    met: usize,
    missed: Vec<String>,
    unknown: Vec<String>,
}

impl Summary {
    pub(crate) fn add(&mut self, comparisons: &[Comparison]) {
        for comparison in comparisons.iter().filter(|comparison| !matches!(comparison.goal, Goal::None)) {
            let what = || format!("{}, {}", comparison.work, comparison.what);
            match comparison.met() {
                Some(true) => self.met += 1,
                Some(false) => self.missed.push(what()),
                None => self.unknown.push(what()),
            }
        }
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "Goals: {} met, {} missed, {} not known.", self.met, self.missed.len(), self.unknown.len())?;
        for (how, which) in [("missed", &self.missed), ("not known", &self.unknown)] {
            which.iter().try_for_each(|what| write!(f, "\n- {how}: {what}"))?;
        }
        Ok(())
    }
}

/// That side of two.
fn of(peers: &[Peer; 2], which: Which) -> &Peer {
    if which == Which::Ours { &peers[0] } else { &peers[1] }
}

/// A store inside the process.
async fn in_memory(which: Which) -> Outcome<Peer> {
    in_memory_with(which, &[]).await
}

/// The same, with more in its environment.
async fn in_memory_with(which: Which, more: &[(&str, &str)]) -> Outcome<Peer> {
    let name = if which == Which::Ours { "memory" } else { "mem" };
    let environment = [("DYN_EVENT_PLANE", "zmq"), ("DYN_REQUEST_PLANE", "tcp"), ("DYN_DISCOVERY_BACKEND", name)];
    let environment: Vec<_> =
        environment.iter().chain(more).map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
    Peer::start(which, &environment).await
}

/// What one figure of a round is.
struct Measure {
    what: String,
    unit: &'static str,
    goal: Goal,
    note: String,
    reference_fails: bool,
}

impl Measure {
    fn new(what: impl Into<String>, unit: &'static str, goal: Goal) -> Self {
        Self { what: what.into(), unit, goal, note: String::new(), reference_fails: false }
    }

    /// What has to be known to read it.
    fn note(self, note: impl Into<String>) -> Self {
        Self { note: note.into(), ..self }
    }

    /// Beyond what the reference can do, where `beyond`: that ours works is what is wanted then.
    fn beyond_the_reference(self, beyond: bool) -> Self {
        let goal = if beyond && !matches!(self.goal, Goal::None) { Goal::Works } else { self.goal };
        Self { goal, reference_fails: beyond, ..self }
    }

    fn comparison(self, work: &str, on: &str, ours: Figures, reference: Figures) -> Comparison {
        Comparison {
            work: work.to_owned(),
            what: format!("{on}: {}", self.what),
            unit: self.unit.to_owned(),
            goal: self.goal,
            ours,
            reference,
            note: self.note,
            reference_fails: self.reference_fails,
        }
    }
}

/// One side's rounds, as far as they came: a column for each measure.
#[derive(Default)]
struct Side {
    columns: Vec<Vec<f64>>,
    error: Option<String>,
}

impl Side {
    fn add(&mut self, round: Result<Vec<f64>, String>) {
        match round {
            Ok(values) => {
                self.columns.resize(values.len(), Vec::new());
                self.columns.iter_mut().zip(values).for_each(|(column, value)| column.push(value));
            }
            Err(error) => self.error = Some(error),
        }
    }

    /// The figures of a measure.
    fn figures(&self, at: usize) -> Figures {
        let rounds = self.columns.get(at).cloned().unwrap_or_default();
        match &self.error {
            None if rounds.is_empty() => Figures::NotMeasured("no round had this figure".to_owned()),
            None => Figures::Rounds(rounds),
            Some(error) if rounds.is_empty() => Figures::Fails(error.clone()),
            Some(error) => Figures::Broken { rounds, error: error.clone() },
        }
    }
}

/// One line for each measure, whatever came of them.
fn rows(work: &str, on: &str, measures: Vec<Measure>, sides: Outcome<[Side; 2]>) -> Vec<Comparison> {
    let figures = |at: usize| match &sides {
        Ok(sides) => sides.each_ref().map(|side| side.figures(at)),
        Err(error) => [0, 1].map(|_| Figures::NotMeasured(error.to_string())),
    };
    let row = |(at, measure): (usize, Measure)| {
        let [ours, reference] = figures(at);
        measure.comparison(work, on, ours, reference)
    };
    measures.into_iter().enumerate().map(row).collect()
}

/// Both sides' figures, round by round in turns, from what one round of one side comes to. A side that fails is not asked
/// again, and keeps the rounds that it has.
async fn in_turns(rounds: usize, mut round: impl AsyncFnMut(Which) -> Outcome<Vec<f64>>) -> [Side; 2] {
    let mut sides: [Side; 2] = Default::default();
    for number in 0..rounds {
        // Who comes first finds the machine, and the server, as the other one left it.
        let order = if number % 2 == 0 { [0, 1] } else { [1, 0] };
        for at in order {
            if sides[at].error.is_none() {
                sides[at].add(round(Which::BOTH[at]).await.map_err(|error| error.to_string()));
            }
        }
    }
    sides
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready<T>(future: impl Future<Output = T>) -> T {
        futures_util::FutureExt::now_or_never(future).expect("nothing to wait for")
    }

    #[test]
    fn sides_take_turns_at_being_first_and_keep_the_rounds_before_a_failure() {
        let mut asked = Vec::new();
        let sides = ready(in_turns(4, async |which| {
            asked.push(which);
            if which == Which::Reference && asked.len() > 4 { Err("cut".into()) } else { Ok(vec![1.0, 2.0]) }
        }));
        let (ours, reference) = (Which::Ours, Which::Reference);
        assert_eq!(asked, [ours, reference, reference, ours, ours, reference, ours]);
        let [ours, reference] = sides;
        assert_eq!((ours.figures(1).rounds(), ours.figures(1).error()), (&[2.0; 4][..], None));
        assert_eq!((reference.figures(0).rounds(), reference.figures(0).error()), (&[1.0; 2][..], Some("cut")));
    }

    #[test]
    fn every_measure_has_its_line_where_nothing_could_be_measured() {
        let measures = || vec![Measure::new("time", "ms", Goal::NotMore), Measure::new("bytes", "kB", Goal::None)];
        let lines = rows("work", "etcd", measures(), Err("no etcd".into()));
        assert_eq!(lines.iter().map(|line| &line.what[..]).collect::<Vec<_>>(), ["etcd: time", "etcd: bytes"]);
        assert_eq!(failures("list", &lines), ["list: work, etcd: time: not measured: no etcd"]);
        let mut told = Summary::default();
        told.add(&lines);
        assert_eq!(told.to_string(), "Goals: 0 met, 0 missed, 1 not known.\n- not known: work, etcd: time");

        let failing = || Side { columns: Vec::new(), error: Some("too large".to_owned()) };
        let lines = rows("work", "etcd", measures(), Ok([failing(), failing()]));
        assert!(lines.iter().all(|line| line.ours.error() == Some("too large")), "{lines:?}");
    }

    #[test]
    fn a_measurement_that_there_is_none_of_is_refused_with_those_there_are() {
        let error = ready(run("lst", |_, _| Ok(()))).expect_err("there is none");
        assert!(error.to_string().contains("\"lst\"") && error.to_string().contains("watchers, memory"), "{error}");
    }
}
