//! What an operating system's error means to a user, and what to do about it.

use std::io;
use std::path::Path;

use discovery_core::{Error, ErrorKind};

use crate::config::DIRECTORY_VARIABLE;

/// The typed error of a failed call on `path`.
pub(crate) fn fault(path: &Path, error: io::Error) -> Error {
    let shown = path.display();
    let (kind, advice) = match error.kind() {
        io::ErrorKind::PermissionDenied => {
            (ErrorKind::PermissionDenied, "give this user read and write permission there".to_owned())
        }
        io::ErrorKind::ReadOnlyFilesystem => (
            ErrorKind::PermissionDenied,
            format!("the file system is read-only: remount it, or set {DIRECTORY_VARIABLE} elsewhere"),
        ),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (ErrorKind::Unavailable, "no space is left: free some".to_owned())
        }
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => (
            ErrorKind::InvalidConfig,
            format!("a file stands where a directory should be: move it away, or set {DIRECTORY_VARIABLE} elsewhere"),
        ),
        io::ErrorKind::InvalidFilename => (ErrorKind::InvalidKey, "shorten the name".to_owned()),
        io::ErrorKind::NotFound => {
            (ErrorKind::Unavailable, "it was removed meanwhile: it is made again at the next try".to_owned())
        }
        _ => (ErrorKind::Unavailable, "it is tried again".to_owned()),
    };
    Error::new(kind, format!("{shown}: {advice}")).with_backend("file").with_source(error)
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
            (rustix::io::Errno::NAMETOOLONG, ErrorKind::InvalidKey, false),
            (rustix::io::Errno::IO, ErrorKind::Unavailable, true),
        ];
        for (errno, kind, temporary) in cases {
            let error = fault(Path::new("/srv/kv"), errno.into());
            assert_eq!((error.kind(), error.is_temporary()), (kind, temporary), "{error}");
            assert!(error.to_string().contains("/srv/kv") && !error.to_string().contains('\n'), "{error}");
        }
    }
}
