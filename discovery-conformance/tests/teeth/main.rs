//! The suite's teeth: deliberately broken backends, each of which the case that is named for it must fail, for the
//! reason that it is broken.

mod keeping;
mod table;
mod watching;
mod wrap;
mod writing;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use discovery_conformance::backends::Memory;
use discovery_conformance::{Case, ELSEWHERE, Factory, Outcome, SECTIONS, cases, claims, history, run};
use table::{BEYOND, MUTANTS, Mutant};
use wrap::Twisted;

fn case(name: &str) -> &'static Case {
    cases().find(|case| case.name == name).unwrap_or_else(|| panic!("no case is called {name}"))
}

/// Descriptors are the whole process's: of the runs that count them there is one at a time.
static COUNTS_DESCRIPTORS: Mutex<()> = Mutex::new(());

fn alone(killer: &str) -> Option<MutexGuard<'static, ()>> {
    killer.starts_with("con_02").then(|| COUNTS_DESCRIPTORS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// How the mutant's case went, if not as the table says.
fn survives(mutant: &Mutant) -> Option<String> {
    let factory = Twisted { factory: Arc::new(Memory), make: mutant.make };
    let claimed = claims(&factory).expect("a world");
    let _alone = alone(mutant.killer);
    match run(&factory, &claimed, case(mutant.killer)).outcome {
        Outcome::Failed(why) if why.contains(mutant.says) => None,
        Outcome::Failed(why) => Some(format!("{}: {} fails by accident: {why}", mutant.name, mutant.killer)),
        other => Some(format!("{}: {} says {other:?}", mutant.name, mutant.killer)),
    }
}

#[test]
fn every_broken_backend_is_caught_by_the_case_that_is_named_for_it() {
    let next = AtomicUsize::new(0);
    let judge = || {
        let mut survivors = Vec::new();
        while let Some(mutant) = MUTANTS.get(next.fetch_add(1, Ordering::Relaxed)) {
            survivors.extend(survives(mutant));
        }
        survivors
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    let survivors: Vec<String> = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(judge)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a judgement")).collect()
    });
    assert!(survivors.is_empty(), "{} of {} survive:\n{}", survivors.len(), MUTANTS.len(), survivors.join("\n"));
}

#[test]
fn what_is_not_broken_passes_where_the_broken_fail() {
    let factory = Memory;
    let claimed = claims(&factory).expect("a world");
    let killers: BTreeMap<&str, &Mutant> = MUTANTS.iter().map(|mutant| (mutant.killer, mutant)).collect();
    for killer in killers.into_keys() {
        let _alone = alone(killer);
        // Whose case a claim that the unbroken one makes keeps away from it.
        let expected = case(killer).not_for(&claimed.capabilities, claimed.clock);
        match run(&factory, &claimed, case(killer)).outcome {
            Outcome::Passed => assert_eq!(expected, None, "{killer}"),
            Outcome::NotApplicable(why) => assert!(expected.is_some(), "{killer}: {why}"),
            outcome => panic!("{killer} on {}: {outcome:?}", factory.name()),
        }
    }
}

/// A case that waits in vain fails with these words for any reason: it has to say for which record, or what was told.
#[test]
fn none_is_caught_by_words_that_say_nothing_of_what_is_broken() {
    const SAY_NOTHING: [&str; 4] =
        ["not within", "the fold is right", "the fold is right: not within", "the stream told"];
    let vague: Vec<_> = MUTANTS.iter().filter(|mutant| SAY_NOTHING.contains(&mutant.says)).collect();
    assert!(vague.is_empty(), "{:?}", vague.iter().map(|mutant| mutant.name).collect::<Vec<_>>());
}

#[test]
fn there_are_enough_of_them_and_no_name_comes_twice() {
    let names: std::collections::BTreeSet<_> = MUTANTS.iter().map(|mutant| mutant.name).collect();
    assert_eq!(names.len(), MUTANTS.len());
    assert!(names.len() >= 30, "{}", names.len());
}

/// What no broken backend and no planted error shows to be judged is said, with the reason.
#[test]
fn every_statement_has_something_broken_that_its_judges_catch() {
    let mutants = MUTANTS.iter().map(|mutant| case(mutant.killer).statement());
    let caught: BTreeSet<_> = mutants.chain(history::statements().map(str::to_owned)).collect();
    let beyond: BTreeSet<_> = BEYOND.iter().map(|(statement, _)| (*statement).to_owned()).collect();
    assert!(beyond.is_disjoint(&caught), "{beyond:?} and {caught:?}");
    let elsewhere = ELSEWHERE.iter().map(|known| known.statement.to_owned());
    let known: BTreeSet<_> = caught.into_iter().chain(beyond).chain(elsewhere).collect();
    let all: BTreeSet<_> =
        SECTIONS.iter().flat_map(|(name, count)| (1..=*count).map(move |n| format!("{name} {n}"))).collect();
    assert_eq!(known, all);
}

#[test]
fn the_table_in_the_docs_is_this_one() {
    let mut table = String::from("| broken backend | caught by | which says |\n|---|---|---|\n");
    for Mutant { name, killer, says, .. } in MUTANTS {
        writeln!(table, "| {name} | `{killer}` | \"{says}\" |").expect("a string");
    }
    docs::check("mutants", &table);
    let figures =
        format!("{0} of {0} broken backends are caught, each by the case that is named for it.\n", MUTANTS.len());
    docs::check("caught", &figures);
    let mut beyond = String::from("| statement | why no broken backend shows it |\n|---|---|\n");
    for (statement, why) in BEYOND {
        writeln!(beyond, "| {statement} | {why} |").expect("a string");
    }
    docs::check("beyond", &beyond);
}

#[path = "../docs/mod.rs"]
mod docs;
