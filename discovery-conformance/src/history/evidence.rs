//! What a history proves: every read against every write that it may, must or must not show.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use discovery_core::{Bounds, Capabilities, ErrorKind};

use super::log::{Act, Answer, FOREIGN, Fresh, Harm, Id, Log, Seq, Settled, Shown, Tell, Write};
use crate::world::Hook;

/// The faults that keep a reader from the store.
pub(super) const BREAKS: [Hook; 7] =
    [Hook::Cut, Hook::HalfOpen, Hook::Pause, Hook::Deny, Hook::Outage, Hook::LeaderChange, Hook::LoseMember];

/// What a history was made under.
pub(super) struct Setting {
    pub(super) capabilities: Capabilities,
    pub(super) bounds: Bounds,
    pub(super) ttl: Duration,
    /// Whether owners reach the store by a real network.
    pub(super) networked: bool,
    pub(super) patience: u32,
    /// Handles below this number only register.
    pub(super) owners: usize,
    pub(super) observer: usize,
    /// Something was around each backend that may fail by itself, besides the faults that were recorded.
    pub(super) wrapped: bool,
    /// From when to when the machine stood still, one after the other.
    pub(super) stalls: Vec<(Duration, Duration)>,
}

/// How many threads one after the other tell what is told, each of which waits its turn.
const THREADS: u32 = 12;

/// What is wrong with what a read shows of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// A value that nobody had begun to write under this key.
    Never,
    /// A value whose write was refused without effect.
    Refused(ErrorKind),
    /// A value that a later write of the same owner had replaced or removed.
    Dead { by_delete: bool },
    /// A value that was gone when everything had settled.
    Buried,
    /// A record that is not in the query.
    Outside,
    /// Nothing, where a record must be.
    Missing,
    /// The record goes and comes in one batch, with nothing that could have removed it.
    Churn,
}

/// Where it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    List,
    First,
    Batch,
    Load,
}

/// What had happened to the reader in this round.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weather {
    /// Any of it, for so short a time that the reader may still be behind by it.
    pub(super) lately: bool,
    pub(super) link: bool,
    pub(super) outage: bool,
    pub(super) compact: bool,
    pub(super) loss: bool,
    pub(super) member: bool,
}

impl Weather {
    /// Whether the reader has had the time to recover from all of it.
    pub(super) fn fair(self) -> bool {
        !self.lately
    }

    /// Whether nothing has happened in the whole round.
    pub(super) fn calm(self) -> bool {
        !(self.link || self.outage || self.compact || self.loss || self.member)
    }
}

/// One thing that a history shows and should not.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) wrong: Wrong,
    pub(super) read: Read,
    pub(super) handle: usize,
    pub(super) view: Option<usize>,
    pub(super) key: Id,
    pub(super) at: Seq,
    pub(super) weather: Weather,
    /// The stream or view had shown the key before.
    pub(super) vanished: bool,
    /// Nothing at all was shown.
    pub(super) empty: bool,
    /// The view had never shown anything.
    pub(super) never_any: bool,
    /// Only a list before it on the same handle makes it wrong.
    pub(super) after_list: bool,
    /// Only a write that the view had reached makes it wrong.
    pub(super) after_reached: bool,
    /// Only a record that cannot be decoded stands in its place.
    pub(super) garbage: bool,
    /// The write that should show.
    pub(super) write: Option<usize>,
}

/// What may have taken records away, or hidden them.
struct Disturbance {
    from: Seq,
    /// Records that were written by then may be away too.
    until: Seq,
    owner: Option<usize>,
    key: Option<Id>,
    garbage: bool,
}

/// A history, indexed and read.
pub(super) struct Evidence<'a> {
    pub(super) log: &'a Log,
    pub(super) setting: &'a Setting,
    by_key: BTreeMap<Id, Vec<usize>>,
    by_value: BTreeMap<u64, usize>,
    disturbances: Vec<Disturbance>,
    longest_stall: Duration,
    pub(super) findings: Vec<Finding>,
}

