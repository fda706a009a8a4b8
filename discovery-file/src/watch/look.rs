//! What does one record's file hold now?

use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::MAX_VALUE;
use crate::place::{Nonce, is_stray};
use crate::reading::{Content, Reading, open};

/// The coarsest clock that stamps files: a tick of Linux before 6.13 takes up to 10 ms (`CONFIG_HZ=100`), and what is written
/// within one has one time. Doubled.
const TICK: Duration = Duration::from_millis(20);

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
    /// Whether whatever is written after this look has another time. A file that is newer than a tick, or of a clock that
    /// is ahead, may be written once more without a trace.
    settled: bool,
}

impl State {
    /// Of a file that is read after this, if at all.
    fn of(metadata: &fs::Metadata) -> io::Result<Self> {
        let modified = metadata.modified()?;
        let settled = SystemTime::now().duration_since(modified).is_ok_and(|age| age > TICK);
        Ok(Self { nonce: Nonce::of(metadata), modified, size: metadata.len(), settled })
    }

    /// Whether a file in this state holds what it held in the state that is known.
    fn is_known(&self, known: Option<Self>) -> bool {
        known.is_some_and(|known| known.settled && known == *self)
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

impl Look {
    pub(super) fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }
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
        if state.is_known(known) {
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
    if state.is_known(known) {
        return Ok(Look::File(Seen { state, value: None }));
    }
    let mut value = Vec::with_capacity(state.size.min(MAX_VALUE as u64 + 1) as usize);
    Content::of(&file, reading).take(MAX_VALUE as u64 + 1).read_to_end(&mut value)?;
    Ok(Look::File(Seen { state, value: Some(value.into()) }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A file is written twice with one length, and the clock of its file system is as coarse as it likes.
    fn second_value(modified: SystemTime) -> Option<Bytes> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("record");
        let write = |value: &str| {
            fs::write(&path, value).unwrap();
            fs::File::open(&path).unwrap().set_modified(modified).unwrap();
        };
        let look = |known| match look(&path, known, Reading::Waits).unwrap() {
            Look::File(seen) => seen,
            other => panic!("{other:?}"),
        };
        write("one");
        let first = look(None);
        assert_eq!(first.value, Some(Bytes::from_static(b"one")));
        write("two");
        look(Some(first.state)).value
    }

    #[test]
    fn a_file_is_read_again_where_its_time_may_be_that_of_a_later_write() {
        assert_eq!(second_value(SystemTime::now() + Duration::from_secs(60)), Some(Bytes::from_static(b"two")));
    }

    #[test]
    fn a_file_that_was_old_when_it_was_read_is_not_read_again() {
        assert_eq!(second_value(SystemTime::now() - Duration::from_secs(60)), None);
    }
}
