//! The report for a terminal.

use std::fmt::Write;

use super::{Report, Tally, again, bounds, impossible, joined, told};
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
    if !report.missing_hooks.is_empty() {
        writeln!(out, "  missing hooks: {}", joined(&report.missing_hooks))?;
    }
    if !report.claims.impossible.is_empty() {
        writeln!(out, "  faults that cannot exist here: {}", joined(impossible(&report.claims)))?;
    }
    for (name, tally) in &report.profiles {
        let Tally { passed, failed, not_run, not_applicable } = tally;
        writeln!(
            out,
            "  {name}: {passed} passed, {failed} failed, {not_run} not run, {not_applicable} not applicable"
        )?;
    }
    if !report.unproven.is_empty() {
        writeln!(out, "  claimed, and no case ran: {}", joined(&report.unproven))?;
    }
    let statements = &report.statements;
    let (elsewhere, not_applicable) = (statements.elsewhere.len(), statements.not_applicable.len());
    writeln!(
        out,
        "  statements: {} of {} looked at, {not_applicable} not applicable, {elsewhere} judged by other tests",
        statements.ran, statements.of
    )?;
    if report.judged_again > 0 {
        writeln!(out, "  judged again, since the machine was busy: {}", report.judged_again)?;
    }
    for case in &report.cases {
        let (word, why) = told(&case.outcome);
        let again = again(&report.claims, case).map(|again| format!(" ({again})"));
        match (&case.outcome, again) {
            (Outcome::Passed, None) => {}
            (Outcome::Passed, Some(again)) => writeln!(out, "  {}: {word}{again}", case.name)?,
            (_, again) => writeln!(out, "  {}: {word}{}: {why}", case.name, again.unwrap_or_default())?,
        }
    }
    if let Some(seed) = report.seed {
        writeln!(out, "  seed: {seed}")?;
    }
    writeln!(out, "  took: {:.1?}", report.duration)?;
    writeln!(out, "  again: {}", report.reproduce)
}
