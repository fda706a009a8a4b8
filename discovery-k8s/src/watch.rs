//! The watch: every leg's reflector, joined into one stream of events.
//!
//! There is one scope, everything in the watched namespaces: two watches of the API for each. While a leg is out of
//! touch, what the others say is still shown, and is stale.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use discovery_core::backend::{Change, Lineage, Position, WatchEvent, WatchStream};
use discovery_core::{Error, Result, Scope};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, future};
use tokio::time::Instant;

use crate::births::Births;
use crate::handover::Handover;
use crate::join::{Join, Side};
use crate::progress::{self, Progress};
use crate::reflector::{self, Seen, Told};
use crate::source::{Census, Leg};

mod barriers;
#[cfg(test)]
mod tests;

pub(crate) use barriers::Barriers;
use barriers::{Counted, Marks};

/// Records in one part of a snapshot.
const CHUNK: usize = 1024;

enum Input {
    Told(usize, Told),
    Barrier(Counted),
}

/// Opens a watch. Nothing is asked of the API before the stream is polled; dropping it ends everything.
pub(crate) fn open(
    legs: &[Leg],
    barriers: &Barriers,
    births: &Births,
    scope: &Scope,
    after: Option<&Position>,
) -> WatchStream {
    let marks = barriers.marks(legs.len());
    let told = legs.iter().zip(&*marks).enumerate().map(|(leg, (source, mark))| {
        let told = reflector::follow(source.source.clone(), Arc::clone(mark));
        told.map(move |told| Input::Told(leg, told)).boxed()
    });
    let barriers = stream::unfold(barriers.subscribe(), |mut barriers| async move {
        // Those raised before this watch need not be proven to it: its first lists are newer.
        barriers.changed().await.ok()?;
        let newest = barriers.borrow_and_update().clone();
        Some((newest, barriers))
    });
    let barriers = barriers.filter_map(|newest| future::ready(newest.map(Input::Barrier))).boxed();
    let inputs: BoxStream<'static, Input> = stream::select_all(told.chain([barriers])).boxed();
    let watch = Watch {
        legs: legs.to_vec(),
        scope: scope.clone(),
        join: Join::new(births.clone(), legs.iter().any(|leg| leg.is_dealt_out)),
        handover: Handover::new(legs, &marks),
        progress: legs.iter().map(|_| None).collect(),
        counted: legs.iter().map(|_| None).collect(),
        marks,
        broken: BTreeMap::new(),
        uncounted: BTreeMap::new(),
        synced: false,
        after: after.map(progress::versions).unwrap_or_default(),
    };
    let events = stream::unfold((watch, inputs), |(mut watch, mut inputs)| async move {
        let mut events = tokio::select! {
            // There may be no end of what comes.
            biased;
            (leg, answer) = watch.handover.counted(&watch.broken) => match answer {
                Ok(census) => watch.count(leg, &census),
                Err(error) => {
                    watch.uncounted.insert(leg, error.clone());
                    vec![WatchEvent::Interrupted(error)]
                }
            },
            input = inputs.next() => match input? {
                Input::Told(leg, told) => {
                    let mut events = watch.hear(leg, told);
                    events.extend(watch.give_up(leg));
                    events
                }
                Input::Barrier(counted) => watch.compare(&counted),
            },
        };
        events.extend(watch.counts_again());
        Some((stream::iter(events.into_iter().map(Ok)), (watch, inputs)))
    });
    events.flatten().boxed()
}

/// Reads everything once.
pub(crate) async fn list(legs: &[Leg]) -> Result<(Join, Position)> {
    let pages = future::try_join_all(legs.iter().map(|leg| reflector::read_or_absent(&*leg.source))).await?;
    let mut join = Join::default();
    let position = progress::position(pages.iter().map(|page| page.version));
    for (leg, page) in legs.iter().zip(pages) {
        let objects = page.objects.into_iter().map(|seen| (seen.name, seen.object));
        join.replace(leg.side, leg.namespace.as_deref(), objects);
    }
    Ok((join, position))
}

