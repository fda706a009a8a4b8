//! One pass after another compares the directory with what is known: what was noticed, or everything.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use discovery_core::{Key, Result};
use discovery_dynamo::layout;

use super::files::{Files, Findings};
use super::look::{Look, look};
use super::notice::{Notices, Notifier, Role};
use super::owners::Owners;
use crate::fault::{fault, is_of};
use crate::lock::DirectoryLock;
use crate::owner::{End, Owner};
use crate::place::{Place, Spot, TEMPORARY};
use crate::reading::{Reading, directory};
use crate::record::FOREIGN_TTL;

/// How often files are read again when they change while they are read.
const ROUNDS: usize = 4;

/// A watch that is followed looks at the signs of life twice in this time.
const LATE: Duration = Duration::from_secs(1);

/// For how long nothing is looked at at once after that failed. Some file systems never tell what they hold in memory.
const UNABLE: Duration = Duration::from_secs(60);

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

/// Whether passes come by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Following {
    /// Only when somebody lists.
    No,
    /// All the time.
    Polling,
    /// When the kernel notices something, and now and then.
    Notices,
}

/// The files of the buckets that are wanted.
#[derive(Debug)]
pub(crate) struct Scan {
    place: Place,
    following: Following,
    notifier: Option<Notifier>,
    owners: Owners,
    files: Files,
    last: Instant,
    /// What was noticed too late for the pass that noticed it.
    pending: Notices,
    /// Whether the last pass failed, so that what it noticed has to be found by looking at everything.
    failed: bool,
    /// What failed passes found before they did.
    unsaid: Findings,
    /// When something could not be looked at at once.
    unable: Option<Instant>,
}

impl Scan {
    pub(crate) fn new(place: Place) -> Self {
        Self {
            place,
            following: Following::No,
            notifier: None,
            owners: Owners::default(),
            files: Files::new(),
            last: Instant::now(),
            pending: Notices::default(),
            failed: false,
            unsaid: Findings::default(),
            unable: None,
        }
    }

    /// Begins to follow the directory, or ends it.
    pub(crate) fn follow(&mut self, following: Following) {
        self.notifier = (following == Following::Notices).then(Notifier::new);
        self.following = following;
    }

    /// How many files there are that cannot be read as records.
    pub(crate) fn skipped(&self) -> u64 {
        self.files.skipped()
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
        let mut findings = std::mem::take(&mut self.unsaid);
        if let Err(error) = self.compare(depth, wanted, fd, &mut findings) {
            self.unsaid = findings;
            return Err(error);
        }
        self.failed = false;
        Ok(findings)
    }

    fn compare(
        &mut self,
        depth: Depth,
        wanted: Option<&BTreeSet<String>>,
        fd: Option<&OwnedFd>,
        findings: &mut Findings,
    ) -> Result<()> {
        let now = Instant::now();
        let gap = now.duration_since(std::mem::replace(&mut self.last, now));
        // After a stop of this very process nobody's silence means anything yet. Who only lists now and then cannot tell
        // it from the time between two lists, and waits for a sign of life once.
        if gap > FOREIGN_TTL / 2 {
            let once = self.following == Following::No;
            self.owners.forgive(once, now);
            self.files.forgive(once, now);
        } else if self.following != Following::No {
            // What kept a watcher from its passes kept owners of the same machine from renewing.
            self.owners.excuse(gap.saturating_sub(LATE), now);
        }
        let mut notices = std::mem::take(&mut self.pending);
        self.drain(fd, &mut notices)?;
        let directories = std::mem::take(&mut notices.directories);
        let full = depth == Depth::Full || std::mem::take(&mut notices.overflow);
        let unread = if full || directories || wanted.is_none() { self.watch(wanted, fd)? } else { Vec::new() };
        for name in notices.closed.drain() {
            self.owners.suspect(name, now);
        }
        let lives = full || depth == Depth::Lives;
        if lives {
            notices.owners.clear();
            self.owners.refresh(&self.place, now)?;
        }
        self.look_at_owners(&mut notices, now, Reading::Waits)?;
        self.owners.check_suspects(&self.place, now)?;

        let settled = if full { self.wanted(wanted)? } else { Vec::new() };
        // Without notices there is no telling what changes while it is read: writers wait for the whole reading.
        let unnoticed = fd.is_none() || self.notifier.is_none();
        let _settled = if unnoticed { self.lock(&settled) } else { Vec::new() };
        let settled = if unnoticed { Vec::new() } else { settled };
        for bucket in self.wanted(wanted)? {
            let replaced = (full || directories) && self.follow_directory(&bucket, findings)?;
            let names = if full || replaced || unread.contains(&bucket) {
                self.list(&bucket)?
            } else if depth == Depth::Lives {
                self.files.ownerless(&bucket, &self.owners)
            } else {
                continue;
            };
            notices.touched.entry(bucket).or_default().extend(names);
        }
        self.read(&mut notices, &settled, fd, now, Reading::Waits, findings)?;
        let turned = self.owners.take_turned();
        if lives {
            self.files.judge_all(&self.owners, now, findings);
        } else {
            self.files.judge(turned, &self.owners, now, findings);
        }
        Ok(())
    }

