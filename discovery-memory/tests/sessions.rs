//! Sessions: identity, time to live, fencing, what they own.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Fold, TTL, delete, failure, key, kind, open, open_as, put, scope, stored, write, write_all};
use discovery_core::backend::{Backend, Desired, Drift, Registrar, SessionRequest, Watcher};
use discovery_core::{Effect, ErrorKind, InstanceId, Key, Scope};
use discovery_memory::Cluster;
use futures_util::FutureExt;
use tokio::time::{Instant, advance};

#[tokio::test(start_paused = true)]
async fn ids_are_positive_or_as_requested() {
    let cluster = Cluster::new();
    for _ in 0..100 {
        let session = open(&cluster.connect()).await;
        assert!((1..=i64::MAX as u64).contains(&session.id().0));
    }
    assert_eq!(open_as(&cluster.connect(), Some(0xabc)).await.id(), InstanceId(0xabc));
}

#[tokio::test(start_paused = true)]
async fn a_short_time_to_live_is_raised_and_reported() {
    let backend = Cluster::new().connect();
    let ask = |ttl| SessionRequest::new(ttl, None);
    let short = backend.open(&ask(Some(Duration::from_millis(1)))).await.expect("a session");
    assert_eq!(short.effective_ttl(), Some(Duration::from_millis(100)));
    let default = backend.open(&ask(None)).await.expect("a session");
    assert_eq!(default.effective_ttl(), Some(Duration::from_secs(10)));
    assert_eq!(backend.bounds().default_ttl, default.effective_ttl());
    assert_eq!(default.renew().await.expect("renewed"), Duration::from_secs(10));
    let endless = backend.open(&ask(Some(Duration::MAX))).await.expect("a session");
    assert_eq!(endless.effective_ttl(), Some(Duration::MAX));
    endless.renew().await.expect("renewed");
}

