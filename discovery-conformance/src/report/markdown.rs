//! The report for a page.

use std::fmt::Write;

use super::{Report, Statements, Tally, again, bounds, impossible, joined, told};

pub(super) fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(report, &mut out);
    out
}

fn write(report: &Report, out: &mut String) -> std::fmt::Result {
    writeln!(out, "# Conformance of {}: {}\n", cell(&report.backend), report.conclusion())?;
    writeln!(out, "Suite {}, {:.1?}. Again: `{}`\n", report.suite, report.duration, report.reproduce)?;
    if let Some(seed) = report.seed {
        writeln!(out, "Seed of the randomised run: {seed}\n")?;
    }
    writeln!(out, "| profile | passed | failed | not run | not applicable |\n|---|---|---|---|---|")?;
    for (name, tally) in &report.profiles {
        let Tally { passed, failed, not_run, not_applicable } = tally;
        writeln!(out, "| {name} | {passed} | {failed} | {not_run} | {not_applicable} |")?;
    }
    if !report.unproven.is_empty() {
        writeln!(out, "\nClaimed, and no case ran: {}.", joined(&report.unproven))?;
    }
    writeln!(out, "\n| bound | declared |\n|---|---|")?;
    for (name, value) in bounds(&report.claims) {
        writeln!(out, "| {name} | {value} |")?;
    }
    writeln!(out, "\nFaults done: {}. Missing hooks: {}.\n", joined(&report.faults), joined(&report.missing_hooks))?;
    writeln!(out, "Faults that cannot exist here: {}.\n", cell(&joined(impossible(&report.claims))))?;
    writeln!(out, "Judged again, since the machine was busy: {}.\n", report.judged_again)?;
    writeln!(out, "Statements: {} of {}.\n", report.statements.ran, report.statements.of)?;
    writeln!(out, "| statement | case | outcome | detail |\n|---|---|---|---|")?;
    for case in &report.cases {
        let (word, why) = told(&case.outcome);
        let again = again(&report.claims, case).map(|again| format!(" ({again})")).unwrap_or_default();
        writeln!(out, "| {} | `{}` | {word}{again} | {} |", case.statement, case.name, cell(why))?;
    }
    writeln!(out, "\n| statement without a case that ran | why |\n|---|---|")?;
    let Statements { not_applicable, elsewhere, not_ran, .. } = &report.statements;
    for (sort, statements) in [("not run", not_ran), ("not applicable", not_applicable), ("elsewhere", elsewhere)] {
        for (statement, why) in statements {
            writeln!(out, "| {statement} | {sort}: {} |", cell(why))?;
        }
    }
    Ok(())
}

/// Text that stays in its cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
