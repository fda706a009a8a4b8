//! What the files hold: one pass after another compares the directory with what is known.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use discovery_core::backend::{Change, Entry, Incarnation};
use discovery_core::{Key, Result};
use discovery_dynamo::layout;

use super::notice::{Notices, Notifier, Role};
use super::owners::Owners;
use crate::MAX_VALUE;
use crate::fault::fault;
use crate::lock::DirectoryLock;
use crate::owner::{Claim, End, Owner};
use crate::place::{Nonce, Place, Spot, TEMPORARY, is_stray, open};
use crate::record::{FOREIGN_TTL, GRACE, age};

/// How often files are read again when they change while they are read.
const ROUNDS: usize = 4;

/// A watch that is followed looks at the signs of life twice in this time.
const LATE: Duration = Duration::from_secs(1);

/// How thorough a pass is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// What was noticed only.
    Noticed,
    /// The signs of life as well.
    Lives,
    /// Every file.
    Full,
}

/// What a pass found.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) changes: Vec<Change>,
    /// Whether a directory was lost, and with it what it held.
    pub(crate) reset: bool,
}

#[derive(Debug)]
struct Known {
    claim: Claim,
    key: Key,
    value: Bytes,
    modified: SystemTime,
    size: u64,
    /// Since when this watcher knows that modification time, by its own monotonic clock; `None` where the file was
    /// too old already when it was seen first.
    modified_seen: Option<Instant>,
    incarnation: Incarnation,
    shown: bool,
}

impl Known {
    fn outdated(&self, now: Instant) -> bool {
        self.modified_seen.is_none_or(|seen| now.duration_since(seen) > FOREIGN_TTL + GRACE)
    }
}

struct Seen {
    nonce: Nonce,
    modified: SystemTime,
    size: u64,
    /// `None` where it was not read again because nothing about it has changed.
    value: Option<Bytes>,
}

#[derive(Debug, Default)]
struct Bucket {
    directory: Option<Nonce>,
    files: HashMap<String, Known>,
}

/// The files of the buckets that are wanted.
#[derive(Debug)]
pub(crate) struct Scan {
    place: Place,
    notifier: Option<Notifier>,
    owners: Owners,
    buckets: HashMap<String, Bucket>,
    skipped: HashSet<(String, String)>,
    incarnations: u64,
    last: Instant,
    /// What was noticed too late for the pass that noticed it.
    pending: Notices,
    /// Whether the last pass failed, so that what it noticed has to be found by looking at everything.
    failed: bool,
}

impl Scan {
    pub(crate) fn new(place: Place) -> Self {
        Self {
            place,
            notifier: None,
            owners: Owners::default(),
            buckets: HashMap::new(),
            skipped: HashSet::new(),
            // Two handles, and two lives of one, shall not use the same tokens.
            incarnations: fastrand::u64(..),
            last: Instant::now(),
            pending: Notices::default(),
            failed: false,
        }
    }

    /// Begins to follow the kernel's notices, or ends it.
    pub(crate) fn follow(&mut self, notices: bool) {
        self.notifier = notices.then(Notifier::new);
    }

    /// How many files there are that cannot be read as records.
    pub(crate) fn skipped(&self) -> u64 {
        self.skipped.len() as u64
    }

    /// Whether another pass should come soon: an owner may just have died, or something was noticed late.
    pub(crate) fn unfinished(&self) -> bool {
        self.owners.suspicious() || self.failed || !self.pending.is_empty()
    }

    /// Whether the kernel sends no notices, and everything has to be read again and again.
    pub(crate) fn polls(&self) -> bool {
        self.notifier.is_none()
    }

    /// Takes the notices that wait, for the next pass. Answers whether there is one that matters.
    pub(crate) fn notices(&mut self, fd: &OwnedFd) -> bool {
        let mut pending = std::mem::take(&mut self.pending);
        let drained = self.drain(Some(fd), &mut pending);
        self.pending = pending;
        // A pass tells what keeps them from being read.
        drained.is_err() || !self.pending.is_empty()
    }

    /// Compares. `wanted` are the buckets to look at, `None` for all.
    ///
    /// # Errors
    /// Where a directory cannot be read; what is known then stays.
    pub(crate) fn pass(
        &mut self,
        depth: Depth,
        wanted: Option<&BTreeSet<String>>,
        fd: Option<&OwnedFd>,
    ) -> Result<Findings> {
        let depth = if std::mem::replace(&mut self.failed, true) { Depth::Full } else { depth };
        let findings = self.compare(depth, wanted, fd)?;
        self.failed = false;
        Ok(findings)
    }

