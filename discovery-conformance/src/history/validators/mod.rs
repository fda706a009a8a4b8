//! One validator for each statement that a history can show, named after it.

mod flt;
mod liv;
mod ord;
mod rdy;
mod reg;
#[cfg(test)]
mod tests;
mod wat;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::evidence::{BREAKS, Evidence, Finding, Read, Wrong};
use super::log::{Act, Answer, Fresh, Harm, Id, Seq, Tell, Told, Unsettled, Who};
use crate::world::Hook;

/// Reads a history and answers what breaks its statement.
pub(super) type Validate = fn(&Evidence<'_>) -> Vec<String>;

/// Every validator with its statement.
pub(super) const VALIDATORS: [(&str, Validate); 42] = [
    ("REG 1", reg::reg_01),
    ("REG 2", reg::reg_02),
    ("REG 4", reg::reg_04),
    ("REG 6", reg::reg_06),
    ("REG 9", reg::reg_09),
    ("REG 11", reg::reg_11),
    ("LIV 5", liv::liv_05),
    ("WAT 1", wat::wat_01),
    ("WAT 2", wat::wat_02),
    ("WAT 3", wat::wat_03),
    ("WAT 4", wat::wat_04),
    ("WAT 5", wat::wat_05),
    ("WAT 6", wat::wat_06),
    ("WAT 7", wat::wat_07),
    ("WAT 8", wat::wat_08),
    ("ORD 1", ord::ord_01),
    ("ORD 2", ord::ord_02),
    ("ORD 3", ord::ord_03),
    ("ORD 4", ord::ord_04),
    ("ORD 5", ord::ord_05),
    ("ORD 6", ord::ord_06),
    ("ORD 7", ord::ord_07),
    ("ORD 8", ord::ord_08),
    ("ORD 9", ord::ord_09),
    ("ORD 10", ord::ord_10),
    ("FLT 1", flt::flt_01),
    ("FLT 2", flt::flt_02),
    ("FLT 3", flt::flt_03),
    ("FLT 4", flt::flt_04),
    ("FLT 5", flt::flt_05),
    ("FLT 6", flt::flt_06),
    ("FLT 7", flt::flt_07),
    ("FLT 8", flt::flt_08),
    ("FLT 9", flt::flt_09),
    ("FLT 10", flt::flt_10),
    ("FLT 11", flt::flt_11),
    ("FLT 12", flt::flt_12),
    ("FLT 13", flt::flt_13),
    ("FLT 14", flt::flt_14),
    ("FLT 15", flt::flt_15),
    ("FLT 16", flt::flt_16),
    ("RDY 1", rdy::rdy_01),
];

/// The statements of ORD, FLT and WAT that no validator judges, and why.
pub const UNSEEN: [(&str, &str); 1] =
    [("FLT 17", "its faults belong to one backend, and what its writers are told is no history: the cases judge it")];

/// The statements that have a validator.
pub fn statements() -> impl Iterator<Item = &'static str> {
    VALIDATORS.iter().map(|(statement, _)| *statement)
}

/// How many violations of one statement are told; the others are counted.
const MOST: usize = 8;

fn told(mut texts: Vec<String>) -> Vec<String> {
    if texts.len() > MOST {
        let more = texts.len() - MOST;
        texts.truncate(MOST);
        texts.push(format!("and {more} more"));
    }
    texts
}

