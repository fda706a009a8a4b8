//! Reading a regular file: waiting for it, or only from what the kernel holds in memory.

use std::fs::{self, File};
use std::io::{self, IoSliceMut, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, ReadWriteFlags};

use crate::place::Nonce;

/// Whether reading may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// For as long as the device takes. Blocks.
    Waits,
    /// Never, as far as the kernel can tell: what would have to be waited for is an error. `RESOLVE_CACHED` came with Linux 5.12, `RWF_NOWAIT` with
    /// 4.14, and not with every file system: ext4, XFS and Btrfs have it, tmpfs has not. Those that ask somebody else when
    /// a file is opened, as FUSE does, may wait there.
    AtOnce,
}

/// Opens a regular file to be read; `None` where there is none. Whatever else has its name is not waited for, as a FIFO
/// would have to be, and not followed: [`Reading::Waits`] takes it for no file, [`Reading::AtOnce`] fails.
pub(crate) fn open(path: &Path, reading: Reading) -> io::Result<Option<File>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = match reading {
        Reading::Waits => rustix::fs::open(path, flags, Mode::empty()),
        Reading::AtOnce => rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED),
    };
    let file = match (opened, reading) {
        (Ok(file), _) => File::from(file),
        (Err(Errno::NOENT), _) => return Ok(None),
        // A socket.
        (Err(Errno::NXIO), Reading::Waits) => return Ok(None),
        // A link, or else one on the way.
        (Err(Errno::LOOP), Reading::Waits) if fs::symlink_metadata(path).is_ok() => return Ok(None),
        (Err(error), _) => return Err(error.into()),
    };
    match (file.metadata()?.is_file(), reading) {
        (true, _) => Ok(Some(file)),
        (false, Reading::Waits) => Ok(None),
        (false, Reading::AtOnce) => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Which directory is at `path` now; `None` where there is nothing. Links are followed.
pub(crate) fn directory(path: &Path, reading: Reading) -> io::Result<Option<Nonce>> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let metadata = match reading {
        Reading::Waits => fs::metadata(path),
        Reading::AtOnce => rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::CACHED)
            .map_err(io::Error::from)
            .and_then(|directory| File::from(directory).metadata()),
    };
    match metadata {
        Ok(metadata) => Ok(Some(Nonce::of(&metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// As much is read at once: the thread that does it has other work.
const SHORT: u64 = 64 << 10;

/// What a file holds, from its beginning.
pub(crate) struct Content<'a> {
    file: &'a File,
    reading: Reading,
    began: u64,
    at: u64,
}

impl<'a> Content<'a> {
    pub(crate) fn of(file: &'a File, reading: Reading) -> Self {
        Self { file, reading, began: 0, at: 0 }
    }

    /// What it holds from so many bytes on.
    pub(crate) fn starting_at(self, at: u64) -> Self {
        Self { began: at, at, ..self }
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = match self.reading {
            Reading::AtOnce if self.at - self.began >= SHORT => return Err(io::ErrorKind::WouldBlock.into()),
            Reading::Waits => self.file.read_at(buffer, self.at)?,
            Reading::AtOnce => {
                rustix::io::preadv2(self.file, &mut [IoSliceMut::new(buffer)], self.at, ReadWriteFlags::NOWAIT)?
            }
        };
        self.at += read as u64;
        Ok(read)
    }
}
