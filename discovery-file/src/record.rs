//! Writing, removing and comparing one owner's record files.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use discovery_core::backend::{Desired, Drift};
use discovery_core::{Error, ErrorKind, Key, Result};
use serde_json::Value;

use crate::MAX_VALUE;
use crate::fault::{fault, is_of, stray};
use crate::lock::DirectoryLock;
use crate::owner::{Claim, Owner, OwnerFile, temporary_prefix, touch};
use crate::place::{Nonce, Place, Spot, is_stray, remove};
use crate::reading::{Reading, open};

/// How long the reference lets a file live that nobody renews.
pub(crate) const FOREIGN_TTL: Duration = Duration::from_secs(10);
/// What is added to a time to live before a silent owner or file counts as expired.
pub(crate) const GRACE: Duration = Duration::from_millis(500);

/// Which files the sessions of one handle have written. Outlives a session, so that the next one takes them over.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<HashMap<Key, Held>>);

#[derive(Clone, Debug)]
struct Held {
    nonce: Nonce,
    /// [`OwnerFile::life`] of the one that claims it.
    life: u64,
}

impl Ledger {
    fn entries(&self) -> MutexGuard<'_, HashMap<Key, Held>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &Key) -> Option<Held> {
        self.entries().get(key).cloned()
    }
}

/// One owner's hand on its record files. Every method blocks its thread, for about a second at most.
#[derive(Debug)]
pub(crate) struct Records<'a> {
    pub(crate) place: &'a Place,
    pub(crate) owner: &'a OwnerFile,
    pub(crate) ledger: &'a Ledger,
}