impl Evidence<'_> {
    fn describe(&self, at: Seq) -> String {
        format!("at {:?} (entry {at})", self.log.time(at))
    }

    fn harm(&self, harm: &Harm) -> String {
        let target = harm.target.map_or_else(String::new, |target| format!(" of {target}"));
        let key = harm.key.map_or_else(String::new, |key| format!(" of {}", self.name(key)));
        let (from, to) = (self.log.time(harm.from), harm.to.map(|to| self.log.time(to)));
        format!("{}{target}{key} {from:?}..{to:?} (entries {}..{:?})", harm.hook, harm.from, harm.to)
    }

    fn name(&self, key: Id) -> String {
        self.log.keys.get(key).map_or_else(|| "an unknown key".to_owned(), ToString::to_string)
    }

    fn reader(&self, handle: usize, view: Option<usize>) -> String {
        match view {
            Some(view) => {
                let lens = &self.log.views[view].lens;
                let even = if lens.even { ", even" } else { "" };
                format!("handle {handle}, view {view} of {}{even}", lens.segments.join("/"))
            }
            None => format!("handle {handle}, list"),
        }
    }

    /// The writes of a key around one of them, and the faults of the round.
    fn around(&self, key: Id, write: Option<usize>, at: Seq) -> String {
        let writes = write.map_or_else(String::new, |write| {
            let writes = self.writes_of(key);
            let before = writes.partition_point(|other| *other < write).saturating_sub(3);
            let around: Vec<_> =
                writes.iter().skip(before).take(7).map(|write| self.log.writes[*write].to_string()).collect();
            format!("; {}", around.join(", then "))
        });
        let harms: Vec<String> = self.harms(at).map(|harm| self.harm(harm)).collect();
        let harms = if harms.is_empty() { String::new() } else { format!("; faults: {}", harms.join(", ")) };
        writes + &harms
    }

    fn explain(&self, finding: &Finding) -> String {
        let write = finding.write.filter(|_| finding.wrong != Wrong::Never);
        let around = self.around(finding.key, write, finding.at);
        format!(
            "{}, {:?} {}: {} is {:?}{}{around}",
            self.reader(finding.handle, finding.view),
            finding.read,
            self.describe(finding.at),
            self.name(finding.key),
            finding.wrong,
            if finding.vanished { ", and had been shown" } else { "" },
        )
    }

    /// What was found of one sort, each view and key once.
    fn found(&self, sort: impl Fn(&Finding) -> bool) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let found = self.findings.iter().filter(|finding| sort(finding));
        let first = found.filter(|finding| seen.insert((finding.handle, finding.view, finding.key)));
        told(first.map(|finding| self.explain(finding)).collect())
    }

    /// The rounds that did not settle, in which one of these faults struck.
    fn unsettled(&self, hooks: &[Hook], sort: impl Fn(&Unsettled) -> bool) -> Vec<String> {
        let mut texts = Vec::new();
        for settled in self.log.settled.iter().filter(|settled| !settled.unsettled.is_empty()) {
            if !hooks.is_empty() && !self.harms(settled.at).any(|harm| hooks.contains(&harm.hook)) {
                continue;
            }
            let after = self.log.time(settled.at).saturating_sub(self.log.time(settled.healed));
            let of = settled.unsettled.iter().filter(|one| sort(one));
            texts.extend(of.map(|one| format!("{:?} {after:?} after all was healed: {}", one.what, one.text)));
            if let Some(last) = texts.last_mut() {
                let storm: Vec<String> = self.harms(settled.at).map(|harm| self.harm(harm)).collect();
                last.push_str(&format!("; the round's faults: {}", storm.join(", ")));
            }
        }
        told(texts)
    }

    fn told_of(&self, view: usize) -> impl Iterator<Item = &Told> {
        self.log.told.iter().filter(move |told| told.view == view)
    }

    /// What was told or loaded in the midst of a fault that had lasted for longer than it may go unnoticed, and is not
    /// right. `right` also learns whether another fault of the same reader came between, which may be the cause that is
    /// told.
    fn unnoticed(&self, hooks: &[Hook], right: impl Fn(Fresh, bool) -> bool) -> Vec<String> {
        let batches = self.log.told.iter().map(|told| (told.view, told.at, told.fresh));
        let loads = self.log.loads.iter().filter(|load| load.synced).map(|load| (load.view, load.at, load.fresh));
        let mut texts = Vec::new();
        for (view, at, fresh) in batches.chain(loads) {
            let (handle, now) = (self.log.views[view].handle, self.log.time(at));
            let limit = self.limit(self.setting.bounds.recovery, at);
            let mut lasting = self.log.harms.iter().filter(|harm| {
                hooks.contains(&harm.hook)
                    && harm.target.is_none_or(|target| target == handle)
                    && self.log.time(harm.from) + limit < now
                    && harm.ending.or(harm.to).is_none_or(|ending| ending > at)
            });
            // Another fault of the same handle may have been ended, or be in the midst of it, and have healed this one
            // with it.
            let healed = |from: Seq| {
                self.log.harms.iter().any(|other| {
                    // A store that comes back empty or older may have lost who is denied what.
                    let forgotten =
                        hooks.contains(&Hook::Deny) && matches!(other.hook, Hook::LoseData | Hook::RollBack);
                    let everybody = hooks.contains(&other.hook) || forgotten;
                    let same = other.target.map_or(everybody, |target| target == handle);
                    let ending = other.ending.or(other.to).is_some_and(|ending| ending < at);
                    same && ending && other.to.is_none_or(|to| to > from)
                })
            };
            let others = |harm: &Harm| {
                self.log.harms.iter().any(|other| {
                    BREAKS.contains(&other.hook)
                        && other.hook != harm.hook
                        && other.target.is_none_or(|target| target == handle)
                        && other.from <= at
                        && other.to.is_none_or(|to| to >= harm.from)
                })
            };
            if let Some(harm) = lasting.find(|harm| !right(fresh, others(harm)) && !healed(harm.from)) {
                let reader = self.reader(handle, Some(view));
                let since = self.log.time(harm.from);
                texts.push(format!("{reader} says {fresh:?} {}: {} since {since:?}", self.describe(at), harm.hook));
            }
        }
        told(texts)
    }

    /// Values of one owner that show again after a later one of the same owner did, by the same reader. An event is
    /// what was read between two entries: of two that overlap, neither is the later one.
    fn goes_back(&self, events: impl Iterator<Item = (Seq, Seq, Id, u64)>, who: &str) -> Vec<String> {
        let mut seen: BTreeMap<(Id, usize), Seen> = BTreeMap::new();
        let mut texts = Vec::new();
        let mut cleared = 0;
        for (from, at, key, n) in events {
            let loss = self.harms(at).filter(|harm| harm.hook == Hook::RollBack).map(|harm| harm.from).max();
            // After a roll-back anything of the past may show.
            if loss.is_some_and(|loss| loss >= cleared) {
                seen.clear();
                cleared = at;
            }
            let Some(write) = self.write_of(n) else { continue };
            let seen = seen.entry((key, self.log.writes[write].owner)).or_default();
            let newest = seen.newest(from).filter(|newest| self.log.follows(*newest, write));
            let again = seen.taken_back.get(&write).is_some_and(|since| *since <= from);
            match newest {
                Some(newest) if self.takes_back(write, newest) => {
                    seen.newest = vec![(at, write)];
                    let gone = self.writes_of(key).iter().filter(|other| (write + 1..=newest).contains(*other));
                    seen.taken_back.extend(gone.map(|gone| (*gone, at)));
                }
                None if !again => seen.show(at, write),
                _ if loss.is_some() => {}
                _ => {
                    let how = match newest {
                        Some(newest) => format!("goes back to {n} after {:?}", self.log.writes[newest].act),
                        None => format!("is {n} again, which had been taken back"),
                    };
                    let around = self.around(key, Some(write), at);
                    texts.push(format!("{who} {}: {} {how}{around}", self.describe(at), self.name(key)));
                }
            }
        }
        texts
    }

    /// Whether an owner may have gone from one of its writes back to another: what came between are updates that ended
    /// in an error of unknown effect, and an owner that is refused one of those writes what it had before.
    fn takes_back(&self, to: usize, from: usize) -> bool {
        let writes = &self.log.writes;
        let owner = writes[to].owner;
        let between = self.writes_of(writes[to].key).iter().filter(|write| (to + 1..=from).contains(*write));
        let mut between = between.map(|write| &writes[*write]).filter(|write| write.owner == owner);
        between.all(|write| write.answer == Answer::Unknown && matches!(write.act, Act::Update(_)))
    }

    fn silence(&self) -> Duration {
        self.setting.bounds.recovery * self.setting.patience
    }
}

