//! Cases: their names, what they need, how they end.

use std::fmt;

use discovery_core::Capabilities;
use futures_util::future::LocalBoxFuture;

use crate::trial::Trial;
use crate::world::{Clock, Hook};

/// How a case ended, other than well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The backend, or the core, breaks the statement.
    Failed(String),
    /// The case did not come to a judgement, and why.
    Skipped(String),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(why) | Self::Skipped(why) => f.write_str(why),
        }
    }
}

impl From<discovery_core::Error> for End {
    fn from(error: discovery_core::Error) -> Self {
        Self::Failed(format!("{error} [{}]", error.kind()))
    }
}

/// What a case answers.
pub type CaseResult<T = ()> = Result<T, End>;

/// Runs a case on a trial.
pub type Run = for<'a> fn(&'a Trial) -> LocalBoxFuture<'a, CaseResult>;

/// One case of the suite.
#[derive(Clone, Copy)]
pub struct Case {
    /// Its name: the statement's id, then what it looks at.
    pub name: &'static str,
    /// The capabilities that it needs claimed, by their names in the contract.
    pub claims: &'static [&'static str],
    /// A capability that must not be claimed: the statement then says something else.
    pub without: Option<&'static str>,
    /// The faults that it does.
    pub hooks: &'static [Hook],
    /// The clock that it needs, whatever the backend's is.
    pub clock: Option<Clock>,
    /// The case itself.
    pub run: Run,
}

impl Case {
    /// The statement it is a case of: `REG 3`.
    pub fn statement(&self) -> String {
        let mut parts = self.name.split('_');
        let (section, number) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        format!("{} {}", section.to_uppercase(), number.trim_start_matches('0'))
    }

    /// The profile it belongs to: the last capability that it needs, or `core`.
    pub fn profile(&self) -> &'static str {
        self.claims.last().copied().unwrap_or("core")
    }

    /// Why it is not for a backend of these claims on this clock; `None` where it is.
    pub fn not_for(&self, capabilities: &Capabilities, clock: Clock) -> Option<String> {
        match (self.clock, clock) {
            (Some(Clock::Paused), Clock::Real) => return Some("for paused clocks".to_owned()),
            _ if clock == Clock::Paused && self.hooks.contains(&Hook::WallClock) => {
                return Some("for real clocks".to_owned());
            }
            _ => {}
        }
        let claimed = |name: &str| capabilities.entries().iter().any(|(known, is)| *known == name && *is);
        if let Some(missing) = self.claims.iter().find(|name| !claimed(name)) {
            return Some(format!("[{missing}] is not claimed"));
        }
        self.without.filter(|name| claimed(name)).map(|name| format!("[{name}] is claimed"))
    }

    /// The faults that it does and that are not offered.
    pub fn missing<'a>(&'a self, hooks: &'a [Hook]) -> impl Iterator<Item = Hook> + 'a {
        self.hooks.iter().copied().filter(|hook| !hooks.contains(hook))
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).field("claims", &self.claims).finish()
    }
}

/// Every section of the contract with the number of its statements.
pub const SECTIONS: [(&str, usize); 9] =
    [("REG", 15), ("LIV", 11), ("WAT", 8), ("ORD", 10), ("FLT", 17), ("CON", 7), ("KEY", 7), ("RDY", 5), ("WIRE", 3)];

/// A statement that no case of this suite can look at, and the tests that do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Elsewhere {
    /// The statement: `KEY 7`.
    pub statement: &'static str,
    /// Why it has no case here.
    pub why: &'static str,
    /// Files of this repository, and the functions there that judge it.
    pub proofs: &'static [(&'static str, &'static [&'static str])],
}

