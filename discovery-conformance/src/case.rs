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

/// The statements that this suite has no case for, and where they are judged.
pub const ELSEWHERE: [(&str, &str); 3] = [
    ("KEY 7", "EndpointSlices exist on Kubernetes only: the tests of that backend"),
    ("WIRE 1", "needs Dynamo's kinds, which the suite does not know: the golden tests of discovery-dynamo"),
    ("WIRE 2", "needs processes of the reference: the tests of each backend that shares a store with them"),
];

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