    /// Takes in what was noticed, where that is little and waits for nothing: what the kernel holds in memory. `None`
    /// where it takes a pass.
    pub(crate) fn at_once(&mut self, fd: &OwnedFd) -> Option<Findings> {
        let now = Instant::now();
        let late = now.duration_since(self.last) > LATE;
        let able = self.unable.is_none_or(|since| now.duration_since(since) > UNABLE);
        if late || !able || self.failed || self.owners.suspicious() || !self.pending.is_little() {
            return None;
        }
        self.last = now;
        let mut notices = std::mem::take(&mut self.pending);
        let noticed = notices.clone();
        match self.compare_at_once(&mut notices, fd, now) {
            Ok(findings) => Some(findings),
            Err(error) => {
                // Nothing was applied: a pass sees to it.
                notices.add(noticed);
                self.pending = notices;
                // Some names are not in memory: those that were removed while somebody has the file open. That passes.
                self.unable = (!is_of(&error, io::ErrorKind::WouldBlock)).then_some(now);
                None
            }
        }
    }

    fn compare_at_once(&mut self, notices: &mut Notices, fd: &OwnedFd, now: Instant) -> Result<Findings> {
        let mut findings = Findings::default();
        self.look_at_owners(notices, now, Reading::AtOnce)?;
        self.read(notices, &[], Some(fd), now, Reading::AtOnce, &mut findings)?;
        let turned = self.owners.take_turned();
        self.files.judge(turned, &self.owners, now, &mut findings);
        Ok(findings)
    }

    fn look_at_owners(&mut self, notices: &mut Notices, now: Instant, reading: Reading) -> Result<()> {
        notices.owners.drain().try_for_each(|name| self.owners.look(&self.place, &name, now, reading))
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
        let mut names: BTreeSet<_> = self.files.buckets().cloned().collect();
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
        let current = directory(&path, Reading::Waits).map_err(|error| fault(&path, error))?;
        Ok(self.files.found(bucket, current, findings))
    }

    /// Whether files are missing because their directories are: those were moved away before, and are being emptied where
    /// they are now. So nobody removed the files one by one, and what they held is lost. Asked after the files were looked at.
    fn loses_directories(&mut self, reading: Reading, findings: &mut Findings) -> Result<bool> {
        let mut lost = Vec::new();
        for (bucket, known) in self.files.directories() {
            let path = self.place.bucket(bucket);
            let current = directory(&path, reading).map_err(|error| fault(&path, error))?;
            if current.as_ref() != Some(known) {
                lost.push(bucket.clone());
            }
        }
        for bucket in &lost {
            // What is there in its place is for the next pass.
            self.files.found(bucket, None, findings);
        }
        Ok(!lost.is_empty())
    }

    /// The names in the bucket, and those that are known.
    fn list(&mut self, bucket: &str) -> Result<HashSet<String>> {
        let path = self.place.bucket(bucket);
        let mut names: HashSet<_> = self.files.names(bucket).cloned().collect();
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
        self.files.skip_only(bucket, &names);
        Ok(names)
    }

    /// Reads what was touched, and applies it once no notice about it is left that is older than what was read. Of the
    /// `settled` buckets the last is read while writers wait, so that what is applied is a state that they had.
    fn read(
        &mut self,
        notices: &mut Notices,
        settled: &[String],
        fd: Option<&OwnedFd>,
        now: Instant,
        reading: Reading,
        findings: &mut Findings,
    ) -> Result<()> {
        let mut seen = HashMap::new();
        if let Err(error) = self.read_all(notices, settled, fd, reading, &mut seen, findings) {
            // Nothing was applied. What came with the last notices is noticed by nothing else.
            for Spot { bucket, name } in seen.into_keys() {
                notices.touched.entry(bucket).or_default().insert(name);
            }
            return Err(error);
        }
        // What was made anew since it was read is left to the next pass, with what else came too late.
        let touched = &notices.touched;
        let late = |spot: &Spot| touched.get(&spot.bucket).is_some_and(|names| names.contains(&spot.name));
        let (made_anew, gone): (HashSet<_>, HashSet<_>) = notices.gone.drain().partition(late);
        for (spot, found) in seen {
            if !made_anew.contains(&spot) {
                let gone = gone.contains(&spot);
                self.files.apply(spot, gone, found, &self.owners, now, findings);
            }
        }
        notices.gone = made_anew;
        self.pending = std::mem::take(notices);
        Ok(())
    }