impl Records<'_> {
    /// Stores a value under a key that is free, this owner's, or a dead owner's. Silent where it is stored already.
    pub(crate) fn put(&self, key: &Key, value: &[u8]) -> Result<()> {
        let spot = Spot::of(key)?;
        match self.put_once(key, &spot, value) {
            // Somebody removed the directory in between; it is made again once.
            Err(error) if is_missing(&error) => self.put_once(key, &spot, value),
            other => other,
        }
    }

    fn put_once(&self, key: &Key, spot: &Spot, value: &[u8]) -> Result<()> {
        self.owner.check()?;
        let path = self.place.record(spot);
        let held = self.ledger.get(key);
        let ours = held.as_ref().filter(|held| self.claims(held));
        if let Some(held) = ours
            && holds(&path, held.nonce, value)?
        {
            return Ok(());
        }
        let directory = self.place.bucket(&spot.bucket);
        self.place.make(&directory)?;
        let temporary = Temporary::write(&directory, self.owner, value)?;
        let _lock = DirectoryLock::acquire(&directory)?;
        // Under the lock: whoever declares this owner dead removes its records under the same one.
        self.owner.check()?;
        if is_stray(&path) {
            return Err(stray(&path));
        }
        match Nonce::at(&path).map_err(|error| fault(&path, error))? {
            None => self.create(key, spot, &temporary, &path),
            // An earlier session's file becomes this one's by a new file in its place: no two owners ever claim one.
            Some(nonce) if held.as_ref().is_some_and(|held| held.nonce == nonce) => {
                self.replace(key, spot, &temporary, &path)
            }
            Some(nonce) => {
                let claim = Claim { spot: spot.clone(), nonce };
                match Owner::of(self.place, &claim)? {
                    Some(other) if other.name == self.owner.name() => self.replace(key, spot, &temporary, &path),
                    Some(other) if other.alive => Err(conflict(key, &other.describe())),
                    // What was ours was overwritten by no owner at all.
                    None if held.is_some() => self.replace(key, spot, &temporary, &path),
                    None if !is_outdated(&path)? => {
                        Err(conflict(key, "a process that renews its file and is none of ours"))
                    }
                    _ => {
                        remove(&path)?;
                        self.create(key, spot, &temporary, &path)
                    }
                }
            }
        }
    }

    fn claim(&self, key: &Key, spot: &Spot, nonce: Nonce) -> Result<()> {
        let claim = Claim { spot: spot.clone(), nonce };
        self.owner.claim(std::slice::from_ref(&claim), || {
            let mine = |(key, held): (&Key, &Held)| {
                let spot = self.claims(held).then(|| Spot::of(key).ok())??;
                Some(Claim { spot, nonce: held.nonce })
            };
            let mut all: Vec<_> = self.ledger.entries().iter().filter_map(mine).collect();
            all.push(claim.clone());
            all
        })?;
        self.note(key, nonce);
        Ok(())
    }

    /// Whether this owner claims it, and not one before it.
    fn claims(&self, held: &Held) -> bool {
        held.life == self.owner.life()
    }

    fn note(&self, key: &Key, nonce: Nonce) {
        self.ledger.entries().insert(key.clone(), Held { nonce, life: self.owner.life() });
    }

    fn create(&self, key: &Key, spot: &Spot, temporary: &Temporary, path: &Path) -> Result<()> {
        let before = self.ledger.get(key);
        self.claim(key, spot, temporary.nonce)?;
        fs::hard_link(&temporary.path, path).map_err(|error| {
            self.restore(key, before);
            match error.kind() {
                // Only somebody who does not take the lock can come in between.
                io::ErrorKind::AlreadyExists => conflict(key, "a process that does not take the bucket's lock"),
                _ => fault(path, error),
            }
        })
    }

    fn replace(&self, key: &Key, spot: &Spot, temporary: &Temporary, path: &Path) -> Result<()> {
        let before = self.ledger.get(key);
        self.claim(key, spot, temporary.nonce)?;
        fs::rename(&temporary.path, path).map_err(|error| {
            self.restore(key, before);
            fault(path, error)
        })
    }

    fn restore(&self, key: &Key, before: Option<Held>) {
        match before {
            Some(held) => self.ledger.entries().insert(key.clone(), held),
            None => self.ledger.entries().remove(key),
        };
    }

    /// Removes the record where this owner holds it.
    pub(crate) fn delete(&self, key: &Key) -> Result<()> {
        let Some(held) = self.ledger.get(key) else { return Ok(()) };
        let spot = Spot::of(key)?;
        let directory = self.place.bucket(&spot.bucket);
        self.owner.check()?;
        match self.delete_locked(&directory, &self.place.record(&spot), held.nonce) {
            Err(error) if !is_missing(&error) => return Err(error),
            _ => {}
        }
        self.ledger.entries().remove(key);
        Ok(())
    }

    fn delete_locked(&self, directory: &Path, path: &Path, nonce: Nonce) -> Result<()> {
        let _lock = DirectoryLock::acquire(directory)?;
        self.owner.check()?;
        if Nonce::at(path).map_err(|error| fault(path, error))? == Some(nonce) {
            remove(path)?;
        }
        Ok(())
    }

    /// Which of the desired records are not stored as desired.
    pub(crate) fn verify(&self, desired: &Desired) -> Result<Vec<(Key, Drift)>> {
        self.owner.check()?;
        let mut drifts = Vec::new();
        for (key, value) in desired {
            let spot = Spot::of(key)?;
            let path = self.place.record(&spot);
            let held = self.ledger.get(key).filter(|held| self.claims(held));
            if let Some(held) = &held
                && holds(&path, held.nonce, value)?
            {
                continue;
            }
            let drift = match Nonce::at(&path).map_err(|error| fault(&path, error))? {
                Some(nonce) if self.ledger.get(key).is_none_or(|held| held.nonce != nonce) => {
                    let other = Owner::of(self.place, &Claim { spot, nonce })?;
                    let other = other.filter(|other| other.alive && other.name != self.owner.name());
                    other.map_or(Drift::Changed, |other| Drift::Taken(conflict(key, &other.describe())))
                }
                _ => Drift::Changed,
            };
            drifts.push((key.clone(), drift));
        }
        Ok(drifts)
    }

    /// Renews every record file, which is what the reference goes by. Goes on after an error and answers the first.
    pub(crate) fn renew(&self) -> Result<()> {
        self.owner.check()?;
        let held: Vec<_> = self.ledger.entries().iter().map(|(key, held)| (key.clone(), held.clone())).collect();
        let mut result = Ok(());
        for (key, held) in held.into_iter().filter(|(_, held)| self.claims(held)) {
            result = result.and(self.renew_one(&key, held.nonce));
        }
        result
    }

    fn renew_one(&self, key: &Key, nonce: Nonce) -> Result<()> {
        let path = self.place.record(&Spot::of(key)?);
        let failed = |error| fault(&path, error);
        // What is gone, or somebody else's, is for `verify` to find.
        if Nonce::at(&path).map_err(failed)? != Some(nonce) {
            return Ok(());
        }
        let Some(file) = open(&path, Reading::Waits).map_err(failed)? else { return Ok(()) };
        if Nonce::of(&file.metadata().map_err(failed)?) == nonce {
            touch(&file).map_err(failed)?;
        }
        Ok(())
    }

    /// Removes everything of this handle, and the owner file at last. Goes on after an error and answers the first; then
    /// the owner file stays, by which watchers know what to remove once this process or session has ended.
    pub(crate) fn close(&self) -> Result<()> {
        let keys: Vec<_> = self.ledger.entries().keys().cloned().collect();
        let mut result = Ok(());
        for key in keys {
            match self.delete(&key) {
                Err(error) if error.kind() == ErrorKind::SessionLost => break,
                deleted => result = result.and(deleted),
            }
        }
        result?;
        self.owner.remove()
    }
}

