//! Which records do the files show? Those of living owners, and young ones of nobody's.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use bytes::Bytes;
use discovery_core::Key;
use discovery_core::backend::{Change, Entry, Incarnation};

use super::look::{Look, Seen, State};
use super::owners::Owners;
use crate::MAX_VALUE;
use crate::owner::Claim;
use crate::place::{Nonce, Spot};
use crate::record::{FOREIGN_TTL, GRACE, age};

/// What a pass found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) changes: Vec<Change>,
    /// Whether a directory was lost, and with it what it held.
    pub(crate) reset: bool,
}

/// A record's file, as it was seen last.
#[derive(Debug)]
pub(super) struct Known {
    claim: Claim,
    pub(super) key: Key,
    value: Bytes,
    pub(super) state: State,
    /// Since when this watcher knows that modification time, by its own monotonic clock; `None` where the file was
    /// too old already when it was seen first.
    pub(super) modified_seen: Option<Instant>,
    /// Whether that was moved on since, because nobody had looked for long.
    forgiven: bool,
    incarnation: Incarnation,
    pub(super) shown: bool,
}

impl Known {
    fn outdated(&self, now: Instant) -> bool {
        self.modified_seen.is_none_or(|seen| now.duration_since(seen) > FOREIGN_TTL + GRACE)
    }

    /// By its owner's life, or by its own age where it has no owner.
    fn lives(&self, owners: &Owners, now: Instant) -> bool {
        owners.lives(&self.claim).unwrap_or(!self.outdated(now))
    }

    /// Shows the record or hides it.
    fn judge(&mut self, owners: &Owners, incarnations: &mut u64, now: Instant, findings: &mut Findings) {
        let show = self.lives(owners, now);
        match (self.shown, show) {
            (true, false) => findings.changes.push(Change::Delete(self.key.clone())),
            (false, true) => {
                *incarnations = incarnations.wrapping_add(1);
                self.incarnation = Incarnation(*incarnations);
                findings.changes.push(Change::Put(entry(self)));
            }
            _ => {}
        }
        self.shown = show;
    }
}

#[derive(Debug, Default)]
struct Bucket {
    directory: Option<Nonce>,
    files: HashMap<String, Known>,
}

/// The files of the buckets that are wanted.
#[derive(Debug)]
pub(super) struct Files {
    buckets: HashMap<String, Bucket>,
    /// What lies in the buckets and is no record.
    skipped: HashSet<Spot>,
    incarnations: u64,
}

impl Files {
    pub(super) fn new() -> Self {
        // Two handles, and two lives of one, shall not use the same tokens.
        Self { buckets: HashMap::new(), skipped: HashSet::new(), incarnations: fastrand::u64(..) }
    }

    pub(super) fn buckets(&self) -> impl Iterator<Item = &String> {
        self.buckets.keys()
    }

    /// The buckets that were there, and which directories they were.
    pub(super) fn directories(&self) -> impl Iterator<Item = (&String, &Nonce)> {
        self.buckets.iter().filter_map(|(name, bucket)| Some((name, bucket.directory.as_ref()?)))
    }

    pub(super) fn known(&self, spot: &Spot) -> Option<&Known> {
        self.buckets.get(&spot.bucket)?.files.get(&spot.name)
    }

    pub(super) fn each(&mut self) -> impl Iterator<Item = &mut Known> {
        self.buckets.values_mut().flat_map(|bucket| bucket.files.values_mut())
    }

    /// The names of the files of a bucket.
    pub(super) fn names(&self, bucket: &str) -> impl Iterator<Item = &String> {
        self.buckets.get(bucket).into_iter().flat_map(|known| known.files.keys())
    }

    /// Those that no owner claims.
    pub(super) fn ownerless(&self, bucket: &str, owners: &Owners) -> HashSet<String> {
        let files = self.buckets.get(bucket).into_iter().flat_map(|known| &known.files);
        files.filter(|(_, known)| owners.lives(&known.claim).is_none()).map(|(name, _)| name.clone()).collect()
    }

    /// How many there are that are no records.
    pub(super) fn skipped(&self) -> u64 {
        self.skipped.len() as u64
    }

    pub(super) fn skip(&mut self, spot: &Spot, cause: &str) {
        if self.skipped.insert(spot.clone()) {
            tracing::warn!(bucket = spot.bucket, name = spot.name, cause, "a file is no record and is passed over");
        }
    }