    fn compare(&mut self, depth: Depth, wanted: Option<&BTreeSet<String>>, fd: Option<&OwnedFd>) -> Result<Findings> {
        let now = Instant::now();
        let gap = now.duration_since(std::mem::replace(&mut self.last, now));
        // After a stop of this very process nobody's silence means anything yet.
        if gap > FOREIGN_TTL / 2 {
            self.forgive(now);
        } else if self.notifier.is_some() {
            // What kept a watcher from its passes kept owners of the same machine from renewing.
            self.owners.excuse(gap.saturating_sub(LATE), now);
        }
        let mut notices = std::mem::take(&mut self.pending);
        self.drain(fd, &mut notices)?;
        let directories = std::mem::take(&mut notices.directories);
        let full = depth == Depth::Full || std::mem::take(&mut notices.overflow);
        let unread = if full || directories || wanted.is_none() { self.watch(wanted, fd)? } else { Vec::new() };
        let lives = full || depth == Depth::Lives || std::mem::take(&mut notices.owners) || !notices.closed.is_empty();
        for name in notices.closed.drain() {
            self.owners.suspect(name, now);
        }
        if lives {
            self.owners.refresh(&self.place, now)?;
        }
        let died = self.owners.check_suspects(&self.place, now)?;

        let mut findings = Findings::default();
        let settled = if full { self.wanted(wanted)? } else { Vec::new() };
        // Without notices there is no telling what changes while it is read: writers wait for the whole reading.
        let unnoticed = fd.is_none() || self.notifier.is_none();
        let _settled = if unnoticed { self.lock(&settled) } else { Vec::new() };
        let settled = if unnoticed { Vec::new() } else { settled };
        for bucket in self.wanted(wanted)? {
            let replaced = (full || directories) && self.follow_directory(&bucket, &mut findings)?;
            let names = if full || replaced || unread.contains(&bucket) {
                self.list(&bucket)?
            } else if depth == Depth::Lives {
                self.ownerless(&bucket)
            } else {
                continue;
            };
            notices.touched.entry(bucket).or_default().extend(names);
        }
        self.read(notices, &settled, fd, now, &mut findings)?;
        if lives || died {
            self.judge(now, &mut findings);
        }
        Ok(findings)
    }

    fn forgive(&mut self, now: Instant) {
        self.owners.forgive(now);
        for known in self.buckets.values_mut().flat_map(|bucket| bucket.files.values_mut()) {
            known.modified_seen = known.modified_seen.map(|_| now);
        }
    }

    fn drain(&mut self, fd: Option<&OwnedFd>, notices: &mut Notices) -> Result<()> {
        match (&mut self.notifier, fd) {
            (Some(notifier), Some(fd)) => notifier.drain(fd, notices).map_err(|error| fault(self.place.root(), error)),
            _ => Ok(()),
        }
    }

    /// Watches what is wanted; answers the buckets whose watch is new. Without a grant of the kernel, all of them are
    /// read again by the next full passes.
    fn watch(&mut self, wanted: Option<&BTreeSet<String>>, fd: Option<&OwnedFd>) -> Result<Vec<String>> {
        let mut directories: Vec<(PathBuf, Role)> = vec![(self.place.owners(), Role::Owners)];
        if wanted.is_none() {
            directories.push((self.place.buckets(), Role::Ancestor));
        }
        directories
            .extend(self.wanted(wanted)?.into_iter().map(|bucket| (self.place.bucket(&bucket), Role::Bucket(bucket))));
        let (Some(notifier), Some(fd)) = (&mut self.notifier, fd) else { return Ok(Vec::new()) };
        Ok(notifier.watch(fd, &directories).unwrap_or_else(|error| {
            tracing::warn!(%error, "the kernel grants no more inotify watches: polling the directory instead");
            self.notifier = None;
            Vec::new()
        }))
    }

