//! What an operating system's error means to a user, and what to do about it.

use std::path::Path;
use std::{fs, io};

use discovery_core::{Error, ErrorKind};

use crate::config::DIRECTORY_VARIABLE;

const FILE: &str = "a file stands where a directory should be";
const LOOP: &str = "a symbolic link points to itself";

/// What keeps `path` from being a directory for good: the first thing on the way to it that is none.
pub(crate) fn obstacle(path: &Path) -> Option<Error> {
    let mut way: Vec<_> = path.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
    way.reverse();
    let (path, what) = way.into_iter().find_map(|path| match fs::metadata(path) {
        Ok(metadata) => (!metadata.is_dir()).then_some((path, FILE)),
        Err(error) if is_loop(&error) => Some((path, LOOP)),
        Err(_) => fs::symlink_metadata(path)
            .is_ok_and(|metadata| metadata.is_symlink())
            .then_some((path, "a symbolic link points to nothing")),
    })?;
    let text = format!("{}: {what}: move it away, or set {DIRECTORY_VARIABLE} elsewhere", path.display());
    Some(Error::new(ErrorKind::InvalidConfig, text).with_backend("file"))
}

/// What has the name of a record, and is no regular file.
pub(crate) fn stray(path: &Path) -> Error {
    let text = format!("{}: no regular file stands where a record should be: move it away", path.display());
    Error::new(ErrorKind::InvalidConfig, text).with_backend("file")
}

/// Whether an error says that something is where a directory should be.
pub(crate) fn is_out_of_place(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists) || is_loop(error)
}

fn is_loop(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error())
}

/// The typed error of a failed call on `path`.
pub(crate) fn fault(path: &Path, error: io::Error) -> Error {
    let shown = path.display();
    if is_out_of_place(&error)
        && let Some(obstacle) = obstacle(path)
    {
        return obstacle.with_source(error);
    }
    let elsewhere = |what: &str| format!("{what}: move it away, or set {DIRECTORY_VARIABLE} elsewhere");
    let (kind, advice) = match error.kind() {
        _ if is_loop(&error) => (ErrorKind::InvalidConfig, elsewhere(LOOP)),
        io::ErrorKind::PermissionDenied => {
            (ErrorKind::PermissionDenied, "give this user read and write permission there".to_owned())
        }
        io::ErrorKind::ReadOnlyFilesystem => (
            ErrorKind::PermissionDenied,
            format!("the file system is read-only: remount it, or set {DIRECTORY_VARIABLE} elsewhere"),
        ),
        io::ErrorKind::StorageFull => (
            ErrorKind::Unavailable,
            "no space or no inodes are left: remove files (`df` and `df -i` show which it is)".to_owned(),
        ),
        io::ErrorKind::QuotaExceeded => (ErrorKind::Unavailable, "the quota is used up: remove files".to_owned()),
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => (ErrorKind::InvalidConfig, elsewhere(FILE)),
        io::ErrorKind::IsADirectory => {
            (ErrorKind::InvalidConfig, "a directory stands where a file should be: move it away".to_owned())
        }
        io::ErrorKind::InvalidFilename => (ErrorKind::InvalidKey, "shorten the name".to_owned()),
        io::ErrorKind::NotFound => {
            (ErrorKind::Unavailable, "it was removed meanwhile: it is made again at the next try".to_owned())
        }
        _ => (ErrorKind::Unavailable, "it is tried again".to_owned()),
    };
    Error::new(kind, format!("{shown}: {advice}")).with_backend("file").with_source(error)
}

/// Whether this error is of a failed call, and of this kind.
pub(crate) fn is_of(error: &Error, kind: io::ErrorKind) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|source| source.kind() == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_kind_and_names_the_path() {
        let cases = [
            (rustix::io::Errno::ACCESS, ErrorKind::PermissionDenied, false),
            (rustix::io::Errno::ROFS, ErrorKind::PermissionDenied, false),
            (rustix::io::Errno::NOSPC, ErrorKind::Unavailable, true),
            (rustix::io::Errno::DQUOT, ErrorKind::Unavailable, true),
            (rustix::io::Errno::NOTDIR, ErrorKind::InvalidConfig, false),
            (rustix::io::Errno::LOOP, ErrorKind::InvalidConfig, false),
            (rustix::io::Errno::ISDIR, ErrorKind::InvalidConfig, false),
            (rustix::io::Errno::EXIST, ErrorKind::InvalidConfig, false),
            (rustix::io::Errno::NAMETOOLONG, ErrorKind::InvalidKey, false),
            (rustix::io::Errno::IO, ErrorKind::Unavailable, true),
        ];
        for (errno, kind, temporary) in cases {
            let error = fault(Path::new("/srv/kv"), errno.into());
            assert_eq!((error.kind(), error.is_temporary()), (kind, temporary), "{error}");
            assert!(error.to_string().contains("/srv/kv") && !error.to_string().contains('\n'), "{error}");
            let cause = io::Error::from(errno).to_string();
            assert!(error.to_string().ends_with(&cause), "{error}");
        }
        let full = fault(Path::new("/srv/kv"), rustix::io::Errno::NOSPC.into()).to_string();
        assert!(full.contains("`df -i`"), "a file system may have room and no inodes: {full}");
        for (errno, place) in [(rustix::io::Errno::LOOP, "link"), (rustix::io::Errno::ISDIR, "directory")] {
            let told = fault(Path::new("/srv/kv"), errno.into()).to_string();
            assert!(told.contains(place) && told.contains("move it away"), "{told}");
        }
    }
}
