//! Where things lie below the shared directory, and what identifies a file.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use discovery_core::{Error, ErrorKind, Key, Result};
use discovery_dynamo::layout;
use serde::{Deserialize, Serialize};

use crate::config::DIRECTORY_VARIABLE;
use crate::fault::fault;

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
        let is_missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let made = match fs::create_dir_all(directory) {
            // Somebody may have removed what is above it in between.
            Err(error) if is_missing(&error) => fs::create_dir_all(directory),
            made => made,
        };
        made.map_err(|error| {
            if !is_missing(&error) {
                return fault(directory, error);
            }
            let text = format!(
                "{}: the file system there makes no directories: set {DIRECTORY_VARIABLE} elsewhere",
                directory.display()
            );
            Error::new(ErrorKind::InvalidConfig, text).with_backend("file").with_source(error)
        })
    }
}

/// Whether something has this name that is no regular file.
pub(crate) fn is_stray(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_file())
}

/// Removes a file; that it is gone already is no error.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(fault(path, error)),
        _ => Ok(()),
    }
}