impl<'a> Evidence<'a> {
    pub(super) fn new(log: &'a Log, setting: &'a Setting) -> Self {
        let mut by_key: BTreeMap<Id, Vec<usize>> = BTreeMap::new();
        let mut by_value = BTreeMap::new();
        for (index, write) in log.writes.iter().enumerate() {
            by_key.entry(write.key).or_default().push(index);
            if let Some(n) = write.act.value() {
                by_value.insert(n, index);
            }
        }
        let longest_stall = setting.stalls.iter().map(|(from, to)| to.saturating_sub(*from)).max().unwrap_or_default();
        let mut evidence =
            Self { log, setting, by_key, by_value, disturbances: Vec::new(), longest_stall, findings: Vec::new() };
        evidence.disturbances = evidence.disturb();
        let mut findings = evidence.read_lists();
        for view in 0..log.views.len() {
            findings.extend(evidence.read_view(view));
        }
        evidence.findings = findings;
        evidence
    }

    /// The longest that a view may be behind at `at` while it says that it is live.
    pub(super) fn lag(&self, weather: Weather, at: Seq) -> Duration {
        let bounds = &self.setting.bounds;
        self.limit(if weather.fair() { bounds.propagation } else { bounds.recovery }, at)
    }

    /// How long something may have taken that was to be done within a bound, and was or was not at `at`: longer where the
    /// machine stood still meanwhile.
    pub(super) fn limit(&self, bound: Duration, at: Seq) -> Duration {
        let (limit, now) = (bound * self.setting.patience, self.log.time(at));
        let stalls = &self.setting.stalls[..self.setting.stalls.partition_point(|(from, _)| *from <= now)];
        let near = stalls.iter().rev().take_while(|(_, to)| *to + limit + self.longest_stall * THREADS >= now);
        let more = near.filter_map(|(from, to)| {
            let more = to.saturating_sub(*from) * THREADS;
            (*to + limit + more >= now).then_some(more)
        });
        limit + more.max().unwrap_or_default()
    }

    /// The last time before `seq` at which everything had settled.
    pub(super) fn settled(&self, seq: Seq) -> Option<&Settled> {
        self.log.settled.iter().rev().find(|settled| settled.at <= seq && settled.unsettled.is_empty())
    }

    fn round(&self, seq: Seq) -> Seq {
        self.settled(seq).map_or(0, |settled| settled.at)
    }

    /// The faults of the round that `seq` is in, up to it.
    pub(super) fn harms(&self, seq: Seq) -> impl Iterator<Item = &Harm> {
        let round = self.round(seq);
        self.log.harms.iter().filter(move |harm| harm.from <= seq && harm.to.is_none_or(|to| to >= round))
    }

    pub(super) fn weather(&self, handle: usize, seq: Seq) -> Weather {
        let mut weather = Weather::default();
        let lately = self.log.time(seq).saturating_sub(self.limit(self.setting.bounds.recovery, seq));
        for harm in self.harms(seq) {
            let struck = match harm.hook {
                Hook::Cut | Hook::HalfOpen | Hook::Pause | Hook::Deny if harm.target == Some(handle) => {
                    &mut weather.link
                }
                Hook::Outage => &mut weather.outage,
                Hook::Compact => &mut weather.compact,
                Hook::LoseData | Hook::RollBack => &mut weather.loss,
                Hook::LeaderChange | Hook::LoseMember => &mut weather.member,
                _ => continue,
            };
            *struck = true;
            weather.lately |= harm.to.is_none_or(|to| self.log.time(to) >= lately);
        }
        weather
    }

    /// Whether a reader's way to the store has been whole for less than it may take to catch up: a watch that is resumed
    /// counts as live before what it missed has come.
    pub(super) fn just_healed(&self, handle: usize, at: Seq) -> bool {
        let lately = self.log.time(at).saturating_sub(self.limit(self.setting.bounds.propagation, at));
        self.log.harms.iter().any(|harm| {
            BREAKS.contains(&harm.hook)
                && harm.target.is_none_or(|target| target == handle)
                && harm.to.is_some_and(|to| to <= at && self.log.time(to) >= lately)
        })
    }

