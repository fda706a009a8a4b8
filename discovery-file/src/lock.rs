//! Two kinds of locks: the reference's lock of a bucket, and the life of an owner.
//!
//! A bucket is locked as the reference does it, by `flock` on its directory. An owner's life is an *open file
//! description* lock (`F_OFD_SETLK`) on its owner file: of the kinds that Linux has, it is the only one that can be
//! queried without being taken, from any process and from the owner's own, and that is not dropped when some other
//! descriptor of the file is closed. Children that were forked without `exec` share it: until they end too, their
//! parent's death shows by its missing renewals only.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use discovery_core::{Error, ErrorKind, Result};
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::fault::fault;

/// As long as the reference waits.
const PATIENCE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(1);

/// The exclusive lock of a directory, released when dropped. Held for one group of system calls.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _directory: File,
}

impl DirectoryLock {
    /// Locks `directory`; blocks the thread for about a second at most.
    pub(crate) fn acquire(directory: &Path) -> Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // A FIFO in its place would be waited for.
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let opened = rustix::fs::open(directory, flags, Mode::empty());
            let file = opened.map(File::from).map_err(|error| fault(directory, error.into()))?;
            loop {
                match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                    Ok(()) => break,
                    Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) if Instant::now() < deadline => {
                        thread::sleep(PAUSE);
                    }
                    Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) => return Err(contended(directory)),
                    Err(error) => return Err(fault(directory, error.into())),
                }
            }
            // A directory that was removed and made again is another one, and its lock too.
            let locked = file.metadata().map_err(|error| fault(directory, error))?;
            let current = std::fs::metadata(directory).map_err(|error| fault(directory, error))?;
            if (locked.dev(), locked.ino()) == (current.dev(), current.ino()) {
                return Ok(Self { _directory: file });
            }
            if Instant::now() >= deadline {
                return Err(contended(directory));
            }
        }
    }
}

fn contended(directory: &Path) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("another process has held the lock of {} for a second: find it with lsof", directory.display()),
    )
    .with_backend("file")
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Takes the life lock of an owner file; `false` where somebody else has it.
pub(crate) fn take_life(file: &File) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole_file())) {
        Ok(_) => Ok(true),
        Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Whether somebody has the life lock of an owner file. Asks only, and so disturbs nobody.
pub(crate) fn is_alive(file: &File) -> io::Result<bool> {
    let mut lock = whole_file();
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock))?;
    Ok(i32::from(lock.l_type) != libc::F_UNLCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_seen_from_its_own_process_and_ends_with_its_description_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("owner");
        let owner = File::create_new(&path).unwrap();
        let probe = File::open(&path).unwrap();
        assert!(!is_alive(&probe).unwrap());
        assert!(take_life(&owner).unwrap());
        assert!(is_alive(&probe).unwrap());
        drop(File::open(&path).unwrap());
        assert!(is_alive(&probe).unwrap(), "closing another descriptor must not end it");
        drop(owner);
        assert!(!is_alive(&probe).unwrap());
    }

    #[test]
    fn a_held_directory_lock_is_given_up_on_in_time() {
        let directory = tempfile::tempdir().unwrap();
        let held = DirectoryLock::acquire(directory.path()).unwrap();
        let start = Instant::now();
        let error = DirectoryLock::acquire(directory.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(error.is_temporary() && start.elapsed() < PATIENCE * 3, "{error} after {:?}", start.elapsed());
        drop(held);
        DirectoryLock::acquire(directory.path()).unwrap();
    }
}
