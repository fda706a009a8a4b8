//! Reading and writing in one process.

mod common;

use std::fs;
use std::path::Path as FilePath;
use std::time::{Duration, Instant, SystemTime};

use common::*;
use discovery_core::backend::{
    Backend, Change, Desired, Drift, Lineage, Registrar, SessionRequest, Watcher, Write, WriteBatch,
};
use discovery_core::{ErrorKind, InstanceId, Key, Path, Scope};
use discovery_dynamo::layout;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../discovery-dynamo/tests/golden/file/v1");

fn golden() -> Vec<(Key, String)> {
    let parse = |(name, value): (String, Vec<u8>)| {
        let (bucket, name) = name.split_once('/').unwrap();
        (layout::parse_file_name(bucket, name).unwrap(), String::from_utf8(value).unwrap())
    };
    tree(FilePath::new(GOLDEN)).into_iter().map(parse).collect()
}

#[tokio::test]
async fn what_the_reference_wrote_is_read() {
    let root = tempfile::tempdir().unwrap();
    for (name, value) in tree(FilePath::new(GOLDEN)) {
        let path = root.path().join("v1").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, value).unwrap();
    }
    let (entries, _) = backend(root.path()).await.list(&Scope::all()).await.unwrap();
    let mut listed: Vec<_> =
        entries.into_iter().map(|entry| (entry.key, String::from_utf8(entry.value.to_vec()).unwrap())).collect();
    let mut expected = golden();
    listed.sort();
    expected.sort();
    assert_eq!(expected.len(), 8);
    assert_eq!(listed, expected);
    let endpoint = Path::new("endpoint", ["dynamo", "backend", "generate"]).unwrap();
    assert!(listed.iter().any(|(key, _)| *key == Key::new(endpoint.clone(), InstanceId(0x59e2_eedf_e22a_1661))));
}

#[tokio::test]
async fn what_we_write_is_what_the_reference_wrote() {
    let root = tempfile::tempdir().unwrap();
    let backend = backend(root.path()).await;
    let session = session(&backend, 0x59e2_eedf_e22a_1661).await;
    for (key, value) in golden() {
        backend.admit(&key, value.len()).unwrap();
        put(&*session, &key, &value).await.unwrap();
    }
    assert_eq!(tree(&root.path().join("v1")), tree(FilePath::new(GOLDEN)));
    session.close().await.unwrap();
    assert!(tree(root.path()).is_empty(), "closing leaves {:?}", tree(root.path()));
}

