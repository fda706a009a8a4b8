//! The conformance suite: one contract, every backend.
//!
//! A backend author implements [`Factory`] and [`World`], and calls `harness::main` from a test target without the
//! standard harness. Each statement of `docs/contract.md` is at least one case, filtered by what the backend claims.
//! A case that needs a fault which the world cannot do is listed with that reason and never counted as passed.

pub mod backends;
mod case;
mod cases;
mod counts;
mod follow;
#[cfg(feature = "harness")]
pub mod harness;
pub mod history;
mod item;
mod probe;
pub mod report;
mod run;
mod trial;
mod witness;
mod world;
pub mod wrappers;

pub use case::{Case, CaseResult, ELSEWHERE, Elsewhere, End, Run, SECTIONS};
pub use cases::all as cases;
pub use item::Item;
pub use report::{Report, Statements, Tally, Verdict};
pub use run::{Claims, Outcome, Ran, claims, run};
pub use trial::Trial;
pub use world::{Absent, Clock, Factory, Fault, Hook, World};