    fn wanted(&self, wanted: Option<&BTreeSet<String>>) -> Result<Vec<String>> {
        if let Some(wanted) = wanted {
            return Ok(wanted.iter().cloned().collect());
        }
        let path = self.place.buckets();
        let mut names: BTreeSet<_> = self.buckets.keys().cloned().collect();
        match fs::read_dir(&path) {
            Ok(listing) => {
                for entry in listing {
                    let entry = entry.map_err(|error| fault(&path, error))?;
                    // What somebody left beside the buckets is none, and hides none.
                    if !entry.path().is_dir() {
                        continue;
                    }
                    let name = entry.file_name().into_string().ok();
                    names.extend(name.filter(|name| layout::kind_of_bucket(name).is_ok()));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fault(&path, error)),
        }
        Ok(names.into_iter().collect())
    }

    /// Whether the bucket's directory was replaced or removed: then what it held is lost.
    fn follow_directory(&mut self, bucket: &str, findings: &mut Findings) -> Result<bool> {
        let path = self.place.bucket(bucket);
        let current = match fs::metadata(&path) {
            Ok(metadata) => Some(Nonce::of(&metadata)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(fault(&path, error)),
        };
        let known = self.buckets.entry(bucket.to_owned()).or_default();
        let before = std::mem::replace(&mut known.directory, current);
        let replaced = before != current;
        if before.is_some() && replaced {
            findings.reset = true;
            let lost = known.files.drain().filter(|(_, known)| known.shown);
            findings.changes.extend(lost.map(|(_, known)| Change::Delete(known.key)));
        }
        Ok(replaced)
    }

    /// The names in the bucket, and those that are known.
    fn list(&mut self, bucket: &str) -> Result<HashSet<String>> {
        let path = self.place.bucket(bucket);
        let mut names: HashSet<_> =
            self.buckets.get(bucket).into_iter().flat_map(|known| known.files.keys().cloned()).collect();
        match fs::read_dir(&path) {
            Ok(listing) => {
                for entry in listing {
                    let name = entry.map_err(|error| fault(&path, error))?.file_name();
                    names.extend(Some(name.to_string_lossy().into_owned()).filter(|name| !name.starts_with(TEMPORARY)));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(fault(&path, error)),
        }
        self.skipped.retain(|(place, name)| place != bucket || names.contains(name));
        Ok(names)
    }

    fn ownerless(&self, bucket: &str) -> HashSet<String> {
        let files = self.buckets.get(bucket).into_iter().flat_map(|known| &known.files);
        files.filter(|(_, known)| self.owners.lives(&known.claim).is_none()).map(|(name, _)| name.clone()).collect()
    }

    /// Reads what was touched, and applies it once no notice about it is left that is older than what was read. Of the
    /// `settled` buckets the last is read while writers wait, so that what is applied is a state that they had.
    fn read(
        &mut self,
        mut notices: Notices,
        settled: &[String],
        fd: Option<&OwnedFd>,
        now: Instant,
        findings: &mut Findings,
    ) -> Result<()> {
        let mut seen: HashMap<Spot, Option<(Key, Seen)>> = HashMap::new();
        for _ in 0..ROUNDS {
            self.read_touched(&mut notices, &mut seen)?;
            self.drain(fd, &mut notices)?;
            if notices.touched.is_empty() {
                break;
            }
        }
        {
            let locks = self.lock(settled);
            if !locks.is_empty() {
                self.drain(fd, &mut notices)?;
                self.read_touched(&mut notices, &mut seen)?;
            }
        }
        // What was made anew since it was read is left to the next pass, with what else came too late.
        let touched = &notices.touched;
        let late = |spot: &Spot| touched.get(&spot.bucket).is_some_and(|names| names.contains(&spot.name));
        let (made_anew, gone): (HashSet<_>, HashSet<_>) = notices.gone.drain().partition(late);
        for (spot, file) in seen {
            if !made_anew.contains(&spot) {
                let gone = gone.contains(&spot);
                self.apply(spot, gone, file, now, findings);
            }
        }
        notices.gone = made_anew;
        self.pending = notices;
        Ok(())
    }

    /// Makes writers wait. Without a lock, as where others hold it for long, what is read may be a state that the bucket
    /// only passed through.
    fn lock(&self, buckets: &[String]) -> Vec<DirectoryLock> {
        buckets.iter().filter_map(|bucket| DirectoryLock::acquire(&self.place.bucket(bucket)).ok()).collect()
    }

    fn read_touched(&mut self, notices: &mut Notices, seen: &mut HashMap<Spot, Option<(Key, Seen)>>) -> Result<()> {
        for (bucket, names) in std::mem::take(&mut notices.touched) {
            for name in names {
                let spot = Spot { bucket: bucket.clone(), name };
                if let Some(key) = self.key(&spot) {
                    let file = self.look(&spot, notices.gone.contains(&spot))?;
                    seen.insert(spot, file.map(|file| (key, file)));
                }
            }
        }
        Ok(())
    }

    /// The key of this file; `None`, counted, where it is no record's.
    fn key(&mut self, spot: &Spot) -> Option<Key> {
        let known = self.buckets.get(&spot.bucket).and_then(|bucket| bucket.files.get(&spot.name));
        if let Some(known) = known {
            return Some(known.key.clone());
        }
        match layout::parse_file_name(&spot.bucket, &spot.name) {
            Ok(key) => Some(key),
            Err(error) => {
                if self.place.record(spot).exists() {
                    self.skip(spot, error.message());
                } else {
                    self.skipped.remove(&(spot.bucket.clone(), spot.name.clone()));
                }
                None
            }
        }
    }

    fn skip(&mut self, spot: &Spot, cause: &str) {
        if self.skipped.insert((spot.bucket.clone(), spot.name.clone())) {
            tracing::warn!(bucket = spot.bucket, name = spot.name, cause, "a file is no record and is passed over");
        }
    }

    fn look(&self, spot: &Spot, gone: bool) -> Result<Option<Seen>> {
        let path = self.place.record(spot);
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Ok(None),
            // One file that cannot be read hides nobody else.
            io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidFilename => Ok(None),
            _ => Err(fault(&path, error)),
        };
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) if metadata.is_file() => metadata,
            Ok(_) => return Ok(None),
            Err(error) => return failed(error),
        };
        let (Ok(modified), nonce) = (metadata.modified(), Nonce::of(&metadata)) else { return Ok(None) };
        let known = self.buckets.get(&spot.bucket).and_then(|bucket| bucket.files.get(&spot.name)).filter(|_| !gone);
        if known
            .is_some_and(|known| (known.claim.nonce, known.modified, known.size) == (nonce, modified, metadata.len()))
        {
            return Ok(Some(Seen { nonce, modified, size: metadata.len(), value: None }));
        }
        let mut value = Vec::new();
        // What is read belongs to the file that was opened, which may be a newer one than that just looked at.
        let read = open(&path).and_then(|file| {
            let Some(mut file) = file else { return Err(io::ErrorKind::NotFound.into()) };
            let metadata = file.metadata()?;
            Read::by_ref(&mut file).take(MAX_VALUE as u64 + 1).read_to_end(&mut value)?;
            Ok((Nonce::of(&metadata), metadata.modified()?, metadata.len()))
        });
        match read {
            Ok((nonce, modified, size)) => Ok(Some(Seen { nonce, modified, size, value: Some(value.into()) })),
            Err(error) => failed(error),
        }
    }

    fn apply(&mut self, spot: Spot, gone: bool, file: Option<(Key, Seen)>, now: Instant, findings: &mut Findings) {
        let files = &mut self.buckets.entry(spot.bucket.clone()).or_default().files;
        if (gone || file.is_none())
            && let Some(known) = files.remove(&spot.name)
            && known.shown
        {
            findings.changes.push(Change::Delete(known.key));
        }
        let Some((key, file)) = file else {
            if is_stray(&self.place.record(&spot)) {
                self.skip(&spot, "it is no regular file: move it away");
            } else {
                self.skipped.remove(&(spot.bucket, spot.name));
            }
            return;
        };
        if file.size > MAX_VALUE as u64 {
            // The last value that had a legal size stays.
            self.skip(&spot, "it is too large");
            return;
        }
        let claim = Claim { spot: spot.clone(), nonce: file.nonce };
        if let Some(known) = files.get_mut(&spot.name) {
            if (known.claim.nonce, known.modified) != (file.nonce, file.modified) {
                known.modified_seen = Some(now);
            }
            (known.claim, known.modified, known.size) = (claim, file.modified, file.size);
            if let Some(value) = file.value
                && value != known.value
            {
                known.value = value;
                if known.shown {
                    findings.changes.push(Change::Put(entry(known)));
                }
            }
            return;
        }
        let Some(value) = file.value else { return };
        self.incarnations = self.incarnations.wrapping_add(1);
        let mut known = Known {
            claim,
            key,
            value,
            modified: file.modified,
            size: file.size,
            modified_seen: (age(file.modified) <= FOREIGN_TTL + GRACE).then_some(now),
            incarnation: Incarnation(self.incarnations),
            shown: false,
        };
        known.shown = self.owners.lives(&known.claim).unwrap_or(!known.outdated(now));
        if known.shown {
            findings.changes.push(Change::Put(entry(&known)));
        }
        files.insert(spot.name, known);
    }

    /// Shows and hides records by their owners' lives, or by their own age where they have no owner.
    fn judge(&mut self, now: Instant, findings: &mut Findings) {
        for known in self.buckets.values_mut().flat_map(|bucket| bucket.files.values_mut()) {
            let show = self.owners.lives(&known.claim).unwrap_or(!known.outdated(now));
            match (known.shown, show) {
                (true, false) => findings.changes.push(Change::Delete(known.key.clone())),
                (false, true) => {
                    self.incarnations = self.incarnations.wrapping_add(1);
                    known.incarnation = Incarnation(self.incarnations);
                    findings.changes.push(Change::Put(entry(known)));
                }
                _ => {}
            }
            known.shown = show;
        }
    }

    /// The owners that are over, with all that they claim: what may be removed from the directory. Files that no owner
    /// claims are somebody else's; they are hidden once nobody renews them, and stay.
    pub(crate) fn leftovers(&self) -> Vec<(Owner, End)> {
        self.owners.over().collect()
    }
}

fn entry(known: &Known) -> Entry {
    Entry { key: known.key.clone(), value: known.value.clone(), incarnation: known.incarnation }
}

#[cfg(test)]
mod tests;