    fn disturb(&self) -> Vec<Disturbance> {
        let mut found = Vec::new();
        let patience = self.setting.ttl / 4;
        // How long each owner has been out of touch in this round, and everybody together.
        let mut out: BTreeMap<usize, Duration> = BTreeMap::new();
        let mut everybody = Duration::ZERO;
        let mut round = 0;
        for harm in &self.log.harms {
            let now = self.round(harm.from);
            if now != round {
                (round, everybody) = (now, Duration::ZERO);
                out.clear();
            }
            let mut add = |owner, key, garbage, from, until| {
                found.push(Disturbance { from, until, owner, key, garbage });
            };
            match harm.hook {
                Hook::Revoke | Hook::Crash => add(harm.target, None, false, harm.from, harm.to.unwrap_or(harm.from)),
                Hook::Ready => add(harm.target, None, false, harm.from, harm.to.unwrap_or(Seq::MAX)),
                Hook::LoseData | Hook::RollBack => add(None, None, false, harm.from, harm.to.unwrap_or(harm.from)),
                Hook::Delete => add(None, harm.key, false, harm.from, harm.to.unwrap_or(harm.from)),
                Hook::Write => {
                    let valid = self.log.writes.iter().any(|write| {
                        write.owner == FOREIGN && Some(write.key) == harm.key && write.start == harm.from + 1
                    });
                    add(None, harm.key, !valid, harm.from, harm.to.unwrap_or(harm.from));
                }
                // A memory's writes alone are slow or unheard of; a network does not tell them from renewals.
                Hook::DropAcks | Hook::DelayWrites if !self.setting.networked => {}
                // Without a time to live nothing of a living owner goes, whoever is out of touch.
                Hook::Cut
                | Hook::HalfOpen
                | Hook::Pause
                | Hook::Deny
                | Hook::Outage
                | Hook::DropAcks
                | Hook::DelayWrites
                    if self.setting.capabilities.ttl =>
                {
                    let (from, to) = (self.log.time(harm.from), harm.to.map(|to| self.log.time(to)));
                    let lasted = to.unwrap_or(Duration::MAX).saturating_sub(from);
                    let so_far = match harm.target {
                        Some(owner) => {
                            let own = out.entry(owner).or_default();
                            *own = own.saturating_add(lasted);
                            own.saturating_add(everybody)
                        }
                        None => {
                            everybody = everybody.saturating_add(lasted);
                            everybody.saturating_add(out.values().max().copied().unwrap_or_default())
                        }
                    };
                    if so_far >= patience {
                        let left = patience.saturating_sub(so_far.saturating_sub(lasted));
                        // A session that is about to expire still takes writes.
                        let until = to.map_or(Seq::MAX, |to| self.log.seq_at(to + self.setting.ttl));
                        add(harm.target, None, false, self.log.seq_at(from + left), until);
                    }
                }
                _ => {}
            }
        }
        // Who was kept from renewing by the machine is out of touch as well, and with everybody else.
        let renewed = self.setting.stalls.iter().filter(|_| self.setting.capabilities.ttl);
        found.extend(renewed.filter(|(from, to)| to.saturating_sub(*from) >= patience).map(|(from, to)| {
            let (from, until) = (self.log.seq_at(*from), self.log.seq_at(*to + self.setting.ttl));
            Disturbance { from, until, owner: None, key: None, garbage: false }
        }));
        found
    }

    fn rolled_back(&self, lo: Seq, hi: Seq) -> bool {
        let round = self.round(lo);
        self.log.harms.iter().any(|harm| harm.hook == Hook::RollBack && harm.from >= round && harm.from <= hi)
    }

    pub(super) fn write_of(&self, n: u64) -> Option<usize> {
        self.by_value.get(&n).copied()
    }

    pub(super) fn writes_of(&self, key: Id) -> &[usize] {
        self.by_key.get(&key).map_or(&[], Vec::as_slice)
    }

