//! Reports: what ran, on which claims, and what it comes to.

mod junit;
mod markdown;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::case::{ELSEWHERE, SECTIONS};
use crate::cases::all;
use crate::run::{Claims, Outcome, Ran};
use crate::world::Hook;

/// What a run comes to, as WIRE 3 of the contract says.
///
/// Ordered from the best to the worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Verdict {
    /// Every case of the core and of each claimed capability that is about this backend ran and passed.
    #[serde(rename = "passed")]
    Passed,
    /// Every case that could run passed; some faults cannot be done to this backend.
    #[serde(rename = "passed (black box)")]
    PassedBlackBox,
    /// Some cases were not selected; those that were and could run passed. Nothing is said of the backend.
    #[serde(rename = "filtered")]
    Filtered,
    /// A case that should have run did not, and not for want of a hook; or a capability is claimed of which no case ran,
    /// whatever the reason.
    #[serde(rename = "partial")]
    Partial,
    /// A case failed.
    #[serde(rename = "failed")]
    Failed,
}

impl Verdict {
    /// Whether a run of this verdict exits with 0.
    pub fn is_success(self) -> bool {
        matches!(self, Self::Passed | Self::PassedBlackBox | Self::Filtered)
    }

    /// Whether this is at least as good as `least`, as verdicts on a backend go. [`Verdict::Filtered`] is none, and as good
    /// as any.
    pub fn reaches(self, least: Self) -> bool {
        self == Self::Filtered || self <= least
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Passed => "passed",
            Self::PassedBlackBox => "passed (black box)",
            Self::Filtered => "filtered",
            Self::Partial => "partial",
            Self::Failed => "failed",
        })
    }
}

/// How the cases of one profile went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// How many passed.
    pub passed: usize,
    /// How many failed.
    pub failed: usize,
    /// How many should have run and did not.
    pub not_run: usize,
    /// How many are not about this backend.
    pub not_applicable: usize,
}

/// A whole run on one backend.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The suite's version.
    pub suite: &'static str,
    /// The backend's name.
    pub backend: String,
    /// What it claims and declares.
    pub claims: Claims,
    /// How long the run took.
    pub duration: Duration,
    /// The seed of the randomised run, where there was one.
    pub seed: Option<u64>,
    /// The command that does the same again.
    pub reproduce: String,
    /// Every case, those that did not run included.
    pub cases: Vec<Ran>,
    /// How many cases the suite has: where fewer ran or did not run, some were picked.
    pub expected: usize,
    /// What it comes to.
    pub verdict: Verdict,
    /// The faults that the factory cannot do and that some case of this backend needs.
    pub missing_hooks: BTreeSet<Hook>,
    /// The faults that were done.
    pub faults: BTreeSet<Hook>,
    /// How many cases were judged again, with more patience, since the machine was busy: see [`Ran::patience`].
    pub judged_again: usize,
    /// By profile: `core`, and each claimed capability.
    pub profiles: BTreeMap<&'static str, Tally>,
    /// The capabilities that are claimed and of which no case ran.
    pub unproven: BTreeSet<&'static str>,
    /// The statements that have a case which ran, of all.
    pub statements: Statements,
}

/// How much of the contract was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Statements {
    /// Those with a case that ran.
    pub ran: usize,
    /// All that the contract has.
    pub of: usize,
    /// Those of which no case is about this backend, with the reason.
    pub not_applicable: BTreeMap<String, String>,
    /// Those that other tests than this suite's judge, and which.
    pub elsewhere: BTreeMap<String, String>,
    /// Those of which a case should have run and none did, with the reason.
    pub not_ran: BTreeMap<String, String>,
}

impl Report {
    /// Sums a run up. `expected` is how many cases the suite has: a run of fewer is filtered, or partial where none passed.
    pub fn new(
        backend: &str,
        claims: Claims,
        cases: Vec<Ran>,
        expected: usize,
        duration: Duration,
        reproduce: String,
    ) -> Self {
        let mut profiles = BTreeMap::from([("core", Tally::default())]);
        for (name, claimed) in claims.capabilities.entries() {
            if claimed {
                profiles.insert(name, Tally::default());
            }
        }
        let mut faults = BTreeSet::new();
        let mut missing_hooks = BTreeSet::new();
        for case in &cases {
            faults.extend(case.faults.iter().copied());
            let Some(tally) = profiles.get_mut(case.profile) else { continue };
            match &case.outcome {
                Outcome::Passed => tally.passed += 1,
                Outcome::Failed(_) => tally.failed += 1,
                Outcome::NoHook(_) => {
                    tally.not_run += 1;
                    let needs = all().find(|known| known.name == case.name);
                    missing_hooks.extend(needs.into_iter().flat_map(|needs| needs.missing(&claims.hooks)));
                }
                Outcome::Skipped(_) => tally.not_run += 1,
                Outcome::NotApplicable(_) => tally.not_applicable += 1,
            }
        }
        // What was not selected is missing from the run altogether, which makes it partial by itself.
        let ran = |tally: &Tally| tally.passed + tally.failed > 0 || tally.not_run + tally.not_applicable == 0;
        let unproven: BTreeSet<_> =
            profiles.iter().filter(|(_, tally)| !ran(tally)).map(|(profile, _)| *profile).collect();
        let is = |wanted: fn(&Outcome) -> bool| cases.iter().any(|case| wanted(&case.outcome));
        let judged_again = cases.iter().filter(|case| again(&claims, case).is_some()).count();
        let filtered = cases.len() < expected;
        let verdict = if is(|outcome| matches!(outcome, Outcome::Failed(_))) {
            Verdict::Failed
        } else if is(|outcome| matches!(outcome, Outcome::Skipped(_)))
            || (filtered && !is(|outcome| matches!(outcome, Outcome::Passed)))
            || (!filtered && !unproven.is_empty())
        {
            Verdict::Partial
        } else if filtered {
            Verdict::Filtered
        } else if is(|outcome| matches!(outcome, Outcome::NoHook(_))) {
            Verdict::PassedBlackBox
        } else {
            Verdict::Passed
        };
        Self {
            suite: env!("CARGO_PKG_VERSION"),
            backend: backend.to_owned(),
            claims,
            duration,
            seed: None,
            reproduce,
            statements: Statements::of(&cases),
            cases,
            expected,
            verdict,
            missing_hooks,
            faults,
            judged_again,
            profiles,
            unproven,
        }
    }