#[tokio::test(start_paused = true)]
async fn records_live_as_long_as_renewals_and_go_together_at_the_deadline() {
    let cluster = Cluster::new();
    let (owner, reader) = (cluster.connect(), cluster.connect());
    let session = open(&owner).await;
    let mut fold = Fold::open(&reader, &Scope::all()).await;
    write_all(&*session, vec![put(&key("a", 1), "1"), put(&key("b", 1), "2")], false).await;
    for _ in 0..20 {
        advance(TTL / 2).await;
        session.renew().await.expect("renewed");
    }
    let renewed = Instant::now();
    fold.until(|fold| fold.batches.len() == 2).await;
    fold.until(|fold| fold.batches.len() == 3).await;
    assert_eq!(renewed.elapsed(), TTL);
    assert_eq!(fold.batches[2], ["-a/1", "-b/1"]);
    assert_eq!(cluster.session_count(), 0);
    let error = failure(session.renew().await);
    assert_eq!((error.kind(), error.effect()), (ErrorKind::SessionLost, Effect::None));
    let error = failure(write(&*session, put(&key("a", 1), "3")).await);
    assert_eq!((error.kind(), error.effect()), (ErrorKind::SessionLost, Effect::None));
    assert_eq!(kind(session.verify(&Desired::new()).await), ErrorKind::SessionLost);
    assert_eq!(cluster.record_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_expiry_is_seen_in_time_also_when_the_session_came_after_the_watch_slept() {
    let cluster = Cluster::new();
    let reader = cluster.connect();
    let mut fold = Fold::open(&reader, &scope("a")).await;
    let owner = cluster.connect();
    let write_then_die = async {
        tokio::task::yield_now().await;
        let session =
            owner.open(&SessionRequest::new(Some(Duration::from_millis(100)), None)).await.expect("a session");
        stored(&*session, put(&key("a", 1), "1")).await;
    };
    let start = Instant::now();
    tokio::join!(write_then_die, fold.until(|fold| fold.batches.len() == 2));
    assert_eq!(start.elapsed(), Duration::from_millis(100));
    assert_eq!(fold.batches[1], ["-a/1"]);
}

#[tokio::test(start_paused = true)]
async fn lost_resolves_at_expiry_and_at_revocation() {
    let cluster = Cluster::new();
    let backend = cluster.connect();
    let session = open(&backend).await;
    assert!(session.lost().now_or_never().is_none());
    let start = Instant::now();
    assert_eq!(session.lost().await.kind(), ErrorKind::SessionLost);
    assert_eq!(start.elapsed(), TTL);

    let session = open(&backend).await;
    stored(&*session, put(&key("a", 1), "1")).await;
    let (error, ()) = tokio::join!(session.lost(), async {
        tokio::task::yield_now().await;
        assert_eq!(cluster.revoke(session.id()), 1);
    });
    assert_eq!(error.kind(), ErrorKind::SessionLost);
    assert!(error.message().contains("revoked"), "{error}");
    assert_eq!(start.elapsed(), TTL);
    assert_eq!(cluster.record_count(), 0);
    assert_eq!(cluster.revoke(session.id()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_later_session_of_the_handle_takes_over_and_fences_the_earlier_one() {
    let cluster = Cluster::new();
    let backend = cluster.connect();
    let first = open_as(&backend, Some(7)).await;
    let (kept, left, moved) = (key("a", 7), key("b", 7), key("c", 7));
    let writes = vec![put(&kept, "1"), put(&left, "1"), put(&moved, "1")];
    write_all(&*first, writes, true).await;
    let mut fold = Fold::open(&cluster.connect(), &Scope::all()).await;

    advance(TTL / 2).await;
    let second = open_as(&backend, Some(7)).await;
    assert_eq!(first.lost().await.kind(), ErrorKind::SessionLost);
    for write_ in [put(&kept, "late"), delete(&kept)] {
        let error = failure(write(&*first, write_).await);
        assert_eq!((error.kind(), error.effect()), (ErrorKind::SessionLost, Effect::None));
    }
    assert_eq!(kind(first.renew().await), ErrorKind::SessionLost);

    // What still lives under the first session would go with it, so it counts as changed; what nobody wants is told.
    let desired = Desired::from([(kept.clone(), Bytes::from("1")), (moved.clone(), Bytes::from("1"))]);
    let drift = second.verify(&desired).await.expect("verified");
    let unwanted = |drift: &[(Key, Drift)]| -> Vec<Key> {
        drift.iter().filter(|(_, drift)| matches!(drift, Drift::Unwanted)).map(|(key, _)| key.clone()).collect()
    };
    assert_eq!((drift.len(), unwanted(&drift)), (3, vec![left.clone()]));
    let before = cluster.revision();
    stored(&*second, put(&kept, "1")).await;
    assert_eq!(cluster.revision(), before, "an equal value changes nothing");
    stored(&*second, put(&moved, "2")).await;
    let desired = Desired::from([(kept.clone(), Bytes::from("1")), (moved.clone(), Bytes::from("2"))]);
    let drift = second.verify(&desired).await.expect("verified");
    assert_eq!((drift.len(), unwanted(&drift)), (1, vec![left.clone()]));

    // The first session expires, and takes only what did not move.
    advance(TTL / 2).await;
    second.renew().await.expect("renewed");
    fold.until(|fold| fold.batches.len() == 2).await;
    assert_eq!(fold.batches, [vec!["+c/7=2"], vec!["-b/7"]]);
    assert_eq!(cluster.session_count(), 1);

    // An earlier session's closing takes nothing either.
    first.close().await.expect("closed");
    assert_eq!(cluster.record_count(), 2);
    second.close().await.expect("closed");
    assert_eq!((cluster.record_count(), cluster.session_count()), (0, 0));
    second.close().await.expect("closed again");
}

#[tokio::test(start_paused = true)]
async fn a_key_has_one_live_owner() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.connect(), cluster.connect());
    let (first, second) = (open_as(&one, Some(1)).await, open_as(&two, Some(2)).await);
    let shared = key("a", 9);
    stored(&*first, put(&shared, "1")).await;
    let error = failure(write(&*second, put(&shared, "2")).await);
    assert_eq!((error.kind(), error.effect(), error.key()), (ErrorKind::Conflict, Effect::None, Some(&shared)));
    assert!(error.message().contains("instance 1"), "{error}");
    assert!(!error.is_temporary());
    assert_eq!(kind(write(&*second, put(&shared, "1")).await), ErrorKind::Conflict);
    stored(&*second, delete(&shared)).await;
    assert_eq!(cluster.owner_of(&shared), Some(one.owner()));
    let drift = second.verify(&Desired::from([(shared.clone(), Bytes::from("1"))])).await.expect("verified");
    assert!(matches!(&drift[..], [(_, Drift::Taken(error))] if error.kind() == ErrorKind::Conflict));

    // The loser wins once the other is dead.
    cluster.crash(&one);
    advance(TTL / 2).await;
    second.renew().await.expect("renewed");
    advance(TTL / 2).await;
    stored(&*second, put(&shared, "2")).await;
    assert_eq!(cluster.owner_of(&shared), Some(two.owner()));
}

#[tokio::test(start_paused = true)]
async fn verify_tells_what_is_gone_overwritten_or_foreign() {
    let cluster = Cluster::new();
    let backend = cluster.connect();
    let session = open(&backend).await;
    let keys: Vec<Key> = ["good", "gone", "other", "stolen"].map(|service| key(service, 1)).to_vec();
    write_all(&*session, keys.iter().map(|key| put(key, r#"{"a":1,"b":2}"#)).collect(), false).await;
    cluster.delete(&keys[1]);
    cluster.inject(&keys[2], "{}");
    cluster.inject(&keys[3], r#"{"a":1,"b":2}"#);
    let desired: Desired = keys.iter().map(|key| (key.clone(), Bytes::from(r#"{"b":2,"a":1}"#))).collect();
    let mut drift = session.verify(&desired).await.expect("verified");
    drift.sort_by(|(one, _), (other, _)| one.cmp(other));
    let changed: Vec<_> =
        drift.iter().filter(|(_, drift)| matches!(drift, Drift::Changed)).map(|(key, _)| key).collect();
    assert_eq!(changed, [&keys[1], &keys[2], &keys[3]]);

    // Writing again repairs it.
    write_all(&*session, keys.iter().map(|key| put(key, r#"{"a":1,"b":2}"#)).collect(), false).await;
    assert!(session.verify(&desired).await.expect("verified").is_empty());
    assert_eq!(cluster.owner_of(&keys[3]), Some(backend.owner()));
}

#[tokio::test(start_paused = true)]
async fn equal_values_are_silent() {
    let cluster = Cluster::new();
    let backend = cluster.connect();
    let session = open(&backend).await;
    let first = stored(&*session, put(&key("a", 1), r#"{"a":1,"b":2}"#)).await;
    stored(&*session, put(&key("b", 1), "1")).await;
    let again = stored(&*session, put(&key("a", 1), r#"{ "b": 2, "a": 1 }"#)).await;
    assert_eq!(first, again);
    assert_eq!(cluster.revision(), 2);
    stored(&*session, delete(&key("c", 1))).await;
    assert_eq!(cluster.revision(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_atomic_batch_is_all_or_nothing() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.connect(), cluster.connect());
    let (first, second) = (open(&one).await, open(&two).await);
    stored(&*first, put(&key("a", 1), "1")).await;
    let mut fold = Fold::open(&one, &Scope::all()).await;
    let before = cluster.revision();

    let results = write_all(&*second, vec![put(&key("b", 2), "1"), put(&key("a", 1), "2")], true).await;
    assert!(results.into_iter().all(|result| kind(result) == ErrorKind::Conflict));
    let too_many: Vec<_> = (0..129).map(|id| put(&key("b", id), "1")).collect();
    assert_eq!(two.bounds().max_batch, 128);
    let results = write_all(&*second, too_many.clone(), true).await;
    assert_eq!(results.len(), 129);
    assert!(results.into_iter().all(|result| kind(result) == ErrorKind::TooLarge));
    assert_eq!(cluster.revision(), before);

    let results = write_all(&*second, too_many[..128].to_vec(), true).await;
    let stamps: Vec<_> = results.into_iter().map(|result| result.expect("written")).collect();
    assert!(stamps.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(cluster.revision(), before + 1);
    assert_eq!(fold.batch().await.len(), 128);

    // Apart from that, one write's failure is its own.
    let results = write_all(&*second, vec![put(&key("a", 1), "2"), put(&key("c", 2), "1")], false).await;
    assert_eq!(results.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_value_at_the_limit_is_stored_and_one_byte_more_is_not() {
    let cluster = Cluster::new();
    let backend = cluster.connect();
    let session = open(&backend).await;
    let limit = backend.bounds().max_value;
    let value = format!("\"{}\"", "x".repeat(limit - 2));
    backend.admit(&key("a", 1), limit).expect("admitted");
    stored(&*session, put(&key("a", 1), &value)).await;
    let error = failure(backend.admit(&key("b", 1), limit + 1));
    assert_eq!((error.kind(), error.backend()), (ErrorKind::TooLarge, Some("memory")));
    assert_eq!(kind(write(&*session, put(&key("b", 1), &format!("{value} "))).await), ErrorKind::TooLarge);
    assert_eq!(cluster.record_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_sessions_expire_together_each_seen_once() {
    let cluster = Cluster::new();
    let survivor = cluster.connect();
    let alive = open(&survivor).await;
    stored(&*alive, put(&key("a", 0), "1")).await;
    for id in 1..=10_000 {
        let session = open_as(&cluster.connect(), Some(id)).await;
        stored(&*session, put(&key("a", id), "1")).await;
    }
    let mut fold = Fold::open(&survivor, &scope("a")).await;
    assert_eq!(fold.records.len(), 10_001);
    advance(TTL - Duration::from_millis(1)).await;
    alive.renew().await.expect("renewed");
    let wall = std::time::Instant::now();
    fold.until(|fold| fold.records.len() == 1).await;
    assert!(wall.elapsed() < Duration::from_secs(5), "{:?}", wall.elapsed());
    assert_eq!(fold.batches.len(), 10_000);
    assert!(fold.records.contains_key(&key("a", 0)));
    assert!(survivor.list(&Scope::all()).await.expect("a list").0.len() == 1);
}
