//! Order, loss, duplicates.

use std::collections::BTreeMap;

use super::super::evidence::{Evidence, Read, Wrong};
use super::super::log::{Act, Answer, FOREIGN, Id, Seq, Tell, Who};
use super::{added, is_list, is_view, is_view_of, listed, told};
use crate::world::Hook;

/// Per key, what is delivered was committed, in that order.
pub(super) fn ord_01(evidence: &Evidence<'_>) -> Vec<String> {
    let mut texts = Vec::new();
    for view in 0..evidence.log.views.len() {
        let tells = evidence.told_of(view).flat_map(|told| {
            let new = told.tells.iter().filter_map(added);
            new.map(|(key, n)| (told.at, told.at, key, n))
        });
        texts.extend(evidence.goes_back(tells, &evidence.reader(evidence.log.views[view].handle, Some(view))));
    }
    texts.extend(evidence.found(|finding| {
        let never = matches!(finding.wrong, Wrong::Never | Wrong::Refused(_) | Wrong::Outside);
        let gone = finding.wrong == Wrong::Missing && finding.vanished && finding.weather.fair() && !finding.garbage;
        is_view(finding) && (never || gone)
    }));
    told(texts)
}

/// After the last write every fold is the list and the model.
pub(super) fn ord_02(evidence: &Evidence<'_>) -> Vec<String> {
    evidence.unsettled(&[], |one| is_view_of(one.what) || is_list(one.what))
}

/// What changes nothing produces no change.
pub(super) fn ord_03(evidence: &Evidence<'_>) -> Vec<String> {
    let equal = evidence.log.told.iter().flat_map(|told| told.tells.iter().map(move |tell| (told, tell)));
    let equal = equal.filter_map(|(told, tell)| match *tell {
        Tell::Updated(key, old, new) if old == new && !foreign(evidence, old) => Some((told, key)),
        _ => None,
    });
    let texts = equal.map(|(told, key)| {
        let reader = evidence.reader(evidence.log.views[told.view].handle, Some(told.view));
        format!("{reader} {}: {} is updated to what it was", evidence.describe(told.at), evidence.name(key))
    });
    let mut texts: Vec<String> = texts.collect();
    texts.extend(evidence.found(|finding| finding.wrong == Wrong::Churn));
    super::told(texts)
}

/// Whether an owner may have had to write its value over one of nobody's that holds the same.
fn foreign(evidence: &Evidence<'_>, n: u64) -> bool {
    evidence.write_of(n).is_none_or(|write| evidence.log.writes[write].owner == FOREIGN)
}

/// Added, then updated, then removed.
pub(super) fn ord_04(evidence: &Evidence<'_>) -> Vec<String> {
    let mut texts = Vec::new();
    for (view, opened) in evidence.log.views.iter().enumerate() {
        let mut fold: BTreeMap<Id, u64> = BTreeMap::new();
        for told in evidence.told_of(view) {
            if told.reset {
                fold.clear();
            }
            for tell in &told.tells {
                let (right, key) = match *tell {
                    Tell::Added(key, n) => (fold.insert(key, n).is_none(), key),
                    Tell::Updated(key, old, n) => (fold.insert(key, n) == Some(old), key),
                    Tell::Removed(key, old) => (fold.remove(&key) == Some(old), key),
                };
                if !right {
                    let reader = evidence.reader(opened.handle, Some(view));
                    texts.push(format!("{reader} {}: {} {tell:?}", evidence.describe(told.at), evidence.name(key)));
                }
            }
        }
    }
    told(texts)
}

/// Updates from one incarnation to another, with the batch before and the batch that tells it.
pub(super) fn blurred(evidence: &Evidence<'_>) -> Vec<(usize, Seq, Seq, String)> {
    let mut found = Vec::new();
    for (view, opened) in evidence.log.views.iter().enumerate() {
        let mut last = opened.call;
        for told in evidence.told_of(view) {
            for tell in &told.tells {
                let Tell::Updated(key, old, new) = *tell else { continue };
                let (Some(a), Some(b)) = (evidence.write_of(old), evidence.write_of(new)) else { continue };
                let (before, after) = (&evidence.log.writes[a], &evidence.log.writes[b]);
                let between = evidence.writes_of(key).iter().map(|write| &evidence.log.writes[*write]).any(|write| {
                    write.owner == before.owner
                        && write.act == Act::Delete
                        && write.answer == Answer::Ok
                        && write.start > before.start
                        && write.end.is_some_and(|end| end < after.start)
                });
                let owners = before.owner == after.owner && before.owner != FOREIGN;
                let lost = evidence
                    .harms(told.at)
                    .any(|harm| harm.hook == Hook::RollBack || (harm.hook == Hook::Write && harm.key == Some(key)));
                if between && owners && !lost {
                    let reader = evidence.reader(opened.handle, Some(view));
                    let text = format!(
                        "{reader} {}: {} goes from {old} to {new} as an update, and was gone between",
                        evidence.describe(told.at),
                        evidence.name(key)
                    );
                    found.push((view, last, told.at, text));
                }
            }
            last = told.at;
        }
    }
    found
}

/// A new incarnation shows as such.
pub(super) fn ord_05(evidence: &Evidence<'_>) -> Vec<String> {
    let always = evidence.setting.capabilities.incarnation;
    let blurred = blurred(evidence)
        .into_iter()
        .filter(|(view, _, at, _)| always || evidence.weather(evidence.log.views[*view].handle, *at).calm());
    told(blurred.map(|(.., text)| text).collect())
}