    pub(super) fn unskip(&mut self, spot: &Spot) {
        self.skipped.remove(spot);
    }

    /// Forgets what was passed over in a bucket and has none of these names.
    pub(super) fn skip_only(&mut self, bucket: &str, names: &HashSet<String>) {
        self.skipped.retain(|spot| spot.bucket != bucket || names.contains(&spot.name));
    }

    /// Notes which directory a bucket is now. Answers whether it is another one: what the former one held is lost.
    pub(super) fn found(&mut self, bucket: &str, directory: Option<Nonce>, findings: &mut Findings) -> bool {
        let known = self.buckets.entry(bucket.to_owned()).or_default();
        let before = std::mem::replace(&mut known.directory, directory);
        let replaced = before != directory;
        if before.is_some() && replaced {
            findings.reset = true;
            let lost = known.files.drain().filter(|(_, known)| known.shown);
            findings.changes.extend(lost.map(|(_, known)| Change::Delete(known.key)));
        }
        replaced
    }

    /// Starts the clocks of those anew that no owner claims: see [`Owners::forgive`].
    pub(super) fn forgive(&mut self, once: bool, now: Instant) {
        for known in self.each().filter(|known| !(once && known.forgiven)) {
            known.modified_seen = known.modified_seen.map(|_| now);
            known.forgiven = true;
        }
    }

    /// Takes in what there is under a name now. `gone`: that it was away in between.
    pub(super) fn apply(
        &mut self,
        spot: Spot,
        gone: bool,
        (key, look): (Key, Look),
        owners: &Owners,
        now: Instant,
        findings: &mut Findings,
    ) {
        let files = &mut self.buckets.entry(spot.bucket.clone()).or_default().files;
        if (gone || !look.is_file())
            && let Some(known) = files.remove(&spot.name)
            && known.shown
        {
            findings.changes.push(Change::Delete(known.key));
        }
        let Seen { state, value } = match look {
            Look::File(seen) => seen,
            Look::Stray => return self.skip(&spot, "it is no regular file: move it away"),
            Look::Absent => {
                self.unskip(&spot);
                return;
            }
        };
        if state.size > MAX_VALUE as u64 {
            // The last value that had a legal size stays.
            self.skip(&spot, "it is too large");
            return;
        }
        let claim = Claim { spot: spot.clone(), nonce: state.nonce };
        if let Some(known) = files.get_mut(&spot.name) {
            if (known.state.nonce, known.state.modified) != (state.nonce, state.modified) {
                (known.modified_seen, known.forgiven) = (Some(now), false);
            }
            (known.claim, known.state) = (claim, state);
            if let Some(value) = value
                && value != known.value
            {
                known.value = value;
                if known.shown {
                    findings.changes.push(Change::Put(entry(known)));
                }
            }
            // A file that nobody renewed for long may just have been written again.
            known.judge(owners, &mut self.incarnations, now, findings);
            return;
        }
        let Some(value) = value else { return };
        let mut known = Known {
            claim,
            key,
            value,
            state,
            modified_seen: (age(state.modified) <= FOREIGN_TTL + GRACE).then_some(now),
            forgiven: false,
            // Its own once it shows.
            incarnation: Incarnation(self.incarnations),
            shown: false,
        };
        known.judge(owners, &mut self.incarnations, now, findings);
        files.insert(spot.name, known);
    }

    /// Shows and hides records by what is known of their owners.
    pub(super) fn judge(&mut self, which: HashSet<Spot>, owners: &Owners, now: Instant, findings: &mut Findings) {
        for spot in which {
            let files = self.buckets.get_mut(&spot.bucket).map(|bucket| &mut bucket.files);
            if let Some(known) = files.and_then(|files| files.get_mut(&spot.name)) {
                known.judge(owners, &mut self.incarnations, now, findings);
            }
        }
    }

    /// The same for all.
    pub(super) fn judge_all(&mut self, owners: &Owners, now: Instant, findings: &mut Findings) {
        for known in self.buckets.values_mut().flat_map(|bucket| bucket.files.values_mut()) {
            known.judge(owners, &mut self.incarnations, now, findings);
        }
    }
}

fn entry(known: &Known) -> Entry {
    Entry { key: known.key.clone(), value: known.value.clone(), incarnation: known.incarnation }
}
