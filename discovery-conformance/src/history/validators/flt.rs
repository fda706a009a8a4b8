//! Faults.

use std::collections::{BTreeMap, BTreeSet};

use discovery_core::ErrorKind;

use super::super::evidence::{BREAKS, Evidence, Finding, Read, Wrong};
use super::super::log::{Fresh, Tell, Who};
use super::ord::blurred;
use super::{is_freshness, is_list, is_view, is_view_of, told};
use crate::world::Hook;

fn behind(finding: &Finding) -> bool {
    is_view(finding) && matches!(finding.wrong, Wrong::Missing | Wrong::Dead { .. } | Wrong::Buried | Wrong::Churn)
}

/// Cut, written, healed: the same as the list, and what did not change is not told again.
pub(super) fn flt_01(evidence: &Evidence<'_>) -> Vec<String> {
    let mut texts = evidence.found(|finding| behind(finding) && finding.weather.link && !finding.garbage);
    texts.extend(evidence.unsettled(&[Hook::Cut, Hook::HalfOpen], |one| is_view_of(one.what)));
    texts
}

/// History lost: what was deleted meanwhile is removed, and nothing else.
pub(super) fn flt_02(evidence: &Evidence<'_>) -> Vec<String> {
    let mut texts = evidence.found(|finding| behind(finding) && finding.weather.compact && !finding.garbage);
    texts.extend(evidence.unsettled(&[Hook::Compact], |one| is_view_of(one.what)));
    texts
}

/// Nobody sees less while a view catches up.
pub(super) fn flt_03(evidence: &Evidence<'_>) -> Vec<String> {
    evidence.found(|finding| {
        is_view(finding)
            && finding.wrong == Wrong::Missing
            && finding.vanished
            && !finding.weather.calm()
            && !finding.garbage
    })
}

/// Deleted and recreated in a gap: another incarnation.
pub(super) fn flt_04(evidence: &Evidence<'_>) -> Vec<String> {
    if !evidence.setting.capabilities.incarnation {
        return Vec::new();
    }
    let gaps = |view: usize, from: usize, to: usize| {
        let handle = evidence.log.views[view].handle;
        evidence.log.harms.iter().any(|harm| {
            BREAKS.contains(&harm.hook)
                && harm.target.is_none_or(|target| target == handle)
                && harm.from <= to
                && harm.to.is_none_or(|to| to >= from)
        })
    };
    let blurred = blurred(evidence).into_iter().filter(|(view, from, to, _)| gaps(*view, *from, *to));
    told(blurred.map(|(.., text)| text).collect())
}

/// A quiet prefix stays quiet.
pub(super) fn flt_05(evidence: &Evidence<'_>) -> Vec<String> {
    let quiet = |view: usize| evidence.log.views[view].lens.segments == ["quiet"];
    let mut texts = evidence.found(|finding| {
        finding.view.is_some_and(quiet)
            && matches!(finding.wrong, Wrong::Missing | Wrong::Churn)
            && (finding.vanished || finding.wrong == Wrong::Churn)
    });
    let ended = evidence.log.ended.iter().filter(|(view, _)| quiet(*view));
    texts.extend(ended.map(|(view, at)| format!("view {view} of a quiet prefix ended {}", evidence.describe(*at))));
    texts
}

/// A connection that is dead without a word is noticed.
pub(super) fn flt_06(evidence: &Evidence<'_>) -> Vec<String> {
    // Who was stopped reads nothing itself. It is as good as a dead connection where silence is a sign of one.
    let silent: &[Hook] = match evidence.setting.bounds.silence {
        Some(_) => &[Hook::HalfOpen, Hook::Pause],
        None => &[Hook::HalfOpen],
    };
    evidence.unnoticed(silent, |fresh, _| fresh != Fresh::Live)
}

/// A member or the leader goes, and nothing of the living with it.
pub(super) fn flt_07(evidence: &Evidence<'_>) -> Vec<String> {
    evidence.found(|finding| {
        finding.weather.member
            && matches!(finding.wrong, Wrong::Missing | Wrong::Churn)
            && finding.vanished
            && !finding.garbage
    })
}

/// An outage: the last set is still served, marked as stale until it is over.
pub(super) fn flt_08(evidence: &Evidence<'_>) -> Vec<String> {
    let mut texts = evidence.unnoticed(&[Hook::Outage, Hook::Cut], |fresh, _| fresh != Fresh::Live);
    texts.extend(evidence.unsettled(&[Hook::Outage, Hook::Cut], |one| is_freshness(one.what)));
    texts.extend(evidence.found(|finding| {
        finding.weather.outage
            && is_view(finding)
            && finding.wrong == Wrong::Missing
            && finding.vanished
            && !finding.garbage
    }));
    texts
}