/// What a reader has seen of one owner's writes of a key.
#[derive(Default)]
struct Seen {
    /// The newest of them, by when it was read.
    newest: Vec<(Seq, usize)>,
    /// Those that their owner has taken back, by when that showed.
    taken_back: BTreeMap<usize, Seq>,
}

impl Seen {
    /// The newest that had been read before `from`.
    fn newest(&self, from: Seq) -> Option<usize> {
        let known = self.newest.partition_point(|(at, _)| *at <= from);
        known.checked_sub(1).map(|last| self.newest[last].1)
    }

    fn show(&mut self, at: Seq, write: usize) {
        if self.newest.last().is_none_or(|(_, newest)| *newest < write) {
            self.newest.push((at, write));
        }
    }
}

fn is_view(finding: &Finding) -> bool {
    finding.read != Read::List
}

fn is_list(who: Who) -> bool {
    matches!(who, Who::List(_))
}

fn is_freshness(who: Who) -> bool {
    matches!(who, Who::Freshness(_))
}

fn is_view_of(who: Who) -> bool {
    matches!(who, Who::Fold(_) | Who::Load(_))
}

/// What a handle's lists showed, in the order in which they were answered.
fn listed<'a>(evidence: &'a Evidence<'_>, handle: usize) -> impl Iterator<Item = (Seq, Seq, Id, u64)> + 'a {
    let mut lists: Vec<_> = evidence.log.listings.iter().filter(|listing| listing.handle == handle).collect();
    lists.sort_by_key(|listing| listing.end);
    lists
        .into_iter()
        .flat_map(|listing| listing.shown.iter().flatten().map(|(key, n)| (listing.start, listing.end, *key, *n)))
}

fn added(tell: &Tell) -> Option<(Id, u64)> {
    match *tell {
        Tell::Added(key, n) | Tell::Updated(key, _, n) => Some((key, n)),
        Tell::Removed(..) => None,
    }
}
