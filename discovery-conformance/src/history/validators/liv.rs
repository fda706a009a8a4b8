//! Liveness.

use super::super::evidence::Evidence;
use super::super::log::Who;

/// Whatever befell a session or a record, its owner has it back, and is told so.
pub(super) fn liv_05(evidence: &Evidence<'_>) -> Vec<String> {
    evidence.unsettled(&[], |one| matches!(one.what, Who::Registration(_)))
}