struct Watch {
    legs: Vec<Leg>,
    scope: Scope,
    join: Join,
    handover: Handover,
    /// For each leg, once it is listed.
    progress: Vec<Option<Progress>>,
    /// The newest census of each, of this history, and when it was taken.
    counted: Vec<Option<(Arc<Census>, Instant)>>,
    marks: Marks,
    /// Legs that are out of touch, and why.
    broken: BTreeMap<usize, Error>,
    /// Legs that are in touch, and keep owners who may be gone since that cannot be asked, and why.
    uncounted: BTreeMap<usize, Error>,
    synced: bool,
    /// The position that the caller had reached, leg by leg.
    after: Vec<u64>,
}

impl Watch {
    fn hear(&mut self, leg: usize, told: Told) -> Vec<WatchEvent> {
        match told {
            Told::All { objects, version, reset } => self.hear_all(leg, objects, version, reset),
            Told::Put(seen) => {
                if !self.moved(leg, |progress| progress.put(&seen.name, seen.version)) {
                    return Vec::new();
                }
                let changes = self.join.set(self.legs[leg].side, &seen.name, Some(seen.object));
                self.wait(leg);
                self.batch(changes)
            }
            Told::Gone(name, version) => {
                if !self.moved(leg, |progress| progress.gone(&name, version)) {
                    return Vec::new();
                }
                let changes = self.join.set(self.legs[leg].side, &name, None);
                self.wait(leg);
                self.batch(changes)
            }
            Told::At(version) => {
                self.moved(leg, |progress| {
                    progress.at(version);
                    true
                });
                self.batch(Vec::new())
            }
            // Nothing is shown of a snapshot before its end, and this one begins again when it is known.
            Told::Reading => vec![WatchEvent::SnapshotStart { lineage: Lineage::Unknown }],
            Told::Interrupted(error) => {
                self.broken.insert(leg, error.clone());
                vec![WatchEvent::Interrupted(error)]
            }
            Told::Recovered => {
                self.broken.remove(&leg);
                self.wait_anew(leg);
                self.recovered()
            }
        }
    }

    /// Where nothing else is amiss: a leg has two things that may be, and each ends by itself.
    fn recovered(&self) -> Vec<WatchEvent> {
        if self.broken.is_empty() && self.uncounted.is_empty() { vec![WatchEvent::Recovered] } else { Vec::new() }
    }

    /// Takes note of legs that have been counted, or have nobody left to ask for.
    fn counts_again(&mut self) -> Vec<WatchEvent> {
        let before = self.uncounted.len();
        self.uncounted.retain(|leg, _| self.handover.is_failing(*leg));
        if self.uncounted.len() == before { Vec::new() } else { self.recovered() }
    }

    fn hear_all(&mut self, leg: usize, objects: Vec<Seen>, version: u64, reset: bool) -> Vec<WatchEvent> {
        if reset {
            (self.counted[leg], self.progress[leg]) = (None, None);
            self.marks[leg].counted.store(0, Ordering::Release);
        }
        let progress = self.progress[leg].get_or_insert_default();
        let listed = objects.iter().map(|seen| (&seen.name, seen.version));
        let counted = self.counted[leg].as_ref().map(|(census, _)| census);
        if !progress.all(listed, version, counted) {
            return self.batch(Vec::new());
        }
        self.mark(leg);
        let (side, namespace) = (self.legs[leg].side, self.legs[leg].namespace.clone());
        let objects = objects.into_iter().map(|seen| (seen.name, seen.object));
        let changes = self.join.replace(side, namespace.as_deref(), objects);
        if reset && side == Side::Readiness {
            // Who was on the way was so in a history that is gone. The snapshot tells what is left.
            self.join.give_up(namespace.as_deref(), u64::MAX);
        }
        self.wait_anew(leg);
        if self.synced && !reset {
            return self.batch(changes);
        }
        if self.progress.iter().any(Option::is_none) {
            return Vec::new();
        }
        self.synced = true;
        self.join.complete();
        let at = self.versions();
        let went_back = self.after.len() == at.len() && at.iter().zip(&self.after).any(|(at, after)| at < after);
        let lineage = match (reset || went_back, self.after.is_empty()) {
            (true, _) => Lineage::Reset,
            (false, false) => Lineage::Same,
            (false, true) => Lineage::Unknown,
        };
        self.after = at;
        self.snapshot(lineage)
    }

    /// The last step in which an owner went missing whose readiness this leg tells.
    fn missing(&self, leg: usize) -> Option<u64> {
        let Leg { side: Side::Readiness, namespace, .. } = &self.legs[leg] else { return None };
        self.join.missing(namespace.as_deref())
    }