/// A long outage: everything is back, and left at most once.
pub(super) fn flt_09(evidence: &Evidence<'_>) -> Vec<String> {
    let mut texts = evidence.unsettled(&[Hook::Outage], |one| is_list(one.what) && one.missing > 0);
    for (view, opened) in evidence.log.views.iter().enumerate() {
        let mut left: BTreeMap<(usize, u64), usize> = BTreeMap::new();
        for told in evidence.told_of(view) {
            // Where nothing else takes records away, the outage does so once.
            let mut harms = evidence.harms(told.at);
            let alone =
                harms.all(|harm| matches!(harm.hook, Hook::Outage | Hook::Compact | Hook::Reorder | Hook::Duplicate));
            let outages = evidence.harms(told.at).filter(|harm| harm.hook == Hook::Outage).count();
            if !alone || outages != 1 || opened.lens.even || evidence.setting.wrapped {
                left.clear();
                continue;
            }
            for tell in &told.tells {
                let Tell::Removed(key, n) = *tell else { continue };
                let times = left.entry((key, n)).or_default();
                *times += 1;
                if *times > 1 {
                    let reader = evidence.reader(opened.handle, Some(view));
                    texts.push(format!("{reader} {}: {} left twice", evidence.describe(told.at), evidence.name(key)));
                }
            }
        }
    }
    told(texts)
}

/// Data lost: everything is back.
pub(super) fn flt_10(evidence: &Evidence<'_>) -> Vec<String> {
    evidence.unsettled(&[Hook::LoseData, Hook::RollBack], |one| is_list(one.what) && one.missing > 0)
}

/// Opened while the store is out of reach: no empty set that claims to be synced.
pub(super) fn flt_11(evidence: &Evidence<'_>) -> Vec<String> {
    evidence.found(|finding| {
        let Some(view) = finding.view.map(|view| &evidence.log.views[view]) else { return false };
        let down = evidence.log.harms.iter().any(|harm| {
            matches!(harm.hook, Hook::Outage | Hook::Cut | Hook::HalfOpen | Hook::Deny | Hook::Pause)
                && harm.target.is_none_or(|target| target == view.handle)
                && harm.from <= view.answered
                && harm.to.is_none_or(|to| to >= view.call)
        });
        finding.read == Read::First && finding.wrong == Wrong::Missing && down
    })
}

/// No stream ends for what passes.
pub(super) fn flt_12(evidence: &Evidence<'_>) -> Vec<String> {
    let ended = evidence.log.ended.iter().map(|(view, at)| {
        let reader = evidence.reader(evidence.log.views[*view].handle, Some(*view));
        format!("{reader} ended {}", evidence.describe(*at))
    });
    told(ended.collect())
}

/// Who cannot reach the store asks less and less often.
pub(super) fn flt_13(evidence: &Evidence<'_>) -> Vec<String> {
    let recovery = evidence.setting.bounds.recovery;
    let mut texts = Vec::new();
    for harm in evidence.log.harms.iter().filter(|harm| matches!(harm.hook, Hook::Cut | Hook::Outage | Hook::Deny)) {
        let (from, to) =
            (evidence.log.time(harm.from), harm.to.map_or(evidence.log.time(harm.from), |to| evidence.log.time(to)));
        for (handle, times) in &evidence.log.watches {
            if harm.target.is_some_and(|target| target != *handle) {
                continue;
            }
            let tries = times.iter().filter(|at| **at >= from && **at <= to).count();
            // Doubling up to a quarter of the bound of recovery, for each scope that the handle may have open.
            let each = 8.0 + to.saturating_sub(from).as_secs_f64() / (recovery.as_secs_f64() / 4.0);
            let views = evidence.log.views.iter().filter(|view| {
                view.handle == *handle
                    && harm.to.is_none_or(|to| view.call <= to)
                    && view.closed.is_none_or(|closed| closed >= harm.from)
            });
            let scopes: BTreeSet<_> = views.map(|view| view.lens.segments).collect();
            if tries as f64 > each * scopes.len() as f64 {
                let lasted = to.saturating_sub(from);
                texts.push(format!("handle {handle} tried {tries} times in {lasted:?} of {}", harm.hook));
            }
        }
    }
    told(texts)
}

/// What cannot be decoded hides nothing, and its last good value stays.
pub(super) fn flt_14(evidence: &Evidence<'_>) -> Vec<String> {
    let mut texts = evidence.found(|finding| finding.garbage && is_view(finding));
    texts.extend(evidence.unsettled(&[], |one| matches!(one.what, Who::Undecodable(_))));
    texts
}

/// Without permission a view is stale, and says so; with it the view is live again.
pub(super) fn flt_15(evidence: &Evidence<'_>) -> Vec<String> {
    // The cause is that of the newest try, which a wrapper may have failed before the store could refuse it.
    let wrapped = evidence.setting.wrapped;
    let mut texts = evidence.unnoticed(&[Hook::Deny], |fresh, others| match fresh {
        Fresh::Stale(kind) => wrapped || others || kind == ErrorKind::PermissionDenied,
        Fresh::Live | Fresh::Syncing => false,
    });
    texts.extend(evidence.unsettled(&[Hook::Deny], |one| is_freshness(one.what)));
    texts
}

/// What others wrote is shown as they wrote it.
pub(super) fn flt_16(evidence: &Evidence<'_>) -> Vec<String> {
    told(evidence.log.rewritten.iter().map(|(at, text)| format!("{}: {text}", evidence.describe(*at))).collect())
}
