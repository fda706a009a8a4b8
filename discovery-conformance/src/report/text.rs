//! The report for a terminal.

use std::fmt::Write;

use super::{Report, bounds, joined, told};
use crate::run::Outcome;

pub(super) fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(report, &mut out);
    out
}

fn write(report: &Report, out: &mut String) -> std::fmt::Result {
    writeln!(out, "{}: {}", report.backend, report.conclusion())?;
    let claimed = report.profiles.keys().filter(|name| **name != "core");
    writeln!(out, "  claims: {}", joined(claimed))?;
    for (name, value) in bounds(&report.claims) {
        writeln!(out, "  {name}: {value}")?;
    }
    writeln!(out, "  faults done: {}", joined(&report.faults))?;
    for (name, tally) in &report.profiles {
        writeln!(out, "  {name}: {} passed, {} failed, {} not run", tally.passed, tally.failed, tally.not_run)?;
    }
    writeln!(out, "  statements: {} of {}", report.statements.ran, report.statements.of)?;
    for case in &report.cases {
        if !matches!(case.outcome, Outcome::Passed) {
            let (word, why) = told(&case.outcome);
            writeln!(out, "  {}: {word}: {why}", case.name)?;
        }
    }
    if let Some(seed) = report.seed {
        writeln!(out, "  seed: {seed}")?;
    }
    writeln!(out, "  took: {:.1?}", report.duration)?;
    writeln!(out, "  again: {}", report.reproduce)
}
