//! Starting to watch.

use std::collections::BTreeMap;

use discovery_core::ErrorKind;

use super::super::evidence::{Evidence, Read, Wrong};
use super::super::log::{Opened, Seq, Tell, Who};
use super::{is_freshness, is_view, told};

/// Whether anything had happened that may keep a view from being opened.
fn hindered(evidence: &Evidence<'_>, view: &Opened) -> bool {
    let lately = evidence.log.seq_at(evidence.log.time(view.call).saturating_sub(evidence.silence()));
    evidence.log.harms.iter().any(|harm| {
        harm.from <= view.answered
            && harm.to.is_none_or(|to| to >= lately)
            && harm.target.is_none_or(|target| target == view.handle)
    })
}

/// Views whose opening failed though nothing was wrong, or took longer than the caller allowed.
fn not_opened(evidence: &Evidence<'_>, sort: impl Fn(&Opened) -> bool) -> Vec<String> {
    let mut texts = Vec::new();
    for (number, view) in evidence.log.views.iter().enumerate().filter(|(_, view)| sort(view)) {
        let took = evidence.log.time(view.answered).saturating_sub(evidence.log.time(view.call));
        let late = took > view.limit + evidence.limit(evidence.setting.bounds.propagation, view.answered);
        let reader = evidence.reader(view.handle, Some(number));
        if let Some(kind) = view.failed.filter(|kind| *kind == ErrorKind::Timeout && !hindered(evidence, view)) {
            texts.push(format!(
                "{reader} {}: {kind} after {took:?}, and nothing hindered it",
                evidence.describe(view.call)
            ));
        } else if late && !view.lazy {
            texts.push(format!(
                "{reader} {}: answered after {took:?} for {:?}",
                evidence.describe(view.call),
                view.limit
            ));
        }
    }
    told(texts)
}

/// Live by the deadline or an error; from then on every change shows within the bound.
pub(super) fn wat_01(evidence: &Evidence<'_>) -> Vec<String> {
    let mut texts = not_opened(evidence, |_| true);
    texts.extend(evidence.unsettled(&[], |one| is_freshness(one.what)));
    texts.extend(evidence.found(|finding| {
        matches!(finding.read, Read::Batch | Read::Load)
            && finding.weather.fair()
            && !finding.after_list
            && !finding.after_reached
            && (finding.wrong == Wrong::Missing && !finding.vanished || matches!(finding.wrong, Wrong::Dead { .. }))
    }));
    texts
}

/// The first state is one that the store had.
pub(super) fn wat_02(evidence: &Evidence<'_>) -> Vec<String> {
    evidence.found(|finding| finding.read == Read::First)
}

/// Whether the view's records had not been written by any client when it was called for.
fn unwritten(evidence: &Evidence<'_>, view: &Opened, before: Seq) -> bool {
    let scope = view.lens.scope();
    !evidence.log.writes.iter().any(|write| {
        write.start < before && scope.as_ref().is_none_or(|scope| scope.contains(&evidence.log.keys[write.key]))
    })
}

/// An empty query is synced, and an unsynced one is not empty.
pub(super) fn wat_03(evidence: &Evidence<'_>) -> Vec<String> {
    let mut texts = not_opened(evidence, |view| unwritten(evidence, view, view.call));
    texts.extend(
        evidence.found(|finding| finding.read == Read::First && finding.empty && finding.wrong == Wrong::Missing),
    );
    texts
}

/// No gap between the first state and the changes.
pub(super) fn wat_04(evidence: &Evidence<'_>) -> Vec<String> {
    let mut texts = evidence.found(|finding| {
        let (Some(view), Some(write)) = (finding.view.map(|view| &evidence.log.views[view]), finding.write) else {
            return false;
        };
        let write = &evidence.log.writes[write];
        let opening = evidence.log.time(view.answered) + evidence.lag(finding.weather, finding.at) * 2;
        is_view(finding)
            && matches!(finding.wrong, Wrong::Missing | Wrong::Dead { .. })
            && !finding.vanished
            && write.end.is_some_and(|end| end >= view.call)
            && evidence.log.time(write.start) <= opening
    });
    // A stream that was opened in this round and did not come to the list.
    texts.extend(evidence.unsettled(&[], |one| match one.what {
        Who::Fold(view) | Who::Load(view) => {
            let round = evidence.settled(evidence.log.times.len()).map_or(0, |settled| settled.at);
            evidence.log.views[view].call >= round
        }
        _ => false,
    }));
    texts
}

/// The first state does not come again.
pub(super) fn wat_05(evidence: &Evidence<'_>) -> Vec<String> {
    let mut texts = Vec::new();
    for number in 0..evidence.log.views.len() {
        let mut first: BTreeMap<usize, u64> = BTreeMap::new();
        for told in evidence.told_of(number) {
            if told.reset {
                first.clear();
                continue;
            }
            for tell in &told.tells {
                match *tell {
                    Tell::Added(key, n) if told.synced && first.insert(key, n).is_none() => {}
                    Tell::Added(key, n) if first.get(&key) == Some(&n) => {
                        let reader = evidence.reader(evidence.log.views[number].handle, Some(number));
                        let (at, name) = (evidence.describe(told.at), evidence.name(key));
                        texts.push(format!("{reader} {at}: {name} of the first state is added again"));
                    }
                    Tell::Added(..) => {}
                    Tell::Updated(key, ..) | Tell::Removed(key, _) => {
                        first.remove(&key);
                    }
                }
            }
        }
    }
    told(texts)
}

/// Watching before there is anything: the first record arrives.
pub(super) fn wat_06(evidence: &Evidence<'_>) -> Vec<String> {
    let first = |view: usize| unwritten(evidence, &evidence.log.views[view], evidence.log.views[view].call);
    let mut texts = evidence
        .found(|finding| finding.wrong == Wrong::Missing && finding.never_any && finding.view.is_some_and(first));
    texts.extend(evidence.unsettled(&[], |one| match one.what {
        Who::Fold(view) => one.missing > 0 && first(view),
        _ => false,
    }));
    texts
}

/// Who joins a watch starts from a state that is new enough.
pub(super) fn wat_07(evidence: &Evidence<'_>) -> Vec<String> {
    evidence.found(|finding| {
        let joined = finding.view.is_some_and(|view| evidence.log.views[view].joined);
        joined
            && finding.read == Read::First
            && matches!(finding.wrong, Wrong::Missing | Wrong::Dead { .. } | Wrong::Buried)
    })
}

/// Who only registers opens no watch.
pub(super) fn wat_08(evidence: &Evidence<'_>) -> Vec<String> {
    let setting = evidence.setting;
    let only = |handle: usize| handle < setting.owners || handle > setting.observer;
    let opened = evidence.log.watches.iter().filter(|(handle, times)| only(**handle) && !times.is_empty());
    told(opened.map(|(handle, times)| format!("owner {handle} opened {} watches", times.len())).collect())
}
