//! A temporary directory that goes with the demo, or else with the next one: a killed demo cannot remove its own.

use std::env;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use tempfile::TempDir;

use crate::failure::{Failure, Outcome};

const PREFIX: &str = "discovery-demo-";

/// A directory of this demo's own, locked for as long as the demo lives.
pub(super) struct Directory {
    directory: TempDir,
    _lock: File,
}

impl Directory {
    /// Makes one, and removes those of demos that are gone.
    pub(super) fn new() -> Outcome<Self> {
        let failed = |error| Failure::failed(format!("demo: no temporary directory: {error}: set TMPDIR to one"));
        let all = env::temp_dir();
        clear(&all);
        loop {
            let directory = tempfile::Builder::new().prefix(PREFIX).tempdir_in(&all).map_err(failed)?;
            let lock = open(directory.path()).map_err(failed)?;
            lock.lock().map_err(failed)?;
            // Another demo that started at this moment may have taken it for one that was left, until it was locked.
            if is_at(&lock, directory.path()) {
                return Ok(Self { directory, _lock: lock });
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn remove(self) -> Outcome {
        self.directory.close().map_err(|error| Failure::failed(format!("demo: {error}: remove it by hand")))
    }
}

fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

/// Whether this is still what the path names.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(file), Ok(named)) = (file.metadata(), fs::symlink_metadata(path)) else { return false };
    (file.dev(), file.ino()) == (named.dev(), named.ino())
}

/// Removes the directories of this user's demos that nobody holds. What cannot be removed is left to its owner.
fn clear(all: &Path) {
    for path in left(all) {
        let Ok(lock) = open(&path) else { continue };
        let own = lock.metadata().is_ok_and(|metadata| metadata.uid() == rustix::process::geteuid().as_raw());
        if own && lock.try_lock().is_ok() && is_at(&lock, &path) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

fn left(all: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(all).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX));
    ours.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_is_cleared_and_nothing_else() {
        let all = tempfile::tempdir().unwrap();
        let make = |name: &str| {
            let path = all.path().join(name);
            fs::create_dir_all(path.join("v1")).unwrap();
            path
        };
        let (held, left, foreign) = (make("discovery-demo-held"), make("discovery-demo-left"), make("another"));
        let link = all.path().join("discovery-demo-link");
        std::os::unix::fs::symlink(&foreign, &link).unwrap();
        let lock = open(&held).unwrap();
        lock.lock().unwrap();
        clear(all.path());
        assert!(held.exists() && !left.exists() && foreign.join("v1").exists() && link.exists());
        drop(lock);
        clear(all.path());
        assert!(!held.exists());
    }

    #[test]
    fn a_lock_on_a_directory_that_was_replaced_does_not_count() {
        let all = tempfile::tempdir().unwrap();
        let path = all.path().join("one");
        fs::create_dir(&path).unwrap();
        let lock = open(&path).unwrap();
        assert!(is_at(&lock, &path));
        fs::rename(&path, all.path().join("other")).unwrap();
        assert!(!is_at(&lock, &path));
        fs::create_dir(&path).unwrap();
        assert!(!is_at(&lock, &path));
    }
}
