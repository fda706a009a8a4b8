//! What does one record's file hold now?

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::SystemTime;

use bytes::Bytes;

use crate::MAX_VALUE;
use crate::place::{Nonce, is_stray};
use crate::reading::{Content, Reading, open};

/// A file as it was seen.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) state: State,
    /// `None` where it was not read again because nothing about it has changed.
    pub(super) value: Option<Bytes>,
}

/// What tells whether a file has to be read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State {
    pub(super) nonce: Nonce,
    pub(super) modified: SystemTime,
    pub(super) size: u64,
}

impl State {
    fn of(metadata: &fs::Metadata) -> io::Result<Self> {
        Ok(Self { nonce: Nonce::of(metadata), modified: metadata.modified()?, size: metadata.len() })
    }
}

/// What there is under a name.
#[derive(Debug)]
pub(super) enum Look {
    /// Nothing, or nothing that may be read.
    Absent,
    /// Something, and no regular file.
    Stray,
    File(Seen),
}

/// Looks at a file; reads it unless its state is the known one.
///
/// # Errors
/// Where it cannot be read though it is there, and with [`Reading::AtOnce`] where it is not in memory.
pub(super) fn look(path: &Path, known: Option<State>, reading: Reading) -> io::Result<Look> {
    match look_closely(path, known, reading) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Look::Absent),
        Err(error) if error.kind() == io::ErrorKind::InvalidFilename && reading == Reading::Waits => Ok(Look::Absent),
        looked => looked,
    }
}

fn look_closely(path: &Path, known: Option<State>, reading: Reading) -> io::Result<Look> {
    // One call tells of most files, when all are looked at, that they need not be opened. It needs no permission but
    // the directory's: where that lacks, nothing is known of any file.
    if reading == Reading::Waits {
        let metadata = fs::symlink_metadata(path)?;
        if !metadata.is_file() {
            return Ok(Look::Stray);
        }
        let state = State::of(&metadata)?;
        if known == Some(state) {
            return Ok(Look::File(Seen { state, value: None }));
        }
    }
    // What is read belongs to the file that was opened, which may be a newer one than that just looked at.
    let file = match open(path, reading) {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(if reading == Reading::Waits && is_stray(path) { Look::Stray } else { Look::Absent }),
        // One file that cannot be read hides nobody else. At once, a sandbox may refuse the call and not the file.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && reading == Reading::Waits => {
            return Ok(Look::Absent);
        }
        Err(error) => return Err(error),
    };
    let state = State::of(&file.metadata()?)?;
    if known == Some(state) {
        return Ok(Look::File(Seen { state, value: None }));
    }
    let mut value = Vec::with_capacity(state.size.min(MAX_VALUE as u64 + 1) as usize);
    Content::of(&file, reading).take(MAX_VALUE as u64 + 1).read_to_end(&mut value)?;
    Ok(Look::File(Seen { state, value: Some(value.into()) }))
}
