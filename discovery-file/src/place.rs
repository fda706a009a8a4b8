//! Where things lie below the shared directory, and what identifies a file.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use discovery_core::{Key, Result};
use discovery_dynamo::layout;
use nix::libc;
use serde::{Deserialize, Serialize};

use crate::fault::{fault, takes_no_files};

/// What every temporary file's name starts with. The reference passes such files over.
pub(crate) const TEMPORARY: &str = ".tmp_";

/// The shared directory.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    root: PathBuf,
}

/// Where one record lies.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Spot {
    pub(crate) bucket: String,
    pub(crate) name: String,
}

impl Spot {
    pub(crate) fn of(key: &Key) -> Result<Self> {
        let (bucket, name) = layout::file_name(key)?;
        Ok(Self { bucket, name })
    }
}

/// Which file it is, and not merely under which name: the inode, and when it was made, because inodes are reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Nonce {
    inode: u64,
    born: u64,
}

impl Nonce {
    pub(crate) fn of(metadata: &Metadata) -> Self {
        // Without creation times, as on some older file systems, the inode has to do.
        let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Self { inode: metadata.ino(), born: born.map_or(0, |since| since.as_nanos() as u64) }
    }

    /// That of the file at `path` now; `None` where there is none.
    pub(crate) fn at(path: &Path) -> io::Result<Option<Self>> {
        match fs::symlink_metadata(path) {
            Ok(metadata) => Ok(Some(Self::of(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Place {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn buckets(&self) -> PathBuf {
        self.root.join("v1")
    }

    pub(crate) fn bucket(&self, bucket: &str) -> PathBuf {
        self.buckets().join(bucket)
    }

    pub(crate) fn record(&self, spot: &Spot) -> PathBuf {
        self.bucket(&spot.bucket).join(&spot.name)
    }

    pub(crate) fn owners(&self) -> PathBuf {
        self.root.join(".discovery").join("owners")
    }

    /// Makes a directory of this place, and what is missing above it.
    pub(crate) fn make(&self, directory: &Path) -> Result<()> {
        /// Somebody may remove a directory above it in between, and not each time.
        const TRIES: usize = 3;
        let mut made = Ok(());
        for _ in 0..TRIES {
            made = fs::create_dir_all(directory);
            if !matches!(&made, Err(error) if error.kind() == io::ErrorKind::NotFound) {
                break;
            }
        }
        made.map_err(|error| match error.kind() {
            // As /proc does, whose answer is that of a missing parent.
            io::ErrorKind::NotFound => takes_no_files(directory, error),
            _ => fault(directory, error),
        })
    }
}

/// Opens a file to be read. `None` where there is none, or something else that has its name: nobody waits for a FIFO's writer.
pub(crate) fn open_file(path: &Path) -> io::Result<Option<File>> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    match opened {
        Ok(file) if file.metadata()?.is_file() => Ok(Some(file)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_no_file(path) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether something stands there that is neither a file nor a link to one.
pub(crate) fn is_no_file(path: &Path) -> bool {
    match fs::metadata(path) {
        Ok(metadata) => !metadata.is_file(),
        // A link that leads nowhere.
        Err(_) => fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink()),
    }
}

/// Removes a file; that it is gone already is no error.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fault(path, error)),
        _ => Ok(()),
    }
}