    /// What is wrong with `seen` under `key`, in a state that the store had between `lo` and `hi`.
    fn judge_value(&self, key: Id, n: u64, lo: Seq, hi: Seq) -> Option<(Wrong, usize)> {
        let Some(index) = self.write_of(n) else { return Some((Wrong::Never, 0)) };
        let write = &self.log.writes[index];
        if write.key != key || write.start > hi {
            return Some((Wrong::Never, index));
        }
        if let Answer::Refused(kind) = write.answer {
            // An owner that is refused an update goes back to the value before it.
            return Some((Wrong::Refused(kind), index));
        }
        if self.rolled_back(lo, hi) {
            return None;
        }
        let writes = self.writes_of(key);
        let later = &writes[writes.partition_point(|other| *other <= index)..];
        let killer = later.iter().copied().find(|later| {
            let later_write = &self.log.writes[*later];
            later_write.owner == write.owner
                && self.log.follows(*later, index)
                && later_write.answer == Answer::Ok
                && later_write.end.is_some_and(|end| end <= lo)
        });
        if let Some(killer) = killer {
            // What nobody can decode is nobody's to withdraw, and stands for the last good value that a reader knew.
            let garbage = self
                .disturbances
                .iter()
                .any(|one| one.garbage && one.key == Some(key) && one.from >= self.round(lo) && one.from <= hi);
            if garbage {
                return None;
            }
            return Some((Wrong::Dead { by_delete: self.log.writes[killer].act == Act::Delete }, index));
        }
        let settled = self.settled(lo)?;
        let buried = write.start < settled.healed && !settled.expected.get(&key).is_some_and(|ns| ns.contains(&n));
        buried.then_some((Wrong::Buried, index))
    }

    /// The write whose record must show in every state between `lo` and `hi`, where there is one.
    fn must_show(&self, key: Id, even: bool, lo: Seq, hi: Seq, garbage: bool) -> Option<usize> {
        let settled = self.settled(lo);
        let healed = settled.map_or(0, |settled| settled.healed);
        let writes = self.writes_of(key);
        // Of each owner its newest acknowledged write of this round counts, or what everything had settled at.
        let mut owners = Vec::new();
        for index in writes.iter().rev().copied() {
            let write = &self.log.writes[index];
            if write.start < healed {
                break;
            }
            let acknowledged = write.answer == Answer::Ok && write.end.is_some_and(|end| end <= lo);
            if !acknowledged || owners.contains(&write.owner) {
                continue;
            }
            owners.push(write.owner);
            // A fault in the midst of the call may have come after the write.
            if self.stands(index, write.start, even, hi, garbage) {
                return Some(index);
            }
        }
        let settled = settled?;
        let [n] = settled.expected.get(&key)?[..] else { return None };
        let index = self.write_of(n)?;
        (!owners.contains(&self.log.writes[index].owner) && self.stands(index, settled.at, even, hi, garbage))
            .then_some(index)
    }

    /// Whether a write that was done by `since` has to show through `hi`.
    fn stands(&self, index: usize, since: Seq, even: bool, hi: Seq, garbage: bool) -> bool {
        let write = &self.log.writes[index];
        let odd = |write: &Write| even && write.act.value().is_some_and(|n| n % 2 == 1);
        if write.act == Act::Delete || odd(write) {
            return false;
        }
        let writes = self.writes_of(write.key);
        // Over what nobody owns anybody may write, and where keys are not exclusive any other owner.
        let shared = !self.setting.capabilities.exclusive || write.owner == FOREIGN;
        let others = if shared { 0 } else { writes.partition_point(|other| *other <= index) };
        let taken = writes[others..].iter().any(|other| {
            let other_write = &self.log.writes[*other];
            let later = *other > index && other_write.start <= hi;
            let same = other_write.owner == write.owner;
            (later && same && (other_write.act == Act::Delete || odd(other_write)))
                || (shared && !same && (write.owner == FOREIGN || other_write.start <= hi))
        });
        // Over what cannot be decoded another owner may write, who was kept from it before.
        let garbage = garbage || writes.iter().any(|other| self.log.writes[*other].owner != write.owner);
        let disturbed = self.disturbances.iter().any(|one| {
            one.until >= since
                && one.from <= hi
                && (one.owner.is_none() || one.owner == Some(write.owner))
                && (one.key.is_none() || one.key == Some(write.key))
                && (garbage || !one.garbage)
        });
        !taken && !disturbed
    }

