//! `docs/beside-the-reference.md` and its raw results.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use serde::{Deserialize, Serialize};

use super::{Circumstances, docs, plots, write as write_file};
use crate::Outcome;
use crate::speed::{Comparison, Figures, Goal, names};

const RESULTS: &str = "beside-the-reference/results.json";

const HEAD: &str = "\
# Beside the reference: figures

Written by `cargo xtask peers speed` from [the raw results](beside-the-reference/results.json); the method is in
[benchmarks](benchmarks.md#beside-the-reference). The reference is `dynamo-runtime` 1.6.1, used as it is.

A figure is the median of its rounds, with the smallest and the largest round in brackets. The ratio is the reference's
median over ours: above 1, ours takes less. What could not be measured says so, and is not counted as met.

";

/// One measurement's results and where they come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Measured {
    circumstances: Circumstances,
    comparisons: Vec<Comparison>,
}

type Results = BTreeMap<String, Measured>;

/// Removes all results.
pub(crate) fn forget() -> Outcome {
    keep_all(&Results::new())
}

/// Puts the results of one measurement in the place of its earlier ones.
pub(crate) fn keep(name: &str, comparisons: Vec<Comparison>) -> Outcome {
    let mut results = read()?;
    results.insert(name.to_owned(), Measured { circumstances: Circumstances::now(), comparisons });
    keep_all(&results)
}

fn keep_all(results: &Results) -> Outcome {
    let mut text = serde_json::to_string_pretty(results)?;
    text.push('\n');
    write_file(RESULTS, &text)
}

fn read() -> Outcome<Results> {
    match fs::read_to_string(docs().join(RESULTS)) {
        Ok(text) => Ok(serde_json::from_str(&text)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Results::new()),
        Err(error) => Err(error.into()),
    }
}

/// Writes the page and its plots from all results that there are.
pub(crate) fn write() -> Outcome {
    let results = read()?;
    let mut text = HEAD.to_owned();
    for name in names() {
        let Some(measured) = results.get(name) else {
            let _ = writeln!(text, "## {name}\n\nNot measured yet.\n");
            continue;
        };
        let at = &measured.circumstances;
        let _ = writeln!(text, "## {name}\n");
        let _ = writeln!(
            text,
            "Measured {}: {} cores ({}), {}, {}, load {}; {}.\n",
            at.date, at.cores, at.processor, at.memory, at.kernel, at.load, at.compiler
        );
        let _ = writeln!(text, "| work | what | ours | reference | ratio | goal |\n|---|---|---|---|---|---|");
        for comparison in &measured.comparisons {
            text.push_str(&row(comparison));
        }
        text.push('\n');
        let mut notes: Vec<String> = Vec::new();
        for comparison in measured.comparisons.iter().filter(|comparison| !comparison.note.is_empty()) {
            let note = format!("- {}: {}\n", comparison.what, comparison.note);
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        if !notes.is_empty() {
            let _ = writeln!(text, "{}", notes.concat());
        }
    }
    let all: Vec<&Comparison> = results.values().flat_map(|measured| &measured.comparisons).collect();
    plots::ratios(&docs().join("beside-the-reference/ratios.svg"), &all)?;
    text.push_str("## All ratios\n\n![ratios](beside-the-reference/ratios.svg)\n");
    if let Some(list) = results.get("list") {
        plots::sizes(&docs().join("beside-the-reference/list.svg"), &list.comparisons)?;
        text.push_str("\n![a fresh list by the size of the store](beside-the-reference/list.svg)\n");
    }
    write_file("beside-the-reference.md", &text)
}

fn row(comparison: &Comparison) -> String {
    let unit = &comparison.unit;
    let (ours, reference) = (figures(&comparison.ours, unit), figures(&comparison.reference, unit));
    let (ratio, goal) = (ratio(comparison), goal(comparison));
    format!("| {} | {} | {ours} | {reference} | {ratio} | {goal} |\n", comparison.work, comparison.what)
}

fn figures(figures: &Figures, unit: &str) -> String {
    match figures {
        Figures::Fails(error) => format!("fails: {}", error.replace('|', "\\|").replace('\n', " ")),
        Figures::NotMeasured(why) => format!("not measured: {why}"),
        Figures::Rounds(rounds) => match (figures.median(), figures.spread()) {
            (Some(median), Some(_)) if rounds.len() == 1 => format!("{} {unit}", number(median)).trim_end().to_owned(),
            (Some(median), Some((least, most))) => {
                format!("{} {unit} [{} .. {}]", number(median), number(least), number(most))
            }
            _ => "not measured".to_owned(),
        },
    }
}

fn ratio(comparison: &Comparison) -> String {
    match (comparison.ratio(), comparison.ours.median()) {
        // A difference of two equal times is hardly ever nothing at all.
        (Some(_), Some(ours)) if ours < 1e-6 => "all of it".to_owned(),
        (Some(ratio), _) => format!("{} x", number(ratio)),
        _ => String::new(),
    }
}

fn goal(comparison: &Comparison) -> String {
    let wanted = match comparison.goal {
        Goal::Times(times) => format!("at least {times} x"),
        Goal::NotMore => "not more".to_owned(),
        Goal::Works => "works".to_owned(),
        Goal::AtMost(most) => format!("at most {most} {}", comparison.unit).trim_end().to_owned(),
        Goal::None => return String::new(),
    };
    match comparison.met() {
        Some(true) => format!("{wanted}: met"),
        Some(false) => format!("{wanted}: **missed**"),
        None => format!("{wanted}: not known"),
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// One comparison for the terminal.
pub(crate) fn line(comparison: &Comparison) -> String {
    row(comparison).trim_matches(['|', ' ', '\n']).to_owned()
}
