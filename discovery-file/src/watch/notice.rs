//! Notices of the kernel: which names changed, in which directories.
//!
//! Directories may appear late and go away. What is wanted and missing is waited for in its nearest ancestor.

use std::collections::{HashMap, HashSet};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use crate::place::Spot;

/// How many files are read at once, between two other things that the handle's thread has to do.
const LITTLE: usize = 16;

/// What a directory is watched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The records of this bucket.
    Bucket(String),
    /// The owner files.
    Owners,
    /// That something is made here.
    Ancestor,
}

/// What was noticed since the last time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notices {
    /// Files of a bucket that were written, made or removed.
    pub(crate) touched: HashMap<String, HashSet<String>>,
    /// Those of them that were absent in between.
    pub(crate) gone: HashSet<Spot>,
    /// Owner files that somebody who could write closed: the death of an owner looks like this.
    pub(crate) closed: HashSet<String>,
    /// Owner files that were made, written or removed.
    pub(crate) owners: HashSet<String>,
    /// Whether directories came or went.
    pub(crate) directories: bool,
    /// Whether the kernel dropped notices, so that everything has to be read again.
    pub(crate) overflow: bool,
}

impl Notices {
    pub(crate) fn is_empty(&self) -> bool {
        self.touched.is_empty()
            && self.closed.is_empty()
            && self.owners.is_empty()
            && !self.directories
            && !self.overflow
    }

    /// These as well.
    pub(crate) fn add(&mut self, other: Self) {
        for (bucket, names) in other.touched {
            self.touched.entry(bucket).or_default().extend(names);
        }
        self.gone.extend(other.gone);
        self.closed.extend(other.closed);
        self.owners.extend(other.owners);
        self.directories |= other.directories;
        self.overflow |= other.overflow;
    }

    /// Whether a few files are all that this is about.
    pub(crate) fn is_little(&self) -> bool {
        let files = self.touched.values().map(HashSet::len).sum::<usize>() + self.owners.len();
        files <= LITTLE && self.closed.is_empty() && !self.directories && !self.overflow
    }
}

/// An inotify instance and what it watches.
#[derive(Debug)]
pub(crate) struct Notifier {
    watched: HashMap<i32, (PathBuf, Role)>,
}

const ANCESTOR: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);
const CONTENT: WatchFlags = ANCESTOR
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::CLOSE_WRITE);

/// Makes an inotify instance whose reads never block.
pub(crate) fn instance() -> io::Result<OwnedFd> {
    Ok(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?)
}

impl Notifier {
    pub(crate) fn new() -> Self {
        Self { watched: HashMap::new() }
    }

    /// Watches these directories, or where one is missing its nearest ancestor, and nothing else. Answers the buckets
    /// that were not watched before and have to be read.
    ///
    /// # Errors
    /// Where the kernel grants no more watches.
    pub(crate) fn watch(&mut self, fd: &OwnedFd, wanted: &[(PathBuf, Role)]) -> io::Result<Vec<String>> {
        let mut kept = HashSet::new();
        let mut fresh = Vec::new();
        for (path, role) in wanted {
            // An ancestor's watch comes before another look at what is below it, so that nothing is made unseen.
            let mut above = None;
            while let Some((watch, found)) = nearest(fd, path, role)? {
                kept.insert(watch);
                let whole = found == *path;
                let role = if whole { role.clone() } else { Role::Ancestor };
                let known = self.watched.insert(watch, (found.clone(), role.clone()));
                if let (Role::Bucket(bucket), false) =
                    (&role, known.is_some_and(|known| known == (found.clone(), role.clone())))
                {
                    fresh.push(bucket.clone());
                }
                let next = path.strip_prefix(&found).ok().and_then(|rest| rest.components().next());
                // What is there and is not granted twice may not be read: listing it says so.
                if whole || next.is_none_or(|next| !found.join(next).is_dir()) || above.as_ref() == Some(&found) {
                    break;
                }
                above = Some(found);
            }
        }
        self.watched.retain(|watch, _| {
            let keep = kept.contains(watch);
            if !keep {
                // Gone with its directory already, at worst.
                let _ = inotify::remove_watch(fd, *watch);
            }
            keep
        });
        Ok(fresh)
    }

    /// Takes all notices that wait, without waiting for more.
    ///
    /// # Errors
    /// Where the instance cannot be read.
    pub(crate) fn drain(&mut self, fd: &OwnedFd, notices: &mut Notices) -> io::Result<()> {
        let mut buffer = [MaybeUninit::uninit(); 16 << 10];
        let mut reader = Reader::new(fd, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().and_then(|name| name.to_str().ok());
                    self.note(event.wd(), event.events(), name, notices);
                }
                Err(Errno::WOULDBLOCK) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn note(&mut self, watch: i32, events: ReadFlags, name: Option<&str>, notices: &mut Notices) {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            notices.overflow = true;
        }
        if events.contains(ReadFlags::IGNORED) {
            self.watched.remove(&watch);
            notices.directories = true;
            return;
        }
        if events.intersects(ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::UNMOUNT) {
            notices.directories = true;
            return;
        }
        let (Some((_, role)), Some(name)) = (self.watched.get(&watch), name) else { return };
        match role {
            Role::Ancestor => notices.directories = true,
            // One that is left over is found when all are looked at.
            Role::Owners | Role::Bucket(_) if name.starts_with(crate::place::TEMPORARY) => {}
            Role::Owners => {
                if events.contains(ReadFlags::CLOSE_WRITE) {
                    notices.closed.insert(name.to_owned());
                } else {
                    notices.owners.insert(name.to_owned());
                }
            }
            Role::Bucket(bucket) => {
                if events.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
                    notices.gone.insert(Spot { bucket: bucket.clone(), name: name.to_owned() });
                }
                notices.touched.entry(bucket.clone()).or_default().insert(name.to_owned());
            }
        }
    }
}

/// Watches `path`, or else the nearest ancestor that there is. `None` where there is none at all.
fn nearest(fd: &OwnedFd, path: &Path, role: &Role) -> io::Result<Option<(i32, PathBuf)>> {
    for candidate in path.ancestors() {
        let flags = if candidate == path && *role != Role::Ancestor { CONTENT } else { ANCESTOR };
        match inotify::add_watch(fd, candidate, flags) {
            Ok(watch) => return Ok(Some((watch, candidate.to_owned()))),
            Err(Errno::NOSPC | Errno::NOMEM) => return Err(Errno::NOSPC.into()),
            // Missing, no directory, or not readable: what that means, listing it says.
            Err(_) => {}
        }
    }
    Ok(None)
}