/// A temporary file in a bucket. Removed when dropped, unless it was renamed.
struct Temporary {
    path: PathBuf,
    nonce: Nonce,
}

impl Temporary {
    fn write(directory: &Path, owner: &OwnerFile, value: &[u8]) -> Result<Self> {
        let name = format!("{}{:x}", temporary_prefix(owner.name()), fastrand::u64(..));
        let path = directory.join(name);
        let written = File::create_new(&path).and_then(|mut file| {
            io::Write::write_all(&mut file, value)?;
            Ok(Nonce::of(&file.metadata()?))
        });
        match written {
            Ok(nonce) => Ok(Self { path, nonce }),
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(fault(&path, error))
            }
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove.
        let _ = fs::remove_file(&self.path);
    }
}

/// Whether the file at `path` is this one and holds an equal value.
fn holds(path: &Path, nonce: Nonce, value: &[u8]) -> Result<bool> {
    let failed = |error| fault(path, error);
    // What somebody else put in its place may not be ours to read.
    if Nonce::at(path).map_err(failed)? != Some(nonce) {
        return Ok(false);
    }
    let file = match open(path, Reading::Waits) {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(false),
        // Nor may this one be read any more: who looks anew does not see it, and a new file in its place mends that.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
        Err(error) => return Err(failed(error)),
    };
    if Nonce::of(&file.metadata().map_err(failed)?) != nonce {
        return Ok(false);
    }
    let mut stored = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(file, MAX_VALUE as u64 + 1), &mut stored).map_err(failed)?;
    Ok(stored == value || matches!((parse(&stored), parse(value)), (Some(stored), Some(value)) if stored == value))
}

fn parse(text: &[u8]) -> Option<Value> {
    serde_json::from_slice(text).ok()
}

/// Whether a file that no owner claims is older than the reference lets it become. At first sight there is no other
/// measure than the wall clock.
pub(crate) fn is_outdated(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path).and_then(|metadata| metadata.modified()) {
        Ok(modified) => Ok(age(modified) > FOREIGN_TTL + GRACE),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(fault(path, error)),
    }
}

/// How long ago this was, by wall clock; nothing where it lies in the future.
pub(crate) fn age(time: SystemTime) -> Duration {
    SystemTime::now().duration_since(time).unwrap_or_default()
}

fn is_missing(error: &Error) -> bool {
    is_of(error, io::ErrorKind::NotFound)
}

fn conflict(key: &Key, holder: &str) -> Error {
    Error::new(ErrorKind::Conflict, format!("{holder} holds this key: end that one, or use another id"))
        .with_backend("file")
        .with_key(key)
}

#[cfg(test)]
mod tests;