    fn wait(&mut self, leg: usize) {
        self.handover.missing(leg, self.missing(leg));
    }

    fn wait_anew(&mut self, leg: usize) {
        self.handover.anew(leg, self.missing(leg));
    }

    /// Gives up who is proven to be gone.
    fn give_up(&mut self, leg: usize) -> Vec<WatchEvent> {
        let version = self.progress[leg].as_ref().map_or(0, Progress::version);
        let Some(step) = self.handover.over(leg, version) else { return Vec::new() };
        match self.join.give_up(self.legs[leg].namespace.as_deref(), step) {
            changes if changes.is_empty() => Vec::new(),
            changes => self.batch(changes),
        }
    }

    fn compare(&mut self, counted: &Counted) -> Vec<WatchEvent> {
        for (leg, taken) in counted.iter().enumerate() {
            // All legs come when the last of them is counted: this one may have been counted again meanwhile. One that was asked
            // for after that, and is below it, is of another history.
            let is_old =
                |(known, at): &(Arc<Census>, Instant)| taken.census.version < known.version && taken.asked < *at;
            if !self.counted[leg].as_ref().is_some_and(is_old) {
                self.take(leg, &taken.census);
            }
            if !self.broken.contains_key(&leg) {
                self.handover.prove(leg, taken.asked, taken.census.version);
            }
        }
        let mut events = self.batch(Vec::new());
        for leg in 0..counted.len() {
            events.extend(self.give_up(leg));
        }
        events
    }

    /// Compares with what was counted of one leg.
    fn count(&mut self, leg: usize, census: &Arc<Census>) -> Vec<WatchEvent> {
        // A newer one, that a barrier waits for, holds this.
        if self.counted[leg].as_ref().is_none_or(|(known, _)| known.version < census.version) {
            self.take(leg, census);
        }
        let mut events = self.batch(Vec::new());
        events.extend(self.give_up(leg));
        events
    }

    fn take(&mut self, leg: usize, census: &Arc<Census>) {
        if let Some(progress) = &mut self.progress[leg] {
            progress.compare(census);
        }
        self.counted[leg] = Some((Arc::clone(census), Instant::now()));
        self.marks[leg].counted.fetch_max(census.version, Ordering::AcqRel);
        self.mark(leg);
    }

    /// Answers whether the leg has heard something new.
    fn moved(&mut self, leg: usize, step: impl FnOnce(&mut Progress) -> bool) -> bool {
        let moved = self.progress[leg].as_mut().is_some_and(step);
        self.mark(leg);
        moved
    }

    fn mark(&self, leg: usize) {
        let version = self.progress[leg].as_ref().map_or(0, Progress::version);
        self.marks[leg].version.store(version, Ordering::Release);
    }

    fn versions(&self) -> Vec<u64> {
        self.progress.iter().map(|progress| progress.as_ref().map_or(0, Progress::version)).collect()
    }

    fn position(&self) -> Position {
        progress::position(self.versions())
    }

    /// One change of the store, as the watch says it.
    fn batch(&self, mut changes: Vec<Change>) -> Vec<WatchEvent> {
        changes.retain(|change| self.scope.contains(change.key()));
        if !self.synced {
            return Vec::new();
        }
        let position = self.position();
        vec![if changes.is_empty() { WatchEvent::Progress(position) } else { WatchEvent::Batch { changes, position } }]
    }

    fn snapshot(&self, lineage: Lineage) -> Vec<WatchEvent> {
        let unread = self.join.unread();
        if unread > 0 {
            tracing::warn!(unread, "entries that name no record are passed over");
        }
        let mut entries = self.join.entries();
        entries.retain(|entry| self.scope.contains(&entry.key));
        let mut events = vec![WatchEvent::SnapshotStart { lineage }];
        // Else the end of the snapshot would say that every leg is in touch.
        let mut troubles = self.broken.values().chain(self.uncounted.values());
        events.extend(troubles.next().cloned().map(WatchEvent::Interrupted));
        while !entries.is_empty() {
            let rest = entries.split_off(entries.len().min(CHUNK));
            events.push(WatchEvent::SnapshotChunk(std::mem::replace(&mut entries, rest)));
        }
        events.push(WatchEvent::SnapshotEnd(self.position()));
        events
    }
}
