//! What an operating system's error means to a user, and what to do about it.

use std::path::Path;
use std::{fs, io};

use discovery_core::{Error, ErrorKind};
use nix::libc;

use crate::config::DIRECTORY_VARIABLE;

/// The typed error of a failed call on `path`.
pub(crate) fn fault(path: &Path, error: io::Error) -> Error {
    let mut shown = path.display();
    let (kind, advice) = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            (ErrorKind::PermissionDenied, "give this user read and write permission there".to_owned())
        }
        io::ErrorKind::ReadOnlyFilesystem => (
            ErrorKind::PermissionDenied,
            format!("the file system is read-only: remount it, or set {DIRECTORY_VARIABLE} elsewhere"),
        ),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (ErrorKind::Unavailable, "no space is left, or no inodes (`df -i`): free some".to_owned())
        }
        // The number of links in a path is too large where one leads back to itself.
        kind if matches!(kind, io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists)
            || error.raw_os_error() == Some(libc::ELOOP) =>
        {
            let in_the_way = path.ancestors().find(|place| fs::symlink_metadata(place).is_ok() && !place.is_dir());
            let place = in_the_way.unwrap_or(path);
            shown = place.display();
            let what = match fs::metadata(place) {
                _ if error.raw_os_error() == Some(libc::ELOOP) => "a link there points to itself",
                Err(error) if error.kind() == io::ErrorKind::NotFound && in_the_way.is_some() => {
                    "a link there points to nothing"
                }
                _ => "a file stands where a directory should be",
            };
            (ErrorKind::InvalidConfig, format!("{what}: move it away, or set {DIRECTORY_VARIABLE} elsewhere"))
        }
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

/// A file system that is none to keep files in.
pub(crate) fn takes_no_files(path: &Path, error: io::Error) -> Error {
    let text = format!("{}: the file system takes no files there: set {DIRECTORY_VARIABLE} elsewhere", path.display());
    Error::new(ErrorKind::InvalidConfig, text).with_backend("file").with_source(error)
}

/// What stands in the place of a record and is no file.
pub(crate) fn stray(path: &Path) -> Error {
    let text = format!("{}: what stands there is no regular file: move it away", path.display());
    Error::new(ErrorKind::InvalidConfig, text).with_backend("file")
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