    fn read_all(
        &mut self,
        notices: &mut Notices,
        settled: &[String],
        fd: Option<&OwnedFd>,
        reading: Reading,
        seen: &mut HashMap<Spot, (Key, Look)>,
        findings: &mut Findings,
    ) -> Result<()> {
        for _ in 0..ROUNDS {
            self.read_touched(notices, reading, seen)?;
            self.drain(fd, notices)?;
            if notices.touched.is_empty() {
                break;
            }
        }
        {
            let locks = self.lock(settled);
            if !locks.is_empty() {
                self.drain(fd, notices)?;
                self.read_touched(notices, reading, seen)?;
            }
        }
        // Before anything is applied: where it cannot be told at once, a pass has to find all of it.
        let missing = seen.iter().any(|(spot, (_, look))| !look.is_file() && self.files.known(spot).is_some());
        if (missing || !notices.gone.is_empty()) && self.loses_directories(reading, findings)? {
            notices.directories = true;
        }
        Ok(())
    }

    /// Makes writers wait. Without a lock, as where others hold it for long, what is read may be a state that the bucket
    /// only passed through.
    fn lock(&self, buckets: &[String]) -> Vec<DirectoryLock> {
        buckets.iter().filter_map(|bucket| DirectoryLock::acquire(&self.place.bucket(bucket)).ok()).collect()
    }

    fn read_touched(
        &mut self,
        notices: &mut Notices,
        reading: Reading,
        seen: &mut HashMap<Spot, (Key, Look)>,
    ) -> Result<()> {
        let mut read = Ok(());
        for (bucket, names) in std::mem::take(&mut notices.touched) {
            for name in names {
                // What was not read stays touched.
                if read.is_err() {
                    notices.touched.entry(bucket.clone()).or_default().insert(name);
                    continue;
                }
                let spot = Spot { bucket: bucket.clone(), name };
                match self.read_one(&spot, &notices.gone, reading) {
                    Ok(Some(found)) => {
                        seen.insert(spot, found);
                    }
                    Ok(None) => {}
                    Err(error) => {
                        notices.touched.entry(bucket.clone()).or_default().insert(spot.name);
                        read = Err(error);
                    }
                }
            }
        }
        read
    }

    fn read_one(&mut self, spot: &Spot, gone: &HashSet<Spot>, reading: Reading) -> Result<Option<(Key, Look)>> {
        let Some(key) = self.key(spot, reading)? else { return Ok(None) };
        // What was away in between is read anew.
        let known = self.files.known(spot).filter(|_| !gone.contains(spot)).map(|known| known.state);
        let path = self.place.record(spot);
        let look = look(&path, known, reading).map_err(|error| fault(&path, error))?;
        Ok(Some((key, look)))
    }

    /// The key of this file; `None`, counted, where it is no record's.
    fn key(&mut self, spot: &Spot, reading: Reading) -> Result<Option<Key>> {
        if let Some(known) = self.files.known(spot) {
            return Ok(Some(known.key.clone()));
        }
        match (layout::parse_file_name(&spot.bucket, &spot.name), reading) {
            (Ok(key), _) => Ok(Some(key)),
            // Whether there still is such a file may have to be waited for.
            (Err(_), Reading::AtOnce) => Err(fault(&self.place.record(spot), io::ErrorKind::WouldBlock.into())),
            (Err(error), Reading::Waits) => {
                if self.place.record(spot).exists() {
                    self.files.skip(spot, error.message());
                } else {
                    self.files.unskip(spot);
                }
                Ok(None)
            }
        }
    }

    /// The owners that are over, with all that they claim: what may be removed from the directory. Files that no owner
    /// claims are somebody else's; they are hidden once nobody renews them, and stay.
    pub(crate) fn leftovers(&self) -> Vec<(Owner, End)> {
        self.owners.over().collect()
    }
}

#[cfg(test)]
mod tests;
