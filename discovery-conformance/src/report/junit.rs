//! The report as JUnit's XML.

use std::fmt::Write;

use super::{Report, again, bounds, impossible, joined, told};
use crate::run::Outcome;

pub(super) fn render(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(report, &mut out);
    out
}

fn write(report: &Report, out: &mut String) -> std::fmt::Result {
    let count = |wanted: fn(&Outcome) -> bool| report.cases.iter().filter(|case| wanted(&case.outcome)).count();
    let failures = count(|outcome| matches!(outcome, Outcome::Failed(_)));
    let passed = count(|outcome| matches!(outcome, Outcome::Passed));
    let skipped = report.cases.len() - failures - passed;
    writeln!(out, r#"<?xml version="1.0" encoding="UTF-8"?>"#)?;
    let (tests, time) = (report.cases.len(), report.duration.as_secs_f64());
    writeln!(
        out,
        r#"<testsuites name="discovery-conformance" tests="{tests}" failures="{failures}" errors="0" time="{time:.3}">"#
    )?;
    writeln!(
        out,
        r#"  <testsuite name="{}" tests="{tests}" failures="{failures}" errors="0" skipped="{skipped}" time="{time:.3}">"#,
        escaped(&report.backend)
    )?;
    writeln!(out, "    <properties>")?;
    let mut property = |name: &str, value: &str| {
        writeln!(out, r#"      <property name="{}" value="{}"/>"#, escaped(name), escaped(value))
    };
    property("verdict", &report.conclusion())?;
    property("suite", report.suite)?;
    property("claims", &joined(report.profiles.keys().filter(|name| **name != "core")))?;
    property("faults done", &joined(&report.faults))?;
    property("judged again", &report.judged_again.to_string())?;
    property("missing hooks", &joined(&report.missing_hooks))?;
    property("faults that cannot exist here", &joined(impossible(&report.claims)))?;
    property("claimed, and no case ran", &joined(&report.unproven))?;
    property("reproduce", &report.reproduce)?;
    if let Some(seed) = report.seed {
        property("seed", &seed.to_string())?;
    }
    for (name, value) in bounds(&report.claims) {
        property(name, &value)?;
    }
    writeln!(out, "    </properties>")?;
    for case in &report.cases {
        let head = format!(
            r#"    <testcase classname="{}.{}" name="{}" time="{:.3}""#,
            escaped(&report.backend),
            escaped(case.profile),
            escaped(case.name),
            case.took.as_secs_f64()
        );
        let (word, why) = told(&case.outcome);
        let mut inside = match &case.outcome {
            Outcome::Passed => String::new(),
            Outcome::Failed(_) => format!("      <failure message=\"{}\"/>\n", escaped(why)),
            _ => format!("      <skipped message=\"{word}: {}\"/>\n", escaped(why)),
        };
        if let Some(again) = again(&report.claims, case) {
            writeln!(inside, "      <system-out>{again}</system-out>")?;
        }
        if inside.is_empty() {
            writeln!(out, "{head}/>")?;
        } else {
            writeln!(out, "{head}>\n{inside}    </testcase>")?;
        }
    }
    writeln!(out, "  </testsuite>\n</testsuites>")
}

/// Text inside an attribute. What XML 1.0 cannot hold at all becomes U+FFFD.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' => out.push_str("&#10;"),
            '\t' => out.push_str("&#9;"),
            '\r' => out.push_str("&#13;"),
            c if (c as u32) < 0x20 || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
