//! How far a watch has come, and how it proves that it has come as far as a barrier.
//!
//! A position is one resource version for each leg. A barrier asks for a census of each leg: names and versions of all
//! objects, linearizable, without their contents. A quiet watch hears nothing that would take it to the census' version,
//! bookmarks come once a minute, and a version that was never reached would wait as long. So the watch compares: where
//! it holds each counted object at its version or later, and no object that the census misses, nothing that happened
//! before the census is outstanding, and the watch is at its version. What is outstanding arrives as events, each of
//! which is crossed off, so that the proof costs the set once and then only what changed.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use discovery_core::backend::Position;

use crate::readiness::Ref;
use crate::source::Census;

/// One version for each leg.
pub(crate) fn position(versions: impl IntoIterator<Item = u64>) -> Position {
    Position(Bytes::from(versions.into_iter().flat_map(u64::to_be_bytes).collect::<Vec<u8>>()))
}

/// The versions of a position.
pub(crate) fn versions(position: &Position) -> Vec<u64> {
    let chunks = position.0.chunks_exact(8);
    chunks.filter_map(|chunk| Some(u64::from_be_bytes(chunk.try_into().ok()?))).collect()
}

/// Whether each leg of `at` is as far as in `target`.
pub(crate) fn reached(at: &Position, target: &Position) -> bool {
    let (at, target) = (versions(at), versions(target));
    at.len() == target.len() && at.iter().zip(&target).all(|(at, target)| at >= target)
}

/// What one leg of a watch has seen.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    version: u64,
    objects: HashMap<Ref, u64>,
    outstanding: Option<Outstanding>,
}

#[derive(Debug)]
struct Outstanding {
    census: Arc<Census>,
    /// What is not yet as the census counted it.
    objects: HashSet<Ref>,
}

impl Progress {
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Begins with a list. It may be older than the newest census, which is compared again. Where it is older than what is
    /// proven, by a census that came while it was read, it tells nothing: what is held is what the store held later. Answers
    /// whether it is news.
    pub(crate) fn all<'a>(
        &mut self,
        objects: impl IntoIterator<Item = (&'a Ref, u64)>,
        version: u64,
        newest: Option<&Arc<Census>>,
    ) -> bool {
        if version < self.version {
            return false;
        }
        self.objects = objects.into_iter().map(|(name, version)| (name.clone(), version)).collect();
        self.version = version;
        self.outstanding = None;
        if let Some(newest) = newest {
            self.compare(newest);
        }
        true
    }

    /// Takes note of an event. An event beyond the census ends the comparison. Answers whether it is news.
    pub(crate) fn put(&mut self, name: &Ref, version: u64) -> bool {
        let news = version > self.version;
        if news {
            self.objects.insert(name.clone(), version);
            self.reckon(name, Some(version));
            self.at(version);
        }
        news
    }

    /// The same for an object that is gone.
    pub(crate) fn gone(&mut self, name: &Ref, version: u64) -> bool {
        let news = version > self.version;
        if news {
            self.objects.remove(name);
            self.reckon(name, None);
            self.at(version);
        }
        news
    }

    pub(crate) fn at(&mut self, version: u64) {
        self.version = self.version.max(version);
        if self.outstanding.as_ref().is_some_and(|outstanding| outstanding.census.version <= self.version) {
            self.outstanding = None;
        }
    }

    /// Whether an object that is held at this version, or not at all, is as it was counted, or later.
    fn reckon(&mut self, name: &Ref, held: Option<u64>) {
        let Some(outstanding) = &mut self.outstanding else { return };
        if is_counted(outstanding.census.objects.get(name).copied(), held) {
            outstanding.objects.remove(name);
        } else {
            outstanding.objects.insert(name.clone());
        }
        if outstanding.objects.is_empty() {
            let version = outstanding.census.version;
            self.at(version);
        }
    }

    /// Compares with a census that was taken after this watch began.
    pub(crate) fn compare(&mut self, census: &Arc<Census>) {
        if census.version <= self.version {
            return;
        }
        let names = census.objects.keys().chain(self.objects.keys());
        let is_behind = |name: &&Ref| !is_counted(census.objects.get(*name).copied(), self.objects.get(*name).copied());
        let objects: HashSet<Ref> = names.filter(is_behind).cloned().collect();
        if objects.is_empty() {
            self.at(census.version);
        } else {
            self.outstanding = Some(Outstanding { census: Arc::clone(census), objects });
        }
    }
}

