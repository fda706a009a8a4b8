//! What is known of a keeper, and whether it lives.

use std::env;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::io::Errno;
use rustix::process::{Flock, FlockType, Pid, PidfdFlags, Signal, fcntl_getlk, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use super::Kind;
use crate::error::{Error, Result};
use crate::once::target_directory;

/// The variable that names another directory for what is up, so that there can be more of one kind.
const DIRECTORY_VARIABLE: &str = "DISCOVERY_TESTBED_UP";

/// What a keeper writes down of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct State {
    pub(super) pid: i32,
    /// Where it answers; `None` while its servers are being started.
    pub(super) port: Option<u16>,
    /// When it started, in seconds of the Unix epoch.
    pub(super) since: u64,
}

/// Whether there is a keeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Keeper {
    None,
    /// There was one, and it could not clear up.
    Gone,
    /// It lives. Without a state it has only just begun.
    Lives(Pid, Option<State>),
}

/// The directory of one kind.
#[derive(Clone, Debug)]
pub(super) struct Place {
    directory: PathBuf,
}

impl Place {
    pub(super) fn of(kind: Kind) -> Result<Self> {
        let all = match env::var_os(DIRECTORY_VARIABLE) {
            Some(directory) => PathBuf::from(directory),
            None => target_directory()?.join("testbed").join("up"),
        };
        let directory = all.join(kind.name());
        fs::create_dir_all(&directory).map_err(|error| Error::because(directory.display(), error))?;
        Ok(Self { directory })
    }

    /// Where the servers keep their files.
    pub(super) fn files(&self) -> PathBuf {
        self.directory.join("files")
    }

    /// What the keeper writes to its standard error.
    pub(super) fn log(&self) -> PathBuf {
        self.directory.join("keeper.log")
    }

    fn state(&self) -> PathBuf {
        self.directory.join("state.json")
    }

    /// The turn of one command that changes something. Waits for others.
    pub(super) fn turn(&self) -> Result<File> {
        let path = self.directory.join("turn");
        let taken = File::create(&path).and_then(|file| file.lock().map(|()| file));
        taken.map_err(|error| Error::because(path.display(), error))
    }

    fn lock(&self) -> Result<File> {
        // Never removed: a lock on a file that is no longer there would keep nobody away.
        let path = self.directory.join("lock");
        let opened = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        opened.map_err(|error| Error::because(path.display(), error))
    }

    /// The keeper's lock, which it holds for as long as it lives; `None` where another holds it. A process that holds it
    /// must not call this or ask for the keeper: a lock of this sort goes with the first of its files that is closed.
    pub(super) fn claim(&self) -> Result<Option<File>> {
        let file = self.lock()?;
        match fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(file)),
            Err(Errno::AGAIN | Errno::ACCESS) => Ok(None),
            Err(error) => Err(Error::because("locking", io::Error::from(error))),
        }
    }

    /// Who holds the keeper's lock, by the kernel's own word. Asks only, so that those who ask are in nobody's way.
    fn holder(&self) -> Result<Option<Pid>> {
        let held = fcntl_getlk(&self.lock()?, &Flock::from(FlockType::WriteLock));
        match held.map_err(|error| Error::because("asking for a lock", io::Error::from(error)))? {
            None => Ok(None),
            Some(Flock { pid: Some(pid), .. }) => Ok(Some(pid)),
            Some(_) => Err(Error::new(format!(
                "a process that cannot be seen from here, as in a container, holds {}: ask there",
                self.directory.display()
            ))),
        }
    }

    pub(super) fn write(&self, state: &State) -> Result<()> {
        let path = self.state();
        let new = path.with_extension("new");
        let written = serde_json::to_vec(state).map_err(io::Error::from).and_then(|text| fs::write(&new, text));
        written.and_then(|()| fs::rename(&new, &path)).map_err(|error| Error::because(path.display(), error))
    }

    fn read(&self) -> Option<State> {
        serde_json::from_slice(&fs::read(self.state()).ok()?).ok()
    }

    pub(super) fn keeper(&self) -> Result<Keeper> {
        let state = self.read();
        Ok(match self.holder()? {
            Some(pid) => Keeper::Lives(pid, state.filter(|state| state.pid == pid.as_raw_nonzero().get())),
            None if state.is_some() || self.files().exists() => Keeper::Gone,
            None => Keeper::None,
        })
    }

    /// The keeper as a process that no other can be taken for; `None` where it has ended.
    pub(super) fn process(&self) -> Result<Option<Process>> {
        let Some(pid) = self.holder()? else { return Ok(None) };
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(Errno::SRCH) => return Ok(None),
            Err(error) => return Err(Error::because("finding the keeper", io::Error::from(error))),
        };
        // It still holds the lock: it has lived all the time, so the handle is on it.
        Ok((self.holder()? == Some(pid)).then_some(Process { handle }))
    }

    /// Removes what a keeper has left, its log excepted.
    pub(super) fn clear(&self) -> Result<()> {
        let gone = |removed: io::Result<()>, path: &Path| match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::because(path.display(), error)),
            _ => Ok(()),
        };
        let (files, state) = (self.files(), self.state());
        // The state last: while it is there, something may be left.
        gone(fs::remove_dir_all(&files), &files)?;
        gone(fs::remove_file(&state), &state)
    }
}

/// A process, and no other one that got its id later.
#[derive(Debug)]
pub(super) struct Process {
    handle: OwnedFd,
}

impl Process {
    /// Sends a signal. No error where it has ended.
    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        match pidfd_send_signal(&self.handle, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(Error::because("signalling the keeper", io::Error::from(error))),
        }
    }
}
