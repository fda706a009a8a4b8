//! WIRE: the suite itself.

use crate::case::{CaseResult, cases, ensure};
use crate::trial::Trial;

cases! {
    wire_03_every_claim_has_cases;
}

async fn wire_03_every_claim_has_cases(t: &Trial) -> CaseResult {
    for (name, claimed) in t.capabilities().entries() {
        if claimed {
            let count = super::all().filter(|case| case.claims.contains(&name)).count();
            ensure!(count > 0, "[{name}] is claimed, and no case looks at it");
        }
    }
    Ok(())
}
