//! Reports of a run that never was: every verdict, and text that each format has to escape.

use std::collections::BTreeSet;
use std::time::Duration;

use discovery_conformance::{Claims, Clock, Hook, Outcome, Ran, Report, Verdict};
use discovery_core::{Bounds, Capabilities};

fn ran(name: &'static str, statement: &str, profile: &'static str, outcome: Outcome) -> Ran {
    let faults = BTreeSet::from([Hook::Cut]);
    Ran { name, statement: statement.to_owned(), profile, outcome, took: Duration::from_millis(5), faults, patience: 4 }
}

fn report(outcomes: Vec<Outcome>, expected: usize) -> Report {
    let mut capabilities = Capabilities::none();
    capabilities.ttl = true;
    let impossible = std::collections::BTreeMap::from([(Hook::Compact, "nothing is remembered | at all")]);
    let claims = Claims {
        capabilities,
        bounds: Bounds::default(),
        hooks: vec![Hook::Cut],
        impossible,
        clock: Clock::Real,
        patience: 4,
    };
    let names = ["reg_01_a", "liv_07_b", "flt_01_c", "key_01_d"];
    let cases = outcomes.into_iter().zip(names).map(|(outcome, name)| {
        let statement = name[..6].replace("_0", " ").to_uppercase();
        ran(name, &statement, if name.starts_with("liv") { "ttl" } else { "core" }, outcome)
    });
    Report::new("a<b", claims, cases.collect(), expected, Duration::from_secs(2), "again && again".to_owned())
}

#[test]
fn a_verdict_is_the_worst_that_happened() {
    let (passed, not_applicable) = (Outcome::Passed, Outcome::NotApplicable("[x] is not claimed".to_owned()));
    let no_hook = Outcome::NoHook("no hook for cut".to_owned());
    let skipped = Outcome::Skipped("later".to_owned());
    let failed = Outcome::Failed("a | b\n<c>".to_owned());
    for (outcomes, expected, verdict, success) in [
        (vec![passed.clone(), passed.clone(), not_applicable.clone()], 3, Verdict::Passed, true),
        (vec![passed.clone(), passed.clone(), no_hook.clone()], 3, Verdict::PassedBlackBox, true),
        (vec![passed.clone(), passed.clone(), skipped.clone()], 3, Verdict::Partial, false),
        // The second one is the only case of a capability that is claimed.
        (vec![passed.clone(), no_hook.clone(), passed.clone()], 3, Verdict::Partial, false),
        (vec![passed.clone(), not_applicable.clone(), passed.clone()], 3, Verdict::Partial, false),
        // Of four cases some were not selected.
        (vec![passed.clone(), no_hook.clone(), passed.clone()], 4, Verdict::Filtered, true),
        (vec![passed.clone(), skipped.clone()], 4, Verdict::Partial, false),
        (vec![no_hook.clone(), not_applicable], 4, Verdict::Partial, false),
        (vec![passed, no_hook, skipped, failed], 4, Verdict::Failed, false),
    ] {
        let report = report(outcomes, expected);
        assert_eq!((report.verdict, report.verdict.is_success()), (verdict, success));
    }
}