    /// Whether some cases were picked, and this is no verdict on the backend.
    pub fn is_filtered(&self) -> bool {
        self.cases.len() < self.expected
    }

    /// The same report with the seed of its randomised run.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The verdict in words, and of what it is the verdict where that is not the whole suite.
    pub fn conclusion(&self) -> String {
        if self.verdict != Verdict::Filtered {
            return self.verdict.to_string();
        }
        let passed = self.cases.iter().filter(|case| case.outcome == Outcome::Passed).count();
        let (cases, others) = (if passed == 1 { "case" } else { "cases" }, self.cases.len() - passed);
        let others = if others == 0 { String::new() } else { format!(", {others} did not run") };
        format!("{}: {passed} {cases} passed{others}", self.verdict)
    }

    /// For people, on a terminal.
    pub fn text(&self) -> String {
        text::render(self)
    }

    /// For programs.
    ///
    /// # Errors
    /// None in practice: every part of a report can be written as JSON.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string_pretty(self)
    }

    /// For services that collect test results: JUnit's XML.
    pub fn junit(&self) -> String {
        junit::render(self)
    }

    /// For a page beside a backend's documentation.
    pub fn markdown(&self) -> String {
        markdown::render(self)
    }
}

impl Statements {
    fn of(cases: &[Ran]) -> Self {
        let (mut not_applicable, mut elsewhere, mut not_ran) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (mut ran, mut of) = (0, 0);
        for (section, count) in SECTIONS {
            for number in 1..=count {
                of += 1;
                let statement = format!("{section} {number}");
                let mut mine = cases.iter().filter(|case| case.statement == statement).peekable();
                if mine.peek().is_none() {
                    match ELSEWHERE.iter().find(|known| known.statement == statement) {
                        Some(known) => elsewhere.insert(statement, known.told()),
                        None => not_ran.insert(statement, "not selected".to_owned()),
                    };
                    continue;
                }
                let (mut inapplicable, mut missing) = (None, None);
                let any = mine.any(|case| {
                    match &case.outcome {
                        Outcome::Passed | Outcome::Failed(_) => return true,
                        Outcome::NotApplicable(why) => inapplicable = Some(why.clone()),
                        Outcome::NoHook(why) | Outcome::Skipped(why) => missing = Some(why.clone()),
                    }
                    false
                });
                match (missing, inapplicable) {
                    _ if any => ran += 1,
                    (Some(why), _) => drop(not_ran.insert(statement, why)),
                    (None, why) => drop(not_applicable.insert(statement, why.unwrap_or_default())),
                }
            }
        }
        Self { ran, of, not_applicable, elsewhere, not_ran }
    }
}

/// The word and the reason of an outcome.
fn told(outcome: &Outcome) -> (&'static str, &str) {
    match outcome {
        Outcome::Passed => ("passed", ""),
        Outcome::Failed(why) => ("failed", why),
        Outcome::NotApplicable(why) => ("not applicable", why),
        Outcome::NoHook(why) => ("no hook", why),
        Outcome::Skipped(why) => ("skipped", why),
    }
}

/// What is to be said of a case that was judged again.
fn again(claims: &Claims, case: &Ran) -> Option<String> {
    let patience = case.patience;
    (patience > claims.patience.max(1)).then(|| format!("judged again, with {patience} times a bound"))
}

/// The declared bounds, in words.
fn bounds(claims: &Claims) -> Vec<(&'static str, String)> {
    let bounds = &claims.bounds;
    let optional = |duration: Option<Duration>| duration.map_or_else(|| "none".to_owned(), |some| format!("{some:?}"));
    vec![
        ("P (propagation)", format!("{:?}", bounds.propagation)),
        ("R (recovery)", format!("{:?}", bounds.recovery)),
        ("S (slack)", format!("{:?}", bounds.slack)),
        ("TTL, at least", optional(bounds.min_ttl)),
        ("TTL, by default", optional(bounds.default_ttl)),
        ("silence", optional(bounds.silence)),
        ("max_batch", bounds.max_batch.to_string()),
        ("max_watches", bounds.max_watches.to_string()),
        ("max_value", format!("{} bytes", bounds.max_value)),
        ("patience", format!("{} times a bound", claims.patience)),
    ]
}

/// The faults that cannot exist on the backend, each with its reason.
fn impossible(claims: &Claims) -> Vec<String> {
    claims.impossible.iter().map(|(hook, why)| format!("{hook} ({why})")).collect()
}

/// Names, joined.
fn joined<T: ToString>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| name.to_string()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