    /// Whether a record that showed in a state since `since` had to stay as it was through `hi`.
    fn had_to_stay(&self, n: u64, even: bool, since: Seq, hi: Seq) -> bool {
        let Some(index) = self.write_of(n) else { return false };
        let write = &self.log.writes[index];
        let round = self.round(since);
        // Readiness has a version of its own: a reader may hear of the record before it hears what had become of its owner.
        let since = if self.setting.capabilities.readiness { round } else { round.max(write.start) };
        // What ended in an error may have been taken back, and what struck in this round may still be mended.
        write.answer == Answer::Ok && self.stands(index, since, even, hi, false)
    }

    fn read_lists(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        for listing in &self.log.listings {
            let Ok(shown) = &listing.shown else { continue };
            let base = Finding {
                wrong: Wrong::Never,
                read: Read::List,
                handle: listing.handle,
                view: None,
                key: 0,
                at: listing.end,
                weather: self.weather(listing.handle, listing.end),
                vanished: false,
                empty: shown.is_empty(),
                never_any: false,
                after_list: false,
                after_reached: false,
                garbage: false,
                write: None,
            };
            self.read(&mut findings, &base, shown, &listing.lens, listing.start, &BTreeSet::new());
        }
        findings
    }

    /// Judges one shown set against every key.
    fn read(
        &self,
        findings: &mut Vec<Finding>,
        base: &Finding,
        shown: &Shown,
        lens: &super::log::Lens,
        lo: Seq,
        before: &BTreeSet<Id>,
    ) {
        let scope = lens.scope();
        let in_lens = |key: Id| scope.as_ref().is_none_or(|scope| scope.contains(&self.log.keys[key]));
        let mut seen = BTreeSet::new();
        for (key, n) in shown {
            seen.insert(*key);
            let outside = !in_lens(*key) || !lens.admits(*n);
            let wrong = if outside { Some((Wrong::Outside, 0)) } else { self.judge_value(*key, *n, lo, base.at) };
            if let Some((wrong, write)) = wrong {
                findings.push(Finding { wrong, key: *key, write: Some(write), ..base.clone() });
            }
        }
        for key in self.by_key.keys().filter(|key| !seen.contains(key)) {
            if !in_lens(*key) {
                continue;
            }
            let vanished = before.contains(key);
            let found = match self.must_show(*key, lens.even, lo, base.at, true) {
                Some(write) => Some((write, false)),
                // The last good value stays.
                None if vanished => self.must_show(*key, lens.even, lo, base.at, false).map(|write| (write, true)),
                None => None,
            };
            if let Some((write, garbage)) = found {
                let wrong = Wrong::Missing;
                findings.push(Finding { wrong, key: *key, vanished, garbage, write: Some(write), ..base.clone() });
            }
        }
    }

