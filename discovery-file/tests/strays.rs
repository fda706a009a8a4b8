//! What is no regular file where a file should be: it is passed over, and hides and stops nobody.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use common::*;
use discovery_core::ErrorKind;
use discovery_core::backend::Watcher;
use rustix::fs::{CWD, FileType, Mode, mknodat};

/// A FIFO, open at both ends: whoever reads it waits, and not for longer than this test.
fn fifo(path: &Path) -> File {
    mknodat(CWD, path, FileType::Fifo, Mode::RWXU, 0).unwrap();
    File::options().read(true).write(true).open(path).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_among_the_owners_stops_nobody() {
    let root = tempfile::tempdir().unwrap();
    let owners = root.path().join(".discovery/owners");
    fs::create_dir_all(owners.join("a-directory")).unwrap();
    let _fifo = fifo(&owners.join("a-fifo"));
    let _socket = UnixListener::bind(owners.join("a-socket")).unwrap();
    symlink("a-loop", owners.join("a-loop")).unwrap();
    symlink("a-fifo", owners.join("a-link")).unwrap();
    // The very name that the owner would take.
    let _own = fifo(&owners.join("7"));

    let backend = backend(root.path()).await;
    within("a session, a record and a watch", async {
        let session = session(&backend, 7).await;
        put(&*session, &key(7), "1").await.unwrap();
        let mut fold = Fold::open(&backend, &endpoints()).await;
        assert_eq!(fold.value(&key(7)), Some(&b"1"[..]));
        put(&*session, &key(7), "2").await.unwrap();
        fold.settle(&backend, &endpoints()).await;
        assert_eq!(backend.list(&endpoints()).await.unwrap().0[0].value, "2");
        session.close().await.unwrap();
        fold.until("the end", |fold| fold.entries.is_empty()).await;
    })
    .await;
    assert_eq!(fs::read_dir(&owners).unwrap().count(), 6, "nothing of that is anybody's to remove");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_under_a_records_name_is_passed_over_and_never_written() {
    let root = tempfile::tempdir().unwrap();
    let file = |id| file_of(root.path(), id);
    fs::create_dir_all(file(1)).unwrap();
    let _fifo = fifo(&file(2));
    symlink(PathBuf::from("/dev/zero"), file(3)).unwrap();
    File::create(file(4)).unwrap().set_len(1 << 40).unwrap();

    let backend = backend(root.path()).await;
    within("a watch, a record and a list", async {
        let mut fold = Fold::open(&backend, &endpoints()).await;
        let session = session(&backend, 7).await;
        put(&*session, &key(7), "1").await.unwrap();
        fold.settle(&backend, &endpoints()).await;
        assert_eq!(fold.entries.keys().collect::<Vec<_>>(), [&key(7)]);
        assert_eq!(backend.list(&endpoints()).await.unwrap().0.len(), 1);
        assert_eq!(backend.skipped().await.unwrap(), 4);
        for id in [1, 2, 3] {
            let error = put(&*session, &key(id), "1").await.unwrap_err();
            assert_eq!((error.kind(), error.is_temporary()), (ErrorKind::InvalidConfig, false), "{error}");
            let told = error.to_string();
            assert!(told.contains(file(id).to_str().unwrap()) && told.contains("move it away"), "{told}");
        }
        // In the place of a record that is held.
        fs::remove_file(file(7)).unwrap();
        let _held = fifo(&file(7));
        assert_eq!(session.verify(&desired(&key(7), "1")).await.unwrap().len(), 1);
        fs::remove_file(file(7)).unwrap();
        put(&*session, &key(7), "1").await.unwrap();
        assert!(session.verify(&desired(&key(7), "1")).await.unwrap().is_empty());
    })
    .await;
}