/// Of several files there is no one transaction: none is written, and not one after the other.
#[tokio::test]
async fn an_atomic_batch_is_refused_and_writes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let backend = backend(root.path()).await;
    let session = session(&backend, 7).await;
    let writes = golden().into_iter().map(|(key, value)| Write::Put { key, value: value.into() });
    let batch = WriteBatch { writes: writes.collect(), atomic: true };
    let answers = session.publish(&batch, &Desired::new()).await;
    assert_eq!(answers.len(), batch.writes.len());
    for answer in answers {
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unsupported);
    }
    assert!(backend.list(&Scope::all()).await.unwrap().0.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_begins_before_the_directory_and_follows_a_life() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("late/kv");
    let backend = backend(&root).await;
    let mut fold = Fold::open(&backend, &endpoints()).await;
    assert!(fold.entries.is_empty());

    let session = session(&backend, 7).await;
    put(&*session, &key(7), r#"{"v":1}"#).await.unwrap();
    fold.until("the record", |fold| fold.value(&key(7)) == Some(br#"{"v":1}"#)).await;
    let first = fold.entries[&key(7)].incarnation;

    put(&*session, &key(7), r#"{"v":2}"#).await.unwrap();
    fold.until("the update", |fold| fold.value(&key(7)) == Some(br#"{"v":2}"#)).await;
    assert_eq!(fold.entries[&key(7)].incarnation, first, "an update is the same incarnation");
    assert!(!fold.changes.iter().any(|change| matches!(change, Change::Delete(_))));

    let seen = fold.changes.len();
    put(&*session, &key(7), r#"{ "v": 2 }"#).await.unwrap();
    session.renew().await.unwrap();
    fold.settle(&backend, &endpoints()).await;
    assert_eq!(fold.changes.len(), seen, "an equal value and a renewal are silent");

    delete(&*session, &key(7)).await.unwrap();
    put(&*session, &key(7), r#"{"v":2}"#).await.unwrap();
    fold.until("the new incarnation", |fold| fold.entries.get(&key(7)).is_some_and(|entry| entry.incarnation != first))
        .await;
    assert!(fold.changes.contains(&Change::Delete(key(7))));

    delete(&*session, &key(7)).await.unwrap();
    delete(&*session, &key(7)).await.unwrap();
    fold.until("the removal", |fold| fold.entries.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_come_within_the_declared_bound() {
    let root = tempfile::tempdir().unwrap();
    let backend = backend(root.path()).await;
    let session = session(&backend, 1).await;
    let mut fold = Fold::open(&backend, &endpoints()).await;
    let mut took: Vec<Duration> = Vec::new();
    for n in 0..50 {
        let value = format!(r#"{{"n":{n}}}"#);
        put(&*session, &key(1), &value).await.unwrap();
        let start = Instant::now();
        fold.until("the update", |fold| fold.value(&key(1)) == Some(value.as_bytes())).await;
        took.push(start.elapsed());
    }
    took.sort();
    assert!(took[25] < backend.bounds().propagation, "the median is {:?}", took[25]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_others_delete_or_overwrite_comes_back() {
    let root = tempfile::tempdir().unwrap();
    let backend = backend(root.path()).await;
    let session = session(&backend, 7).await;
    put(&*session, &key(7), "1").await.unwrap();
    assert!(session.verify(&desired(&key(7), "1")).await.unwrap().is_empty());

    fs::remove_file(file_of(root.path(), 7)).unwrap();
    let drifts = session.verify(&desired(&key(7), "1")).await.unwrap();
    assert!(matches!(&drifts[..], [(_, Drift::Changed)]), "{drifts:?}");
    put(&*session, &key(7), "1").await.unwrap();
    assert!(session.verify(&desired(&key(7), "1")).await.unwrap().is_empty());

    // In place, and by a file of its own.
    fs::write(file_of(root.path(), 7), "2").unwrap();
    assert!(matches!(&session.verify(&desired(&key(7), "1")).await.unwrap()[..], [(_, Drift::Changed)]));
    put(&*session, &key(7), "1").await.unwrap();
    fs::write(root.path().join("v1/other"), "3").unwrap();
    fs::rename(root.path().join("v1/other"), file_of(root.path(), 7)).unwrap();
    assert!(matches!(&session.verify(&desired(&key(7), "1")).await.unwrap()[..], [(_, Drift::Changed)]));
    put(&*session, &key(7), "1").await.unwrap();
    assert_eq!(fs::read(file_of(root.path(), 7)).unwrap(), b"1");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_owners_of_one_key() {
    let root = tempfile::tempdir().unwrap();
    let (one, two) = (backend(root.path()).await, backend(root.path()).await);
    let (first, second) = (session(&one, 7).await, session(&two, 7).await);
    put(&*first, &key(7), "1").await.unwrap();
    let error = put(&*second, &key(7), "2").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
    let drifts = second.verify(&desired(&key(7), "2")).await.unwrap();
    assert!(matches!(&drifts[..], [(_, Drift::Taken(_))]), "{drifts:?}");
    delete(&*second, &key(7)).await.unwrap();
    second.close().await.unwrap();
    assert_eq!(fs::read(file_of(root.path(), 7)).unwrap(), b"1", "the loser takes nothing with it");

    // A dead owner's key is free at once: dropped without being closed, the first one counts as dead.
    drop(first);
    let third = session(&two, 7).await;
    put(&*third, &key(7), "3").await.unwrap();
    assert_eq!(fs::read(file_of(root.path(), 7)).unwrap(), b"3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_session_says_so_and_the_next_one_takes_over_unseen() {
    let root = tempfile::tempdir().unwrap();
    let backend = backend(root.path()).await;
    let session = session(&backend, 7).await;
    put(&*session, &key(7), "1").await.unwrap();
    let mut fold = Fold::open(&backend, &endpoints()).await;

    fs::remove_file(root.path().join(".discovery/owners/7")).unwrap();
    assert_eq!(session.renew().await.unwrap_err().kind(), ErrorKind::SessionLost);
    assert_eq!(session.lost().await.kind(), ErrorKind::SessionLost);
    assert_eq!(put(&*session, &key(7), "2").await.unwrap_err().kind(), ErrorKind::SessionLost);
    assert_eq!(delete(&*session, &key(7)).await.unwrap_err().kind(), ErrorKind::SessionLost);
    assert_eq!(fs::read(file_of(root.path(), 7)).unwrap(), b"1", "a late write changes nothing");

    let next = backend.open(&request(7, Duration::from_secs(10))).await.unwrap();
    drop(session);
    put(&*next, &key(7), "1").await.unwrap();
    next.renew().await.unwrap();
    fold.settle(&backend, &endpoints()).await;
    assert!(fold.changes.is_empty(), "{:?}", fold.changes);
    next.close().await.unwrap();
    fold.until("the removal", |fold| fold.entries.is_empty()).await;
}

/// It has the name of the one before, and wants the very values that are there.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_took_over_leaves_nothing_when_it_ends() {
    let root = tempfile::tempdir().unwrap();
    let backend = backend(root.path()).await;
    let lost = session(&backend, 7).await;
    put(&*lost, &key(7), "1").await.unwrap();
    let mut fold = Fold::open(&backend, &endpoints()).await;
    let owner = root.path().join(".discovery/owners/7");
    fs::remove_file(&owner).unwrap();
    assert_eq!(lost.renew().await.unwrap_err().kind(), ErrorKind::SessionLost);

    let next = session(&backend, 7).await;
    let drifts = next.verify(&desired(&key(7), "1")).await.unwrap();
    assert!(matches!(&drifts[..], [(_, Drift::Changed)]), "nobody claims it: {drifts:?}");
    put(&*next, &key(7), "1").await.unwrap();
    let claims = fs::read_to_string(&owner).unwrap();
    assert!(claims.contains("dynamo%2Fbackend%2Fgenerate%2F7"), "{claims}");
    assert!(next.verify(&desired(&key(7), "1")).await.unwrap().is_empty());
    drop((lost, next));
    wait_for("the file's removal", || !file_of(root.path(), 7).exists()).await;
    fold.until("the removal", |fold| fold.entries.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_session_supersedes_the_one_before() {
    let root = tempfile::tempdir().unwrap();
    let backend = backend(root.path()).await;
    let first = backend.open(&request(7, Duration::from_secs(1))).await.unwrap();
    put(&*first, &key(7), "1").await.unwrap();
    let second = session(&backend, 7).await;
    put(&*second, &key(7), "1").await.unwrap();
    for refused in [put(&*first, &key(7), "2").await, delete(&*first, &key(7)).await, first.renew().await.map(drop)] {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::SessionLost);
    }
    let mut fold = Fold::open(&backend, &endpoints()).await;
    // Neither its end by silence nor its close takes what is the next one's.
    wait_for("the expiry of the first one", || !root.path().join(".discovery/owners/7").exists()).await;
    first.close().await.unwrap();
    drop(first);
    fold.settle(&backend, &endpoints()).await;
    assert_eq!(fold.value(&key(7)), Some(&b"1"[..]));
    assert!(fold.changes.is_empty(), "{:?}", fold.changes);
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_files_are_read_as_far_as_they_are_records() {
    let root = tempfile::tempdir().unwrap();
    let bucket = root.path().join("v1/instances");
    fs::create_dir_all(&bucket).unwrap();
    let backend = backend(root.path()).await;
    let mut fold = Fold::open(&backend, &endpoints()).await;
    fs::write(bucket.join("no-record"), "{}").unwrap();
    fs::write(bucket.join(".tmp_x"), "{}").unwrap();
    fs::write(file_of(root.path(), 1), "{half").unwrap();
    fold.until("the torn value, for the core to judge", |fold| fold.value(&key(1)) == Some(b"{half")).await;
    fs::write(file_of(root.path(), 1), r#"{"whole":1}"#).unwrap();
    fold.until("the whole value", |fold| fold.value(&key(1)) == Some(br#"{"whole":1}"#)).await;
    fold.settle(&backend, &endpoints()).await;
    assert_eq!(fold.entries.len(), 1);
    assert_eq!(backend.skipped().await.unwrap(), 1);
    fs::rename(file_of(root.path(), 1), root.path().join("away")).unwrap();
    fold.until("the file that was renamed away", |fold| fold.entries.is_empty()).await;
    fs::remove_file(bucket.join("no-record")).unwrap();
    fold.settle(&backend, &endpoints()).await;
    assert_eq!(backend.skipped().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_file_that_nobody_renews_is_hidden_and_left_alone() {
    let root = tempfile::tempdir().unwrap();
    fs::create_dir_all(root.path().join("v1/instances")).unwrap();
    let old = SystemTime::now() - Duration::from_secs(60);
    for id in [1, 2] {
        fs::write(file_of(root.path(), id), "{}").unwrap();
    }
    fs::File::open(file_of(root.path(), 2)).unwrap().set_modified(old).unwrap();
    let backend = backend(root.path()).await;
    let mut fold = Fold::open(&backend, &endpoints()).await;
    assert_eq!(fold.entries.keys().cloned().collect::<Vec<_>>(), [key(1)]);
    // A pass over the whole directory later, it is still hidden, and still there.
    fold.settle(&backend, &endpoints()).await;
    assert_eq!(fold.entries.keys().cloned().collect::<Vec<_>>(), [key(1)]);
    assert!(file_of(root.path(), 1).exists() && file_of(root.path(), 2).exists());

    // A key that such a file held is free; one that is renewed is not.
    let session = session(&backend, 9).await;
    assert_eq!(put(&*session, &key(1), "1").await.unwrap_err().kind(), ErrorKind::Conflict);
    fs::File::open(file_of(root.path(), 1)).unwrap().set_modified(old).unwrap();
    put(&*session, &key(1), "1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn record_files_are_renewed_more_often_than_a_long_ttl_asks_for() {
    let root = tempfile::tempdir().unwrap();
    let backend = backend(root.path()).await;
    let session = backend.open(&request(7, Duration::from_secs(3600))).await.unwrap();
    put(&*session, &key(7), "1").await.unwrap();
    let written = fs::metadata(file_of(root.path(), 7)).unwrap().modified().unwrap();
    let renewed = || fs::metadata(file_of(root.path(), 7)).unwrap().modified().unwrap() != written;
    let start = Instant::now();
    wait_for("the renewal", renewed).await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

async fn wait_for(what: &str, mut reached: impl FnMut() -> bool) {
    let start = Instant::now();
    while !reached() {
        assert!(start.elapsed() < DEADLINE, "waited too long for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_is_removed_and_made_again() {
    let parent = tempfile::tempdir().unwrap();
    let root = parent.path().join("kv");
    let backend = backend(&root).await;
    let session = session(&backend, 7).await;
    put(&*session, &key(7), "1").await.unwrap();
    let mut fold = Fold::open(&backend, &endpoints()).await;
    fs::remove_dir_all(&root).unwrap();
    fold.until("the loss", |fold| fold.entries.is_empty()).await;
    assert_eq!(session.renew().await.unwrap_err().kind(), ErrorKind::SessionLost);
    let next = backend.open(&request(7, Duration::from_secs(10))).await.unwrap();
    put(&*next, &key(7), "1").await.unwrap();
    fold.until("the record", |fold| fold.value(&key(7)) == Some(b"1")).await;
    assert!(fold.lineages.len() > 1 && fold.lineages[1..].contains(&Lineage::Reset), "{:?}", fold.lineages);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_owners_at_once_all_end_in_every_view() {
    let root = tempfile::tempdir().unwrap();
    let watching = backend(root.path()).await;
    let mut fold = Fold::open(&watching, &Scope::all()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for id in 1..=64 {
        let backend = backend(root.path()).await;
        tasks.spawn(async move {
            let session = session(&backend, id).await;
            put(&*session, &key(id), "{}").await.unwrap();
            session
        });
    }
    let sessions = tasks.join_all().await;
    fold.until("all records", |fold| fold.entries.len() == 64).await;
    assert_eq!(watching.list(&endpoints()).await.unwrap().0.len(), 64);
    for session in &sessions {
        session.close().await.unwrap();
    }
    fold.until("none", |fold| fold.entries.is_empty()).await;
    assert!(tree(root.path()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_come_and_go_show_as_what_they_were() {
    let root = tempfile::tempdir().unwrap();
    let (watching, writing) = (backend(root.path()).await, backend(root.path()).await);
    let mut fold = Fold::open(&watching, &endpoints()).await;
    let writer = tokio::spawn(async move {
        let session = session(&writing, 1).await;
        for n in 0..300_u64 {
            put(&*session, &key(n % 3), &n.to_string()).await.unwrap();
            if n % 2 == 0 {
                delete(&*session, &key(n % 3)).await.unwrap();
            }
        }
        session
    });
    // Readings beside the watch must not show what its notices then show again.
    while !writer.is_finished() {
        fold.settle(&watching, &endpoints()).await;
    }
    let session = writer.await.unwrap();
    fold.settle(&watching, &endpoints()).await;
    let listed = watching.list(&endpoints()).await.unwrap().0;
    assert_eq!(fold.entries.values().cloned().collect::<Vec<_>>(), listed);
    let mut last = std::collections::BTreeMap::new();
    for change in &fold.changes {
        let state = match change {
            Change::Put(entry) => {
                Some((std::str::from_utf8(&entry.value).unwrap().parse::<u64>().unwrap(), entry.incarnation))
            }
            Change::Delete(_) => None,
        };
        let before = last.insert(change.key().clone(), state).flatten();
        match (before, state) {
            (Some((old, same)), Some((new, incarnation))) => {
                assert!(new > old && same == incarnation, "{change:?} after {old}")
            }
            (None, None) => panic!("{change:?} twice"),
            _ => {}
        }
    }
    drop(session);
}

#[tokio::test]
async fn ids_and_limits() {
    let root = tempfile::tempdir().unwrap();
    let backend = backend(root.path()).await;
    let request = SessionRequest::new(Some(Duration::from_millis(1)), None);
    let session = backend.open(&request).await.unwrap();
    assert!(i64::try_from(session.id().0).is_ok_and(|id| id > 0));
    assert_eq!(session.effective_ttl(), Some(Duration::from_secs(1)));
    assert_eq!(session.renew().await.unwrap(), Duration::from_secs(1));
    backend.admit(&key(1), 1 << 20).unwrap();
    assert_eq!(backend.admit(&key(1), (1 << 20) + 1).unwrap_err().kind(), ErrorKind::TooLarge);
    let long = Key::new(Path::new("endpoint", ["n".repeat(300).as_str(), "c", "e"]).unwrap(), InstanceId(1));
    assert_eq!(backend.admit(&long, 1).unwrap_err().kind(), ErrorKind::InvalidKey);
    assert!(backend.health().await.unwrap().detail.contains(root.path().to_str().unwrap()));
}
