//! Directories that cannot be used: what the errors are, and that nothing is lost.

mod common;

use std::fs;
use std::path::Path as FilePath;

use common::*;
use discovery_core::backend::{Backend, Lineage, Registrar, SessionRequest, WatchEvent, Watcher};
use discovery_core::{ErrorKind, Scope};
use futures_util::StreamExt;
use rustix::fs::{CWD, RenameFlags};

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_the_directorys_place() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("kv");
    fs::write(&root, "").unwrap();
    let error = try_backend(&root).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert!(error.to_string().contains(root.to_str().unwrap()), "{error}");

    // Further down, and only later.
    fs::remove_file(&root).unwrap();
    let backend = backend(&root).await;
    let session = session(&backend, 7).await;
    fs::write(root.join("v1"), "").unwrap();
    assert_eq!(put(&*session, &key(7), "1").await.unwrap_err().kind(), ErrorKind::InvalidConfig);
    let error = backend.watch(&endpoints(), None).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    assert_eq!(backend.list(&Scope::all()).await.unwrap_err().kind(), ErrorKind::InvalidConfig);
    fs::remove_file(root.join("v1")).unwrap();
    put(&*session, &key(7), "1").await.unwrap();
    assert_eq!(backend.list(&Scope::all()).await.unwrap().0.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_to_itself_and_a_file_are_told_for_good_wherever_a_directory_should_be() {
    for (below, file) in
        [("", false), ("v1", false), ("v1/instances", false), (".discovery", false), (".discovery", true)]
    {
        let parent = tempfile::tempdir().unwrap();
        let root = parent.path().join("kv");
        let place = if below.is_empty() { root.clone() } else { root.join(below) };
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        let backend = backend(&root).await;
        if file {
            fs::write(&place, "").unwrap();
        } else {
            std::os::unix::fs::symlink(&place, &place).unwrap();
        }
        for error in [
            registered_at(&backend).await.unwrap_err(),
            backend.list(&endpoints()).await.unwrap_err(),
            backend.watch(&endpoints(), None).await.map(drop).unwrap_err(),
        ] {
            assert_eq!((error.kind(), error.is_temporary()), (ErrorKind::InvalidConfig, false), "{below}: {error}");
            let told = error.to_string();
            assert!(told.contains(place.to_str().unwrap()) && told.contains("DYN_FILE_KV"), "{told}");
        }
        // What was put right is right.
        fs::remove_file(&place).unwrap();
        registered_at(&backend).await.unwrap();
    }
}

async fn registered_at(backend: &discovery_file::FileBackend) -> discovery_core::Result<()> {
    put(&*backend.open(&SessionRequest::default()).await?, &key(7), "1").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_that_makes_no_directories_is_told_for_good() {
    let root = FilePath::new("/proc/discovery");
    let error = registered_at(&backend(root).await).await.unwrap_err();
    assert_eq!((error.kind(), error.is_temporary()), (ErrorKind::InvalidConfig, false), "{error}");
    assert!(error.to_string().contains("/proc/discovery") && error.to_string().contains("DYN_FILE_KV"), "{error}");
}

/// Not even root may make directories there.
const REFUSING: &str = "/sys/discovery";

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_may_not_be_written() {
    let backend = backend(FilePath::new(REFUSING)).await;
    let error = backend.open(&SessionRequest::default()).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert!(error.to_string().contains(REFUSING) && !error.to_string().contains('\n'), "{error}");
    let fold = Fold::open(&backend, &endpoints()).await;
    assert!(fold.entries.is_empty(), "reading is possible all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_while_watching_keeps_the_last_known_set() {
    let root = tempfile::tempdir().unwrap();
    let backend = backend(root.path()).await;
    let session = session(&backend, 7).await;
    put(&*session, &key(7), "1").await.unwrap();
    let mut fold = Fold::open(&backend, &endpoints()).await;
    let (bucket, other) = (root.path().join("v1"), root.path().join("other"));
    // At once: a directory that is away for a moment is a store that lost its records.
    let exchange = || rustix::fs::renameat_with(CWD, &bucket, CWD, &other, RenameFlags::EXCHANGE).unwrap();
    for link in [false, true] {
        if link {
            std::os::unix::fs::symlink(&bucket, &other).unwrap();
        } else {
            fs::write(&other, "").unwrap();
        }
        exchange();
        fold.until("the fault", |fold| fold.interrupted).await;
        assert_eq!(fold.value(&key(7)), Some(&b"1"[..]));
        exchange();
        fs::remove_file(&other).unwrap();
        fold.until("the recovery", |fold| !fold.interrupted && fold.value(&key(7)) == Some(b"1")).await;
    }
    put(&*session, &key(7), "2").await.unwrap();
    fold.until("the update", |fold| fold.value(&key(7)) == Some(b"2")).await;
    backend.health().await.unwrap();
}

/// Whoever moves the directory out of the way and then removes it removes no record of it: all of them are lost at once.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_emptied_elsewhere_is_lost() {
    let parent = tempfile::tempdir().unwrap();
    let (root, away) = (parent.path().join("kv"), parent.path().join("away"));
    let backend = backend(&root).await;
    let session = session(&backend, 7).await;
    for id in 1..=3 {
        put(&*session, &key(id), "1").await.unwrap();
    }
    let mut watch = backend.watch(&endpoints(), None).await.unwrap();
    while !matches!(watch.next().await.unwrap().unwrap(), WatchEvent::SnapshotEnd(_)) {}
    // Whoever has told of this follows the directory.
    put(&*session, &key(4), "1").await.unwrap();
    while !matches!(watch.next().await.unwrap().unwrap(), WatchEvent::Batch { .. }) {}
    fs::rename(&root, &away).unwrap();
    for file in fs::read_dir(away.join("v1/instances")).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    loop {
        match watch.next().await.unwrap().unwrap() {
            WatchEvent::SnapshotStart { lineage } => break assert_eq!(lineage, Lineage::Reset),
            WatchEvent::Batch { changes, .. } => panic!("nobody removed a record: {changes:?}"),
            _ => {}
        }
    }
}