/// Compares an object's counted version with the one that is held, for events up to the census.
fn is_counted(counted: Option<u64>, held: Option<u64>) -> bool {
    match (counted, held) {
        (Some(counted), Some(held)) => held >= counted,
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_position_is_reached_leg_by_leg() {
        let at = |versions: &[u64]| position(versions.iter().copied());
        assert!(reached(&at(&[3, 5]), &at(&[3, 5])) && reached(&at(&[3, 5]), &at(&[0, 4])));
        assert!(!reached(&at(&[3, 5]), &at(&[4, 0])) && !reached(&at(&[3, 5]), &at(&[3])));
        assert_eq!(versions(&at(&[1, u64::MAX])), [1, u64::MAX]);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Put(u8),
        Delete(u8),
        /// Something else in the store changes.
        Elsewhere,
        Deliver,
        Count,
        /// The watch begins anew with a list that was begun so many revisions ago.
        Relist(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..4_u8).prop_map(Step::Put),
            (0..4_u8).prop_map(Step::Delete),
            Just(Step::Elsewhere),
            Just(Step::Deliver),
            Just(Step::Deliver),
            Just(Step::Count),
            (0..4_u8).prop_map(Step::Relist),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        /// A watch shows what the store held at the version that it claims, and once all events are delivered it is at
        /// the newest census.
        #[test]
        fn a_version_is_claimed_when_all_before_it_was_seen(steps in prop::collection::vec(step(), 1..60)) {
            let name = |n: u8| Ref::new("ns", &n.to_string());
            let (mut store, mut revision) = (BTreeMap::<u8, u64>::new(), 1);
            // What the store held after each revision.
            let mut history = vec![store.clone(), store.clone()];
            let mut queue: Vec<(u64, u8, bool)> = Vec::new();
            let mut events = queue.clone();
            let mut progress = Progress::default();
            let mut shown: BTreeMap<u8, u64> = BTreeMap::new();
            let mut counted: Option<Arc<Census>> = None;
            let mut claimed = 0;
            progress.all([], 1, None);
            let deliver = |progress: &mut Progress, shown: &mut BTreeMap<u8, u64>, (version, n, put): (u64, u8, bool)| {
                if put && progress.put(&name(n), version) {
                    shown.insert(n, version);
                } else if !put && progress.gone(&name(n), version) {
                    shown.remove(&n);
                }
            };
            for step in steps {
                match step {
                    Step::Put(n) => {
                        revision += 1;
                        store.insert(n, revision);
                        queue.push((revision, n, true));
                        events.push((revision, n, true));
                    }
                    Step::Delete(n) if store.remove(&n).is_some() => {
                        revision += 1;
                        queue.push((revision, n, false));
                        events.push((revision, n, false));
                    }
                    Step::Delete(_) | Step::Elsewhere => revision += 1,
                    Step::Deliver if !queue.is_empty() => deliver(&mut progress, &mut shown, queue.remove(0)),
                    Step::Deliver => {}
                    Step::Count => {
                        let objects = store.iter().map(|(n, version)| (name(*n), *version)).collect();
                        let census = Arc::new(Census { version: revision, objects });
                        progress.compare(&census);
                        counted = Some(census);
                    }
                    Step::Relist(ago) => {
                        // A census may have proven more since it was begun.
                        let at = revision.saturating_sub(ago.into()).max(1);
                        let listed = history[at as usize].clone();
                        let names: Vec<_> = listed.iter().map(|(n, version)| (name(*n), *version)).collect();
                        let names = names.iter().map(|(name, version)| (name, *version));
                        if progress.all(names, at, counted.as_ref()) {
                            shown = listed;
                        }
                        queue = events.iter().copied().filter(|(version, ..)| *version > at).collect();
                    }
                }
                history.resize(revision as usize + 1, store.clone());
                // Events of one watch come in order: what it shows is what the store held at the version it claims.
                prop_assert_eq!(&shown, &history[progress.version() as usize], "claims {}", progress.version());
                prop_assert!(progress.version() >= claimed, "claimed {claimed}, claims {}", progress.version());
                claimed = progress.version();
            }
            for event in queue {
                deliver(&mut progress, &mut shown, event);
            }
            prop_assert_eq!(&shown, &store);
            let counted = counted.map_or(0, |census| census.version);
            prop_assert!(progress.version() >= counted, "{} of {}", progress.version(), counted);
        }
    }
}