/// Who runs a few cases is never told that the backend passed.
#[test]
fn a_filtered_run_says_so_in_every_format() {
    let report = report(vec![Outcome::Passed, Outcome::Passed, Outcome::NoHook("no hook for cut".to_owned())], 4);
    let text = report.text();
    assert!(text.starts_with("a<b: filtered: 2 cases passed, 1 did not run\n"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&report.json().expect("JSON")).expect("JSON");
    assert_eq!(json["verdict"], "filtered");
    let junit = report.junit();
    assert!(junit.contains(r#"name="verdict" value="filtered: 2 cases passed, 1 did not run""#), "{junit}");
    let markdown = report.markdown();
    assert!(markdown.starts_with("# Conformance of a<b: filtered: 2 cases passed"), "{markdown}");
}

#[test]
fn every_format_says_the_same() {
    let outcomes = vec![
        Outcome::Passed,
        Outcome::NoHook("no hook for cut".to_owned()),
        Outcome::Failed("a | b\n<c> \u{1}\"d\" & e".to_owned()),
    ];
    let report = report(outcomes, 3).with_seed(42);
    assert_eq!((report.statements.ran, report.statements.of), (2, 83));
    assert_eq!(report.profiles["ttl"].not_run, 1);
    assert_eq!(report.unproven, BTreeSet::from(["ttl"]));

    let text = report.text();
    assert!(text.starts_with("a<b: failed\n"), "{text}");
    assert!(text.contains("flt_01_c: failed: a | b") && text.contains("seed: 42"), "{text}");
    assert!(text.contains("claimed, and no case ran: ttl"), "{text}");

    let json: serde_json::Value = serde_json::from_str(&report.json().expect("JSON")).expect("JSON");
    assert_eq!(json["verdict"], "failed");
    assert_eq!(json["cases"][1]["outcome"], "no_hook");
    assert_eq!(json["cases"][2]["detail"], "a | b\n<c> \u{1}\"d\" & e");

    let junit = report.junit();
    assert!(junit.contains(r#"tests="3" failures="1" errors="0" skipped="1""#), "{junit}");
    assert!(junit.contains("a | b&#10;&lt;c&gt; \u{fffd}&quot;d&quot; &amp; e"), "{junit}");
    assert!(junit.contains(r#"classname="a&lt;b.core""#), "{junit}");
    assert_eq!(junit.matches("<testcase").count(), 3);

    let markdown = report.markdown();
    assert!(markdown.contains(r"| FLT 1 | `flt_01_c` | failed | a \| b <c>"), "{markdown}");
    assert!(markdown.contains("| core | 1 | 1 | 0 | 0 |"), "{markdown}");
}

/// Programs are told which hooks are missing by their names, and people why a fault cannot be there.
#[test]
fn missing_hooks_are_named_and_impossible_faults_explained() {
    let name = "liv_04_stopped_owner_comes_back";
    let no_hook = Outcome::NoHook("no hook for pause".to_owned());
    let claims = report(vec![Outcome::Passed], 1).claims;
    let cases = vec![ran("reg_01_a", "REG 1", "core", Outcome::Passed), ran(name, "LIV 4", "core", no_hook)];
    let report = Report::new("a", claims, cases, 2, Duration::from_secs(2), "again".to_owned());
    assert_eq!(report.verdict, Verdict::PassedBlackBox);
    let json: serde_json::Value = serde_json::from_str(&report.json().expect("JSON")).expect("JSON");
    assert_eq!(json["missing_hooks"], serde_json::json!(["pause"]));
    assert_eq!(json["claims"]["impossible"]["compact"], "nothing is remembered | at all");
    let text = report.text();
    assert!(text.contains("missing hooks: pause\n"), "{text}");
    assert!(text.contains("cannot exist here: compact (nothing is remembered | at all)"), "{text}");
    assert!(report.markdown().contains(r"cannot exist here: compact (nothing is remembered \| at all)"));
    assert!(report.junit().contains(r#"name="missing hooks" value="pause""#));
}

/// A verdict that a busy machine needed more patience for says so, for the run and for each case.
#[test]
fn what_was_judged_again_is_shown_and_counted_in_every_format() {
    let report = |patience| {
        let claims = report(vec![Outcome::Passed], 1).claims;
        let mut cases = vec![
            ran("reg_01_a", "REG 1", "core", Outcome::Passed),
            ran("flt_01_c", "FLT 1", "core", Outcome::Failed("late".to_owned())),
        ];
        cases.iter_mut().for_each(|case| case.patience = patience);
        Report::new("a", claims, cases, 2, Duration::from_secs(2), "again".to_owned())
    };
    let (once, again) = (report(4), report(16));
    assert_eq!((once.judged_again, again.judged_again), (0, 2));
    let text = again.text();
    assert!(text.contains("  judged again, since the machine was busy: 2\n"), "{text}");
    assert!(text.contains("  reg_01_a: passed (judged again, with 16 times a bound)\n"), "{text}");
    assert!(text.contains("  flt_01_c: failed (judged again, with 16 times a bound): late\n"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&again.json().expect("JSON")).expect("JSON");
    assert_eq!((&json["judged_again"], &json["cases"][0]["patience"]), (&2.into(), &16.into()));
    let junit = again.junit();
    assert!(junit.contains(r#"name="judged again" value="2""#), "{junit}");
    assert_eq!(junit.matches("<system-out>judged again, with 16 times a bound</system-out>").count(), 2, "{junit}");
    let markdown = again.markdown();
    assert!(markdown.contains("Judged again, since the machine was busy: 2."), "{markdown}");
    assert!(markdown.contains("| `reg_01_a` | passed (judged again, with 16 times a bound) |"), "{markdown}");
    for quiet in [once.text(), once.markdown(), once.junit()] {
        assert!(!quiet.contains("judged again, with"), "{quiet}");
    }
}

/// What a reader needs to judge a report, and to have it again, is in each format.
#[test]
fn every_format_says_what_ran_on_which_claims_and_how_to_have_it_again() {
    let report = report(vec![Outcome::Passed, Outcome::NoHook("no hook for cut".to_owned())], 2).with_seed(4711);
    let json: serde_json::Value = serde_json::from_str(&report.json().expect("JSON")).expect("JSON");
    assert_eq!(json["duration"], serde_json::json!({"secs": 2, "nanos": 0}));
    assert_eq!((&json["seed"], &json["reproduce"]), (&4711.into(), &"again && again".into()));
    assert_eq!(json["faults"], serde_json::json!(["cut"]));
    let bounds = Bounds::default();
    assert_eq!(json["claims"]["bounds"]["max_batch"], bounds.max_batch);
    assert_eq!(json["claims"]["patience"], 4);

    let (propagation, batch) = (format!("{:?}", bounds.propagation), bounds.max_batch);
    let in_text = |name: &str, value: &str| format!("  {name}: {value}\n");
    let in_junit = |name: &str, value: &str| format!(r#"<property name="{name}" value="{value}"/>"#);
    let in_markdown = |name: &str, value: &str| format!("| {name} | {value} |\n");
    /// Its name, a report in it, how it tells a property, and what else has to be there.
    type Format<'a> = (&'a str, String, &'a dyn Fn(&str, &str) -> String, [&'a str; 4]);
    let formats: [Format<'_>; 3] = [
        ("text", report.text(), &in_text, ["took: 2.0s", "again: again && again", "seed: 4711", "faults done: cut\n"]),
        (
            "JUnit",
            report.junit(),
            &in_junit,
            [
                r#"time="2.000""#,
                r#"name="reproduce" value="again &amp;&amp; again""#,
                r#"name="seed" value="4711""#,
                r#"name="faults done" value="cut""#,
            ],
        ),
        (
            "Markdown",
            report.markdown(),
            &in_markdown,
            [", 2.0s.", "Again: `again && again`", "Seed of the randomised run: 4711", "Faults done: cut."],
        ),
    ];
    for (format, told, bound, parts) in formats {
        let bounds =
            [("P (propagation)", &*propagation), ("max_batch", &*batch.to_string()), ("patience", "4 times a bound")]
                .map(|(name, value)| bound(name, value));
        for part in bounds.iter().map(String::as_str).chain(parts) {
            assert!(told.contains(part), "{format} does not say {part:?}:\n{told}");
        }
    }
}