    /// Reads a view's batches and loads in their order.
    fn read_view(&self, number: usize) -> Vec<Finding> {
        let view = &self.log.views[number];
        let told = self.log.told.iter().enumerate().filter(|(_, told)| told.view == number);
        let loads = self.log.loads.iter().enumerate().filter(|(_, load)| load.view == number && load.synced);
        let mut events: Vec<(Seq, bool, usize)> = told.map(|(index, told)| (told.at, true, index)).collect();
        events.extend(loads.map(|(index, load)| (load.at, false, index)));
        events.sort_unstable();
        let mut findings = Vec::new();
        let mut fold: BTreeMap<Id, u64> = BTreeMap::new();
        let (mut before_fold, mut before_load, mut any) = (BTreeSet::new(), BTreeSet::new(), false);
        // A view that joins is behind by a bound at most.
        let opening = self.weather(view.handle, view.answered);
        let mut floor = self.log.seq_at(self.log.time(view.call).saturating_sub(self.lag(opening, view.call)));
        if view.lazy {
            // Who did not wait takes the set of a watch that may be stale, and is told so: nothing is known before it
            // says that it is live.
            floor = 0;
        }
        // The oldest state that the newest batch can have shown: the next one tells the difference to it, however much
        // later it is read.
        let mut shown_at = floor;
        for (at, batch, index) in events {
            let weather = self.weather(view.handle, at);
            let fresh = if batch { self.log.told[index].fresh } else { self.log.loads[index].fresh };
            if fresh == Fresh::Live && !self.just_healed(view.handle, at) {
                floor = floor.max(self.log.seq_at(self.log.time(at).saturating_sub(self.lag(weather, at))));
            }
            let mut base = Finding {
                wrong: Wrong::Never,
                read: Read::Load,
                handle: view.handle,
                view: Some(number),
                key: 0,
                at,
                weather,
                vanished: false,
                empty: false,
                never_any: !any,
                after_list: false,
                after_reached: false,
                garbage: false,
                write: None,
            };
            if batch {
                let told = &self.log.told[index];
                base.read = if told.synced { Read::First } else { Read::Batch };
                if told.reset {
                    fold.clear();
                }
                let removed: BTreeMap<Id, u64> = told
                    .tells
                    .iter()
                    .filter_map(|tell| if let Tell::Removed(key, n) = tell { Some((*key, *n)) } else { None })
                    .collect();
                for tell in &told.tells {
                    match *tell {
                        Tell::Added(key, n) | Tell::Updated(key, _, n) => fold.insert(key, n),
                        Tell::Removed(key, _) => fold.remove(&key),
                    };
                    let Tell::Added(key, n) = *tell else { continue };
                    if removed.get(&key) == Some(&n) && self.had_to_stay(n, view.lens.even, shown_at, at) {
                        findings.push(Finding { wrong: Wrong::Churn, key, vanished: true, ..base.clone() });
                    }
                }
                let shown: Shown = fold.iter().map(|(key, n)| (*key, *n)).collect();
                base.empty = shown.is_empty();
                self.read(&mut findings, &base, &shown, &view.lens, floor, &before_fold);
                shown_at = floor;
                before_fold = fold.keys().copied().collect();
                any |= !fold.is_empty();
            } else {
                let load = &self.log.loads[index];
                base.empty = load.shown.is_empty();
                let found = findings.len();
                self.read(&mut findings, &base, &load.shown, &view.lens, floor, &before_load);
                if findings.len() == found {
                    self.read_again(&mut findings, &base, (number, index), floor);
                }
                before_load = load.shown.iter().map(|(key, _)| *key).collect();
                any |= !load.shown.is_empty();
            }
        }
        findings
    }

    /// A load after a list of the same handle, or after a write that the view has reached.
    fn read_again(&self, findings: &mut Vec<Finding>, base: &Finding, (number, index): (usize, usize), floor: Seq) {
        let (view, load) = (&self.log.views[number], &self.log.loads[index]);
        let known = self.log.listings.partition_point(|listing| listing.end < load.at);
        let lists = self.log.listings[..known].iter().filter(|listing| {
            listing.start > floor
                && listing.handle == view.handle
                && listing.shown.is_ok()
                && listing.start > view.answered
                && listing.lens.covers(&view.lens)
        });
        if let Some(listed) = lists.map(|listing| listing.start).max() {
            let base = Finding { after_list: true, ..base.clone() };
            self.read(findings, &base, &load.shown, &view.lens, listed, &BTreeSet::new());
        }
        if let Some(write) = load.reached {
            let end = self.log.writes[write].end.unwrap_or(load.at);
            let base = Finding { after_reached: true, ..base.clone() };
            let mut found = Vec::new();
            self.read(&mut found, &base, &load.shown, &view.lens, end, &BTreeSet::new());
            // Of other owners' writes the view is told nothing by this one.
            let own = self.log.writes[write].key;
            findings.extend(found.into_iter().filter(|finding| finding.key == own));
        }
    }
}