/// Versions grow, and a load is not behind a batch.
pub(super) fn ord_06(evidence: &Evidence<'_>) -> Vec<String> {
    let mut texts = Vec::new();
    for (view, opened) in evidence.log.views.iter().enumerate() {
        let mut told_at = 0;
        let reader = evidence.reader(opened.handle, Some(view));
        for told in evidence.told_of(view) {
            if told.version < told_at {
                texts.push(format!(
                    "{reader} {}: version {} after {told_at}",
                    evidence.describe(told.at),
                    told.version
                ));
            }
            if told.loaded < told.version {
                let (at, loaded, version) = (evidence.describe(told.at), told.loaded, told.version);
                texts.push(format!("{reader} {at}: load() is at {loaded} after a batch that leads to {version}"));
            }
            told_at = told.version;
        }
        let mut loaded = 0;
        for load in evidence.log.loads.iter().filter(|load| load.view == view) {
            if load.version < loaded {
                texts.push(format!(
                    "{reader} {}: load() goes from {loaded} to {}",
                    evidence.describe(load.at),
                    load.version
                ));
            }
            loaded = load.version;
        }
    }
    told(texts)
}

/// A transaction shows whole.
pub(super) fn ord_07(evidence: &Evidence<'_>) -> Vec<String> {
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, write) in evidence.log.writes.iter().enumerate() {
        if let Some(group) = write.group {
            groups.entry(group).or_default().push(index);
        }
    }
    let mut texts = Vec::new();
    let mut check = |shown: &BTreeMap<Id, u64>, at: Seq, handle: usize, view: Option<usize>| {
        for members in groups.values().filter(|members| evidence.log.writes[members[0]].start <= at) {
            let lens = view.map(|view| &evidence.log.views[view].lens);
            let scope = lens.and_then(super::super::log::Lens::scope);
            let even = lens.is_some_and(|lens| lens.even);
            let here = members.iter().map(|member| &evidence.log.writes[*member]).filter(|write| {
                scope.as_ref().is_none_or(|scope| scope.contains(&evidence.log.keys[write.key]))
                    && !(even && write.act.value().is_some_and(|n| n % 2 == 1))
            });
            let here: Vec<_> = here.collect();
            let shows = here.iter().filter(|write| shown.get(&write.key).copied() == write.act.value()).count();
            if shows == 0 || shows == here.len() || touched(evidence, members, at) {
                continue;
            }
            let reader = evidence.reader(handle, view);
            texts.push(format!("{reader} {}: {shows} of {} of one transaction", evidence.describe(at), here.len()));
        }
    };
    for (view, opened) in evidence.log.views.iter().enumerate() {
        let mut fold = BTreeMap::new();
        for told in evidence.told_of(view) {
            if told.reset {
                fold.clear();
            }
            for tell in &told.tells {
                match *tell {
                    Tell::Added(key, n) | Tell::Updated(key, _, n) => fold.insert(key, n),
                    Tell::Removed(key, _) => fold.remove(&key),
                };
            }
            check(&fold, told.at, opened.handle, Some(view));
        }
    }
    for load in evidence.log.loads.iter().filter(|load| load.synced) {
        check(&load.shown.iter().copied().collect(), load.at, evidence.log.views[load.view].handle, Some(load.view));
    }
    told(texts)
}

/// Whether anything but the transaction itself had happened to its keys by `at`.
fn touched(evidence: &Evidence<'_>, members: &[usize], at: Seq) -> bool {
    let first = &evidence.log.writes[members[0]];
    let later = members.iter().any(|member| {
        let own = &evidence.log.writes[*member];
        evidence.writes_of(own.key).iter().any(|write| write > member && evidence.log.writes[*write].start <= at)
    });
    // What ends a session ends the transaction, and the records come back one by one.
    let mild = [Hook::Compact, Hook::LeaderChange, Hook::LoseMember, Hook::Reorder, Hook::Duplicate];
    let harmed = evidence.log.harms.iter().any(|harm| {
        let key = harm.key.is_none_or(|key| members.iter().any(|member| evidence.log.writes[*member].key == key));
        let owner = harm.target.is_none_or(|target| target == first.owner);
        !mild.contains(&harm.hook)
            && key
            && owner
            && harm.from <= at
            && harm.to.is_none_or(|to| to >= first.start || harm.hook == Hook::LoseData)
    });
    later || harmed || first.answer == Answer::Unknown && first.end.is_some()
}

/// Nobody reads backwards.
pub(super) fn ord_08(evidence: &Evidence<'_>) -> Vec<String> {
    let mut texts = Vec::new();
    for handle in evidence.log.watches.keys() {
        let lists = listed(evidence, *handle);
        texts.extend(evidence.goes_back(lists, &format!("the lists of handle {handle}")));
    }
    for view in 0..evidence.log.views.len() {
        let loads = evidence.log.loads.iter().filter(|load| load.view == view);
        let shown = loads.flat_map(|load| load.shown.iter().map(|(key, n)| (load.at, load.at, *key, *n)));
        texts.extend(evidence.goes_back(shown, &evidence.reader(evidence.log.views[view].handle, Some(view))));
    }
    texts.extend(evidence.found(|finding| finding.after_list));
    told(texts)
}

/// Everybody reads what they wrote.
pub(super) fn ord_09(evidence: &Evidence<'_>) -> Vec<String> {
    evidence.found(|finding| {
        let own = finding.write.is_some_and(|write| evidence.log.writes[write].owner == finding.handle);
        let behind = matches!(finding.wrong, Wrong::Missing | Wrong::Dead { .. });
        behind && (finding.after_reached || (finding.read == Read::List && own))
    })
}

/// The log tells everything after its token.
pub(super) fn ord_10(evidence: &Evidence<'_>) -> Vec<String> {
    evidence.unsettled(&[], |one| one.what == Who::ChangeLog)
}
