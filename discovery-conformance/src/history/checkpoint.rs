//! The end of a round: everything is healed, and everybody must come to the same state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::Duration;

use bytes::Bytes;
use discovery_core::{Discovery, Key, Query};
use tokio::time::{Instant, sleep};

use super::faults::Sky;
use super::log::{FOREIGN, Id, Settled, Shown, Unsettled, Who};
use super::owner::{Lane, list, load};
use super::run::Tail;
use super::watcher::Watcher;
use crate::world::{Fault, Hook};

type Expected = BTreeMap<Id, Vec<u64>>;

/// What takes part in a checkpoint.
pub(super) struct Scene<'a> {
    pub(super) sky: &'a Sky,
    pub(super) lanes: &'a [Lane],
    pub(super) watchers: &'a [Watcher],
    pub(super) observer: (usize, &'a Discovery),
    pub(super) tail: &'a Tail,
    /// Every handle that lives.
    pub(super) handles: Vec<usize>,
    /// How long everybody has.
    pub(super) limit: Duration,
}

impl Scene<'_> {
    /// Heals, and waits until everybody agrees. `true`: they did.
    pub(super) async fn settle(&self) -> bool {
        let (sky, recorder) = (self.sky, &self.sky.recorder);
        sky.clear_up(&self.handles).await;
        let writes = sky.hooks.contains(&Hook::Write);
        if writes {
            sky.sweep((1..3).filter_map(|n| sky.foreign_key(n))).await;
        }
        let garbage = sky.foreign_key(9).filter(|_| writes);
        // A world may make its first stranger for it, which is no time of those who settle.
        let mut littered = self.litter(garbage.as_ref()).await;
        let healed = recorder.tick();
        let until = Instant::now() + self.limit;
        let pause = (self.limit / 100).max(Duration::from_millis(5));
        let unsettled = loop {
            if littered.is_none_or(|at| at.elapsed() >= sky.ttl) {
                // Again and again: where data was lost there may be no place for it yet, some stores forget what no owner renews, and everybody may take longer to settle.
                littered = self.litter(garbage.as_ref()).await;
            }
            self.bury_undead().await;
            let unsettled = self.unsettled(garbage.is_some()).await;
            if unsettled.is_empty() || Instant::now() >= until {
                break unsettled;
            }
            sleep(pause).await;
        };
        let settled = unsettled.is_empty();
        let expected = self.expected();
        {
            let mut log = recorder.log();
            let at = recorder.tick_in(&mut log);
            log.settled.push(Settled { healed, at, expected, unsettled });
        }
        if let Some(key) = garbage {
            let _ = sky.world.inject(Fault::Delete(key)).await;
        }
        settled
    }

    /// Writes what nobody can decode. Answers since when it stands there.
    async fn litter(&self, garbage: Option<&Key>) -> Option<Instant> {
        let bytes = Bytes::from_static(b"not a record");
        let written = self.sky.world.inject(Fault::Write(garbage?.clone(), bytes)).await;
        written.is_ok().then(Instant::now)
    }

    fn expected(&self) -> Expected {
        let mut log = self.sky.recorder.log();
        let wants = self.lanes.iter().flat_map(Lane::wants);
        let mut expected = Expected::new();
        for (key, values) in wants {
            // Of two that both believe to hold a key one will learn better.
            expected.entry(log.id(&key)).or_default().extend(values);
        }
        expected
    }

    /// Takes away what nobody wants and nobody will withdraw: what was written over nothing by nobody, and after a
    /// roll-back what came back to life.
    async fn bury_undead(&self) {
        if !self.sky.hooks.contains(&Hook::Delete) {
            return;
        }
        let Some((_, shown)) = self.listed(self.observer.0, self.observer.1).await else { return };
        let expected = self.expected();
        let undead: Vec<Key> = {
            let log = self.sky.recorder.log();
            let round = log.settled.last().map_or(0, |settled| settled.at);
            let rolled_back = log.harms.iter().any(|harm| harm.hook == Hook::RollBack && harm.from >= round);
            let nobodys =
                |n: u64| log.writes.iter().rev().any(|write| write.owner == FOREIGN && write.act.value() == Some(n));
            let unwanted = shown.iter().filter(|(id, n)| !expected.contains_key(id) && (rolled_back || nobodys(*n)));
            let over = log.harms.iter().filter(|harm| harm.hook == Hook::Write && harm.from >= round);
            let over = over.filter_map(|harm| harm.key).filter(|id| !expected.contains_key(id));
            let ids: BTreeSet<Id> = unwanted.map(|(id, _)| *id).chain(over).collect();
            ids.into_iter().map(|id| log.keys[id].clone()).collect()
        };
        self.sky.sweep(undead).await;
    }

    async fn listed(&self, handle: usize, discovery: &Discovery) -> Option<(usize, Shown)> {
        list(&self.sky.recorder, handle, discovery, &super::owner::LENSES[0]).await
    }

    async fn unsettled(&self, garbage: bool) -> Vec<Unsettled> {
        let (mut found, mut agreed) = (Vec::new(), BTreeMap::new());
        let owners = self.lanes.iter().map(|lane| (lane.owner, &lane.discovery));
        let readers = self.watchers.iter().map(|watcher| (watcher.handle, &watcher.discovery));
        let mut listed = BTreeSet::new();
        for (handle, discovery) in std::iter::once(self.observer).chain(owners).chain(readers) {
            if listed.insert(handle) {
                let shown = self.listed(handle, discovery).await.map(|(_, shown)| shown);
                self.compare((&mut found, &mut agreed), Who::List(handle), shown, None);
            }
        }
        for open in self.watchers.iter().flat_map(|watcher| &watcher.views) {
            let shown = load(&self.sky.recorder, open.number, &open.view, None);
            self.compare((&mut found, &mut agreed), Who::Load(open.number), Some(shown), Some(open.number));
            let fold: Shown =
                open.fold.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(id, n)| (*id, *n)).collect();
            self.compare((&mut found, &mut agreed), Who::Fold(open.number), Some(fold), Some(open.number));
            let freshness = open.view.freshness();
            if !freshness.is_live() {
                let text = format!("says {freshness:?}");
                found.push(Unsettled { what: Who::Freshness(open.number), text, missing: 0, extra: 0 });
            }
            let covers = ["", "a"].contains(&open.lens.segments.join("/").as_str());
            if garbage && covers && open.view.undecodable().is_empty() {
                let text = "does not count the record that nobody can decode".to_owned();
                found.push(Unsettled { what: Who::Undecodable(open.number), text, missing: 1, extra: 0 });
            }
        }
        for lane in self.lanes {
            let unregistered = lane.unregistered().map(|(key, state)| Unsettled {
                what: Who::Registration(lane.owner),
                text: format!("owner {} is told that {key} is {state}", lane.owner),
                missing: 0,
                extra: 0,
            });
            found.extend(unregistered);
        }
        let entries = self.observer.1.list_entries(Query::kind("item")).await;
        if let (Ok(entries), Some(fold)) = (entries, self.tail.fold()) {
            let entries: BTreeMap<_, _> =
                entries.iter().map(|entry| (entry.key().clone(), entry.stored().clone())).collect();
            if entries != fold {
                let text = format!("folds to {} records for {}", fold.len(), entries.len());
                found.push(Unsettled { what: Who::ChangeLog, text, missing: 1, extra: 0 });
            }
        }
        found
    }

    /// Notes how what somebody shows differs from what is wanted, and from what the readers before show: of several
    /// values that a key may have all of them have to show the same.
    fn compare(
        &self,
        (found, agreed): (&mut Vec<Unsettled>, &mut BTreeMap<Id, u64>),
        what: Who,
        shown: Option<Shown>,
        view: Option<usize>,
    ) {
        let Some(shown) = shown else {
            found.push(Unsettled { what, text: "the list fails".to_owned(), missing: 1, extra: 0 });
            return;
        };
        let shown: BTreeMap<Id, u64> = shown.into_iter().collect();
        let expected = self.expected();
        let log = self.sky.recorder.log();
        let lens = view.map(|view| log.views[view].lens.clone());
        let scope = lens.as_ref().and_then(super::log::Lens::scope);
        let in_scope = |id: &Id| scope.as_ref().is_none_or(|scope| scope.contains(&log.keys[*id]));
        let admits = |n: u64| lens.as_ref().is_none_or(|lens| lens.admits(n));
        let (mut missing, mut extra, mut text) = (0, 0, Vec::new());
        for (id, values) in expected.iter().filter(|(id, _)| in_scope(id)) {
            let right = match shown.get(id) {
                Some(n) => values.contains(n),
                None => values.iter().any(|n| !admits(*n)),
            };
            if !right {
                missing += 1;
                text.push(format!("{} is {:?} and not {values:?}", log.keys[*id], shown.get(id)));
            }
        }
        for (id, n) in shown.iter().filter(|(id, _)| !expected.contains_key(id)) {
            extra += 1;
            let writes = log.writes.iter().filter(|write| write.key == *id);
            let last: Vec<String> = writes.rev().take(3).map(ToString::to_string).collect();
            text.push(format!("{} is {n} and should be gone after {}", log.keys[*id], last.join(" after ")));
        }
        for (id, n) in &shown {
            let before = *agreed.entry(*id).or_insert(*n);
            if before != *n {
                text.push(format!("{} is {n}, and {before} to another reader", log.keys[*id]));
            }
        }
        if !text.is_empty() {
            text.truncate(4);
            found.push(Unsettled { what, text: text.join("; "), missing, extra });
        }
    }
}