/// The statements that this suite has no case for, and where they are judged.
pub const ELSEWHERE: [Elsewhere; 4] = [
    Elsewhere {
        statement: "KEY 7",
        why: "EndpointSlices exist on Kubernetes only",
        proofs: &[
            ("discovery-k8s/tests/cluster/main.rs", &["moving_between_slices_is_no_change_and_two_uids_hide_both"]),
            (
                "discovery-k8s/tests/cluster/slices.rs",
                &[
                    "no_ready_pod_leaves_a_view_while_the_controller_deals_endpoints_out_anew",
                    "no_ready_pod_leaves_a_view_whose_connection_dies_in_the_middle_of_a_move",
                ],
            ),
            (
                "discovery-k8s/src/readiness.rs",
                &[
                    "an_endpoint_in_two_slices_moves_without_a_gap_and_terminates_everywhere",
                    "an_endpoint_that_is_in_no_slice_for_a_moment_is_waited_for",
                ],
            ),
            ("discovery-k8s/src/watch/tests/handover.rs", &["who_moves_stays_and_who_is_gone_leaves_in_time"]),
            (
                "discovery-k8s/src/watch/tests/handover/gaps.rs",
                &["a_silent_gap_in_the_middle_of_a_move_removes_nobody"],
            ),
        ],
    },
    Elsewhere {
        statement: "WIRE 1",
        why: "needs Dynamo's kinds, which the suite does not know",
        proofs: &[
            (
                "discovery-dynamo/tests/golden.rs",
                &[
                    "etcd_bytes_are_equal",
                    "etcd_records_decode",
                    "file_names_and_bytes_are_equal",
                    "files_decode",
                    "kubernetes_entries_are_equal",
                    "kubernetes_entries_decode",
                ],
            ),
            ("discovery-etcd/tests/records.rs", &["what_we_write_is_what_the_reference_wrote_and_reads_back"]),
            (
                "discovery-file/tests/records.rs",
                &["what_the_reference_wrote_is_read", "what_we_write_is_what_the_reference_wrote"],
            ),
        ],
    },
    Elsewhere {
        statement: "WIRE 2",
        why: "needs processes of the reference, which `cargo xtask peers` builds",
        proofs: &[
            ("peers/compare/src/interop/records.rs", &["bytes", "late", "update", "withdraw"]),
            ("peers/compare/src/interop/fleet.rs", &["leave", "crash", "idle", "replaced"]),
        ],
    },
    Elsewhere {
        statement: "WIRE 3",
        why: "a finished run shows it: its report has a verdict, and what is claimed and was not looked at",
        proofs: &[
            (
                "discovery-conformance/tests/reports.rs",
                &["a_verdict_is_the_worst_that_happened", "every_format_says_the_same"],
            ),
            (
                "discovery-conformance/src/harness.rs",
                &["a_hook_that_does_nothing_fails_the_run", "a_verdict_worse_than_expected_fails_the_run"],
            ),
        ],
    },
];

impl Elsewhere {
    /// The reason and the tests, on one line.
    pub fn told(&self) -> String {
        let proofs = self.proofs.iter().map(|(file, names)| {
            let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
            format!("{file}: {}", names.join(" "))
        });
        format!("{}; {}", self.why, proofs.collect::<Vec<_>>().join("; "))
    }
}

/// Ends a case as failed unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::case::End::Failed(format!($($text)+)));
        }
    };
}

/// How a case fails.
macro_rules! fail {
    ($($text:tt)+) => {
        $crate::case::End::Failed(format!($($text)+))
    };
}

/// The table of a section's cases: `name [claims] {hooks} @clock -without;`, each part but the name optional.
macro_rules! cases {
    (@clock) => { None };
    (@clock $clock:ident) => { Some($crate::world::Clock::$clock) };
    (@without) => { None };
    (@without $without:literal) => { Some($without) };
    ($($name:ident $([$($claim:literal),*])? $({$($hook:ident),*})? $(@ $clock:ident)? $(- $without:literal)?;)*) => {
        /// The cases of this section.
        pub(crate) const CASES: &[$crate::case::Case] = &[$(
            $crate::case::Case {
                name: stringify!($name),
                claims: &[$($($claim),*)?],
                without: cases!(@without $($without)?),
                hooks: &[$($($crate::world::Hook::$hook),*)?],
                clock: cases!(@clock $($clock)?),
                run: |trial| Box::pin($name(trial)),
            },
        )*];
    };
}

pub(crate) use {cases, ensure, fail};
