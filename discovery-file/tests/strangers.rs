//! Files and directories of other users, which this one may not read: they are told or passed over, and stop nobody.

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use common::*;
use discovery_core::ErrorKind;
use discovery_core::backend::{Desired, Drift, Watcher};
use discovery_file::FileBackend;
use nix::unistd::{Gid, Uid, geteuid, setfsgid, setfsuid};

/// By convention nobody's, on every Linux.
const NOBODY: u32 = 65_534;

/// Runs a test as a user whom permissions bind. Root is bound by none, so where root runs the tests these threads, and
/// those that they start, touch files as nobody: credentials for files are each thread's own on Linux.
fn as_stranger(test: impl AsyncFnOnce(&Path) + Send) {
    let root = tempfile::tempdir().unwrap();
    permit(root.path(), 0o777);
    std::thread::scope(|scope| {
        let root = root.path();
        let stranger = scope.spawn(move || {
            become_stranger();
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            let work = std::panic::AssertUnwindSafe(|| runtime.block_on(within("the test", test(root))));
            let ended = std::panic::catch_unwind(work);
            // What hangs is not waited for.
            runtime.shutdown_background();
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        });
        stranger.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn become_stranger() {
    if geteuid().is_root() {
        setfsgid(Gid::from_raw(NOBODY));
        setfsuid(Uid::from_raw(NOBODY));
    }
}

/// Does something with files as the user who runs the tests.
fn as_owner<T>(work: impl FnOnce() -> T) -> T {
    if !geteuid().is_root() {
        return work();
    }
    setfsuid(Uid::from_raw(0));
    let result = work();
    become_stranger();
    result
}

fn permit(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A bucket of another user's with one record, and who watches it.
async fn watched_bucket_of_another(root: &Path) -> (PathBuf, FileBackend, Fold) {
    let bucket = root.join("v1/instances");
    as_owner(|| {
        fs::create_dir_all(&bucket).unwrap();
        fs::write(file_of(root, 7), "1").unwrap();
    });
    let backend = backend(root).await;
    let fold = Fold::open(&backend, &endpoints()).await;
    assert_eq!(fold.entries.len(), 1);
    (bucket, backend, fold)
}

#[test]
fn a_directory_that_may_not_be_read_is_told_and_found_again() {
    as_stranger(async |root| {
        let (bucket, backend, mut fold) = watched_bucket_of_another(root).await;

        as_owner(|| permit(&bucket, 0o000));
        fold.until("the interruption", |fold| fold.interrupted).await;
        assert_eq!(fold.entries.len(), 1, "what is known stays");
        assert_eq!(backend.list(&endpoints()).await.unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert_eq!(backend.barrier(&endpoints()).await.unwrap_err().kind(), ErrorKind::PermissionDenied);
        let watch = backend.watch(&endpoints(), None).await.map(drop);
        assert_eq!(watch.unwrap_err().kind(), ErrorKind::PermissionDenied);

        as_owner(|| {
            permit(&bucket, 0o755);
            fs::write(file_of(root, 8), "1").unwrap();
        });
        fold.until("the recovery", |fold| !fold.interrupted && fold.entries.len() == 2).await;
    });
}

#[test]
fn what_a_replaced_directory_held_is_gone_though_the_new_one_may_not_be_read_at_first() {
    as_stranger(async |root| {
        let (bucket, backend, mut fold) = watched_bucket_of_another(root).await;
        as_owner(|| {
            fs::create_dir(root.join("next")).unwrap();
            permit(&root.join("next"), 0o000);
            fs::rename(&bucket, root.join("former")).unwrap();
            fs::rename(root.join("next"), &bucket).unwrap();
        });
        fold.until("the interruption", |fold| fold.interrupted).await;
        as_owner(|| permit(&bucket, 0o755));
        fold.until("the recovery", |fold| !fold.interrupted).await;
        fold.until("the loss", |fold| fold.entries.is_empty()).await;
        assert!(backend.list(&endpoints()).await.unwrap().0.is_empty());
    });
}

#[test]
fn a_place_below_what_may_only_be_passed_through_is_waited_for() {
    as_stranger(async |root| {
        let home = root.join("home");
        as_owner(|| {
            fs::create_dir(&home).unwrap();
            permit(&home, 0o711);
        });
        let place = home.join("kv");
        let backend = backend(&place).await;
        let mut fold = Fold::open(&backend, &endpoints()).await;
        assert!(fold.entries.is_empty());
        as_owner(|| {
            fs::create_dir_all(place.join("v1/instances")).unwrap();
            fs::write(file_of(&place, 7), "1").unwrap();
        });
        fold.until("the record", |fold| fold.entries.len() == 1).await;
    });
}

#[test]
fn an_owner_that_may_not_be_read_hides_and_stops_nobody() {
    as_stranger(async |root| {
        let backend = backend(root).await;
        let session = session(&backend, 7).await;
        put(&*session, &key(7), "1").await.unwrap();
        let theirs = root.join(".discovery/owners/2a");
        as_owner(|| {
            fs::write(&theirs, "").unwrap();
            permit(&theirs, 0o000);
            fs::write(file_of(root, 42), "1").unwrap();
        });
        assert_eq!(backend.list(&endpoints()).await.unwrap().0.len(), 2);
        let mut fold = Fold::open(&backend, &endpoints()).await;
        assert_eq!(fold.entries.len(), 2);
        // Nobody can tell whose that file is: it is young, so somebody's.
        assert_eq!(put(&*session, &key(42), "2").await.unwrap_err().kind(), ErrorKind::Conflict);
        put(&*session, &key(7), "2").await.unwrap();
        fold.until("the update", |fold| fold.value(&key(7)) == Some(b"2")).await;
        session.close().await.unwrap();
        assert!(as_owner(|| theirs.exists()), "it is somebody's");
    });
}

#[test]
fn a_record_that_was_made_unreadable_is_put_back_with_the_others() {
    as_stranger(async |root| {
        let backend = backend(root).await;
        let session = session(&backend, 7).await;
        let wanted: Desired = [7, 8, 9].into_iter().flat_map(|id| desired(&key(id), "1")).collect();
        for key in wanted.keys() {
            put(&*session, key, "1").await.unwrap();
        }
        as_owner(|| {
            let other = root.join("other");
            fs::write(&other, "2").unwrap();
            permit(&other, 0o600);
            fs::rename(&other, file_of(root, 7)).unwrap();
            fs::remove_file(file_of(root, 8)).unwrap();
        });
        let drifts = session.verify(&wanted).await.unwrap();
        let keys: Vec<_> = drifts.iter().map(|(key, _)| key.clone()).collect();
        assert_eq!(keys, [key(7), key(8)]);
        assert!(drifts.iter().all(|(_, drift)| !matches!(drift, Drift::Taken(_))), "{drifts:?}");
        // As the core puts them back.
        for (key, _) in &drifts {
            put(&*session, key, "1").await.unwrap();
        }
        assert!(session.verify(&wanted).await.unwrap().is_empty());
    });
}

#[test]
fn an_own_record_that_may_not_be_read_any_more_is_put_back_and_keeps_no_other_from_it() {
    as_stranger(async |root| {
        let backend = backend(root).await;
        let session = session(&backend, 7).await;
        let wanted: Desired = [7, 8].into_iter().flat_map(|id| desired(&key(id), "1")).collect();
        for key in wanted.keys() {
            put(&*session, key, "1").await.unwrap();
        }
        let mut fold = Fold::open(&backend, &endpoints()).await;
        as_owner(|| {
            permit(&file_of(root, 7), 0o000);
            fs::remove_file(file_of(root, 8)).unwrap();
        });
        fold.until("the loss", |fold| !fold.entries.contains_key(&key(8))).await;
        let drifts = session.verify(&wanted).await.unwrap();
        assert!(drifts.iter().all(|(_, drift)| matches!(drift, Drift::Changed)), "{drifts:?}");
        assert_eq!(drifts.len(), 2);
        for (key, _) in &drifts {
            put(&*session, key, "1").await.unwrap();
        }
        assert!(session.verify(&wanted).await.unwrap().is_empty());
        fold.until("the records", |fold| fold.entries.len() == 2).await;
    });
}

#[test]
fn records_that_may_not_be_read_keep_no_other_from_being_renewed() {
    as_stranger(async |root| {
        let session = session(&backend(root).await, 1).await;
        for id in 1..=20 {
            put(&*session, &key(id), "1").await.unwrap();
        }
        // Renewed in no order that is known: hardly before all the others.
        let readable = file_of(root, 1);
        let before = SystemTime::now() - Duration::from_secs(60);
        as_owner(|| {
            (2..=20).for_each(|id| permit(&file_of(root, id), 0o000));
            fs::File::open(&readable).unwrap().set_modified(before).unwrap();
        });
        while fs::metadata(&readable).unwrap().modified().unwrap() == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}
