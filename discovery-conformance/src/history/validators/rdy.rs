//! Readiness.

use super::super::evidence::Evidence;
use super::super::log::{Fresh, Load, Seq};
use super::told;
use crate::world::Hook;

/// Of an owner that is not ready nothing is shown by who is live, once that must have come through.
pub(super) fn rdy_01(evidence: &Evidence<'_>) -> Vec<String> {
    let log = evidence.log;
    let mut texts = Vec::new();
    for harm in log.harms.iter().filter(|harm| harm.hook == Hook::Ready) {
        let (Some(owner), Some(struck)) = (harm.target, harm.struck) else { continue };
        // Another fault of the same owner that ends makes it ready, whichever began first.
        let ready_by = |at: Seq| {
            log.harms.iter().any(|other| {
                other.hook == Hook::Ready
                    && other.target == Some(owner)
                    && other.to.is_none_or(|to| to > harm.from)
                    && other.ending.is_some_and(|ending| ending < at)
            })
        };
        for load in log.loads.iter().filter(|load| load.at > struck && load.synced && load.fresh == Fresh::Live) {
            let of_owner = |n: u64| evidence.write_of(n).is_some_and(|write| evidence.log.writes[write].owner == owner);
            let Some((key, n)) = load.shown.iter().find(|(_, n)| of_owner(*n)) else { continue };
            if must_know(evidence, load, struck) && !ready_by(load.at) {
                let reader = evidence.reader(log.views[load.view].handle, Some(load.view));
                let (at, key) = (evidence.describe(load.at), evidence.name(*key));
                texts.push(format!("{reader} is live and shows {key} as {n} {at}: {}", evidence.harm(harm)));
            }
        }
    }
    told(texts)
}

/// Whether a view that is live has to show what was so at `since`.
fn must_know(evidence: &Evidence<'_>, load: &Load, since: Seq) -> bool {
    let handle = evidence.log.views[load.view].handle;
    let lag = evidence.lag(evidence.weather(handle, load.at), load.at);
    evidence.log.time(since) + lag < evidence.log.time(load.at) && !evidence.just_healed(handle, load.at)
}
