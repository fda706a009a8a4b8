//! `docs/beside-the-reference.md` and its raw results.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use serde::{Deserialize, Serialize};

use super::{Circumstances, docs, plots, write as write_file};
use crate::Outcome;
use crate::speed::{Comparison, Figures, Goal, Summary, names};

const RESULTS: &str = "beside-the-reference/results.json";
const RATIOS: &str = "beside-the-reference/ratios.svg";
const LIST: &str = "beside-the-reference/list.svg";

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

/// Removes all results and their plots.
pub(crate) fn forget() -> Outcome {
    for plot in [RATIOS, LIST] {
        match fs::remove_file(docs().join(plot)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    keep_all(&Results::new())?;
    write(&Results::new())
}

/// Puts the results of one measurement in the place of its earlier ones, and writes the page: whatever comes after it, it
/// is kept.
pub(crate) fn keep(name: &str, comparisons: Vec<Comparison>) -> Outcome {
    let mut results = read()?;
    results.insert(name.to_owned(), Measured { circumstances: Circumstances::now(), comparisons });
    keep_all(&results)?;
    write(&results)
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

/// The page and its plots, from all results that there are.
fn write(results: &Results) -> Outcome {
    let mut text = HEAD.to_owned();
    let mut told = Summary::default();
    results.values().for_each(|measured| told.add(&measured.comparisons));
    let _ = writeln!(text, "{told}\n");
    for name in names() {
        let Some(measured) = results.get(name) else {
            let _ = writeln!(text, "## {name}\n\nNot measured yet.\n");
            continue;
        };
        let at = &measured.circumstances;
        let _ = writeln!(text, "## {name}\n");
        let _ = writeln!(
            text,
            "Measured {}: {} cores ({}), {}, {}, load {}; {}{}; {}.\n",
            at.date,
            at.cores,
            at.processor,
            at.memory,
            at.kernel,
            at.load,
            at.compiler,
            at.servers.iter().map(|server| format!(", {server}")).collect::<String>(),
            at.commit
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
    if plots::ratios(&docs().join(RATIOS), &all)? {
        let _ = writeln!(text, "## All ratios\n\n![ratios]({RATIOS})");
    }
    if let Some(list) = results.get("list")
        && plots::sizes(&docs().join(LIST), &list.comparisons)?
    {
        let _ = writeln!(text, "\n![a fresh list by the size of the store]({LIST})");
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
    let rounds = match (figures.median(), figures.spread()) {
        (Some(median), Some(_)) if figures.rounds().len() == 1 => {
            format!("{} {unit}", number(median)).trim_end().to_owned()
        }
        (Some(median), Some((least, most))) => {
            format!("{} {unit} [{} .. {}]", number(median), number(least), number(most)).replace("  ", " ")
        }
        _ => String::new(),
    };
    let text = match figures {
        Figures::Rounds(_) => rounds,
        Figures::Broken { rounds: some, error } => format!("{rounds} in {} rounds; then it fails: {error}", some.len()),
        Figures::Fails(error) => format!("fails: {error}"),
        Figures::NotMeasured(why) => format!("not measured: {why}"),
    };
    text.replace('|', "\\|").replace('\n', " ")
}

fn ratio(comparison: &Comparison) -> String {
    match comparison.ratio() {
        Some(_) if comparison.is_all_of_it() => "all of it".to_owned(),
        Some(ratio) => format!("{} x", number(ratio)),
        None => String::new(),
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

/// With three significant digits.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if !(5e-7..0.1).contains(&size) => format!("{value:.2}"),
        size => {
            // A hundredth has its first digit at the second place after the point.
            let first = -(size.log10().floor() as i32);
            format!("{value:.*}", first as usize + 2)
        }
    }
}

/// One comparison for the terminal.
pub(crate) fn line(comparison: &Comparison) -> String {
    row(comparison).trim_matches(['|', ' ', '\n']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_also_where_they_are_small() {
        let numbers = [78_099_754.0, 123.4, 12.34, 1.234, 0.1234, 0.0123, 0.001_234, -0.0456, 0.0, 1e-15];
        let texts = ["78099754", "123", "12.3", "1.23", "0.12", "0.0123", "0.00123", "-0.0456", "0.00", "0.00"];
        assert_eq!(numbers.map(number), texts);
    }

    #[test]
    fn rounds_before_a_failure_are_told_with_it() {
        let broken = Figures::Broken { rounds: vec![1.0, 2.0, 3.0], error: "a | b\nc".to_owned() };
        assert_eq!(figures(&broken, "ms"), "2.00 ms [1.00 .. 3.00] in 3 rounds; then it fails: a \\| b c");
        assert_eq!(figures(&Figures::NotMeasured("no etcd".to_owned()), "ms"), "not measured: no etcd");
        assert_eq!(figures(&Figures::Rounds(vec![1.0, 1.0]), ""), "1.00 [1.00 .. 1.00]");
    }
}
