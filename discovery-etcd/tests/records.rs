//! Registering and reading on a server that nothing happens to.

mod common;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use common::*;
use discovery_core::backend::{
    Backend, Change, ChangeLog, Drift, Lineage, Position, Registrar, SessionRequest, Watcher, Write,
};
use discovery_core::{ErrorKind, InstanceId, Key, Path, Scope};
use discovery_dynamo::layout;
use discovery_testbed::Etcd;
use futures_util::{FutureExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const GOLDEN: &str = include_str!("../../discovery-dynamo/tests/golden/etcd.jsonl");

/// Key, value and lease of every record that the reference wrote.
fn golden() -> Vec<(String, String, i64)> {
    let parse = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| line[name].as_str().unwrap().to_owned();
        (text("key"), text("value"), line["lease"].as_i64().unwrap())
    };
    GOLDEN.lines().map(parse).collect()
}

/// The value under a stored key, and its lease, as etcd's own client sees them.
async fn raw(etcd: &Etcd, stored: &str) -> (String, i64) {
    let value = etcd.ctl(["get", "--print-value-only", stored]).await.unwrap();
    let fields = etcd.ctl(["get", "--write-out=fields", stored]).await.unwrap();
    let lease = fields.lines().find_map(|line| line.strip_prefix("\"Lease\" : ")).unwrap();
    (value.strip_suffix('\n').unwrap().to_owned(), lease.parse().unwrap())
}

#[tokio::test]
async fn what_we_write_is_what_the_reference_wrote_and_reads_back() {
    let etcd = Etcd::start().await.unwrap();
    let backend = backend(&etcd.endpoint()).await;
    let golden = golden();
    assert_eq!(golden.len(), 8);
    let lease = golden[0].2;
    let request = SessionRequest::new(None, Some(InstanceId(lease.cast_unsigned())));
    let session = backend.open(&request).await.unwrap();
    let records: BTreeMap<Key, Bytes> = golden
        .iter()
        .map(|(stored, value, _)| (layout::parse_stored_key(stored).unwrap(), Bytes::from(value.clone())))
        .collect();
    let writes = records.iter().map(|(key, value)| put_of(key, value)).collect();
    publish(&*session, writes, false).await.into_iter().for_each(|result| drop(result.unwrap()));
    // The lease is the server's choice, as it was there.
    let lease = backend.lease().unwrap();
    for (stored, value, _) in &golden {
        assert_eq!(raw(&etcd, stored).await, (value.clone(), lease), "{stored}");
    }
    assert_eq!(listed(&backend, &Scope::all()).await, records);
    assert!(session.verify(&desired(records)).await.unwrap().is_empty());
    session.close().await.unwrap();
    assert_eq!(etcd.ctl(["get", "--prefix", "", "--keys-only"]).await.unwrap().trim(), "");
    assert_eq!(backend.skipped(), 0);
}

#[tokio::test]
async fn the_first_leases_id_is_the_instance_id() {
    let etcd = Etcd::start().await.unwrap();
    let backend = backend(&etcd.endpoint()).await;
    let session = session(&backend).await;
    let id = session.id().0;
    assert!(i64::try_from(id).is_ok_and(|id| id > 0));
    put(&*session, &key(id), "{}").await.unwrap();
    assert_eq!(raw(&etcd, &stored(id)).await, ("{}".to_owned(), id.cast_signed()));
    assert_eq!(session.effective_ttl(), Some(std::time::Duration::from_secs(10)));
    assert_eq!(session.renew().await.unwrap(), std::time::Duration::from_secs(10));
    assert_eq!(session.renew().await.unwrap(), std::time::Duration::from_secs(10));
}

#[tokio::test]
async fn a_ttl_below_the_servers_minimum_is_raised_and_reported() {
    let etcd = Etcd::start().await.unwrap();
    let backend = backend(&etcd.endpoint()).await;
    let request = SessionRequest::new(Some(std::time::Duration::from_millis(100)), None);
    let session = backend.open(&request).await.unwrap();
    assert_eq!(session.effective_ttl(), backend.bounds().min_ttl);
}

#[tokio::test]
async fn two_that_are_given_one_id_keep_it_under_leases_of_their_own() {
    let etcd = Etcd::start().await.unwrap();
    let (first, second) = (backend(&etcd.endpoint()).await, backend(&etcd.endpoint()).await);
    let request = SessionRequest::new(None, Some(InstanceId(77)));
    let (one, two) = (first.open(&request).await.unwrap(), second.open(&request).await.unwrap());
    assert_eq!((one.id(), two.id()), (InstanceId(77), InstanceId(77)));
    put(&*one, &key(77), "1").await.unwrap();
    let conflict = put(&*two, &key(77), "2").await.unwrap_err();
    assert_eq!(conflict.kind(), ErrorKind::Conflict);
    delete(&*two, &key(77)).await.unwrap();
    assert_eq!(raw(&etcd, &stored(77)).await.0, "1");
    two.close().await.unwrap();
    assert_eq!(raw(&etcd, &stored(77)).await.0, "1");
}

#[tokio::test]
async fn a_watch_follows_a_life() {
    let etcd = Etcd::start().await.unwrap();
    let (owner, reader) = (backend(&etcd.endpoint()).await, backend(&etcd.endpoint()).await);
    let mut fold = Fold::open(&reader, &endpoints(), None).await;
    assert_eq!((fold.lineages.as_slice(), fold.entries.len()), ([Lineage::Unknown].as_slice(), 0));
    let session = session(&owner).await;
    put(&*session, &key(1), "1").await.unwrap();
    fold.until("the record", |fold| fold.values().get(&key(1)).is_some_and(|value| value == "1")).await;
    let incarnation = fold.entries[&key(1)].incarnation;
    put(&*session, &key(1), "2").await.unwrap();
    fold.until("the update", |fold| fold.values().get(&key(1)).is_some_and(|value| value == "2")).await;
    assert_eq!(fold.entries[&key(1)].incarnation, incarnation);
    delete(&*session, &key(1)).await.unwrap();
    fold.until("the removal", |fold| fold.entries.is_empty()).await;
    put(&*session, &key(1), "2").await.unwrap();
    fold.until("the second life", |fold| !fold.entries.is_empty()).await;
    assert_ne!(fold.entries[&key(1)].incarnation, incarnation);
    assert_eq!(fold.batches.len(), 4);
    session.close().await.unwrap();
    fold.until("the end", |fold| fold.entries.is_empty()).await;
}

#[tokio::test]
async fn a_barrier_is_reached_though_nothing_changes() {
    let etcd = Etcd::start().await.unwrap();
    let (owner, reader) = (backend(&etcd.endpoint()).await, backend(&etcd.endpoint()).await);
    let mut fold = Fold::open(&reader, &endpoints(), None).await;
    let session = session(&owner).await;
    let elsewhere = Key::new(Path::new("other", ["x"]).unwrap(), InstanceId(1));
    let stamp = put(&*session, &elsewhere, "1").await.unwrap();
    let barrier = reader.barrier(&endpoints()).await.unwrap().unwrap();
    assert!(reader.reached(&barrier, &stamp.position.unwrap()));
    let start = std::time::Instant::now();
    fold.until("the barrier", |fold| fold.position.as_ref().is_some_and(|at| reader.reached(at, &barrier))).await;
    assert!(start.elapsed() < reader.bounds().propagation * 4, "{:?}", start.elapsed());
    assert!(fold.batches.is_empty());
}

/// How many messages the server was sent by watches: each opens one, or asks how far it is.
async fn sent_by_watches(etcd: &Etcd) -> u64 {
    let mut server = TcpStream::connect(("127.0.0.1", etcd.port())).await.unwrap();
    server.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
    let mut metrics = String::new();
    server.read_to_string(&mut metrics).await.unwrap();
    let received = metrics.lines().filter(|line| line.starts_with("grpc_server_msg_received_total{"));
    let by_watches = received.filter(|line| line.contains("grpc_method=\"Watch\""));
    by_watches.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn a_barrier_makes_no_watch_ask_but_those_that_cover_it() {
    const BARRIERS: u64 = 100;
    let etcd = Etcd::start().await.unwrap();
    let reader = backend(&etcd.endpoint()).await;
    let client = etcd_client::Client::connect([etcd.endpoint()], None).await.unwrap();
    let mut fold = Fold::open(&reader, &endpoints(), None).await;
    // Behind something that no watch is told of, so that who is to come as far has to ask.
    let barrier = async |scope: &Scope| {
        client.kv_client().put("elsewhere", "", None).await.unwrap();
        reader.barrier(scope).await.unwrap().unwrap()
    };
    let opened = sent_by_watches(&etcd).await;
    for _ in 0..BARRIERS {
        let barrier = barrier(&Scope::new("endpoint", ["dynamo", "backend"]).unwrap()).await;
        fold.until("the barrier", |fold| fold.position.as_ref().is_some_and(|at| reader.reached(at, &barrier))).await;
    }
    let covered = sent_by_watches(&etcd).await;
    let beside = Scope::new("endpoint", ["beside"]).unwrap();
    let asking = async {
        for _ in 0..BARRIERS {
            barrier(&beside).await;
            // Time for a watch that asked to ask again for the next.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = asking => {}
        () = fold.until("never", |_| false) => unreachable!("it goes on"),
    }
    let (covered, beside) = (covered - opened, sent_by_watches(&etcd).await - covered);
    // What is left are the looks that a watch takes by itself.
    assert!(covered >= BARRIERS / 2 && beside < covered / 2, "asked {covered} times, and beside them {beside}");
}

#[tokio::test]
async fn a_batch_is_one_transaction_or_nothing() {
    let etcd = Etcd::start().await.unwrap();
    let (owner, other) = (backend(&etcd.endpoint()).await, backend(&etcd.endpoint()).await);
    let mut fold = Fold::open(&other, &endpoints(), None).await;
    let session = session(&owner).await;
    let most = owner.bounds().max_batch;
    let writes = |value: &str| (1..=most as u64).map(|id| put_of(&key(id), value)).collect::<Vec<_>>();
    for (count, value) in [(1, "1"), (2, "2")] {
        let results = publish(&*session, writes(value), true).await;
        let stamps: Vec<_> = results.into_iter().map(|result| result.unwrap().position).collect();
        assert!(stamps.iter().all(|stamp| *stamp == stamps[0]));
        // Seen before the next one is written: two that wait are told together.
        fold.until("the batch", |fold| fold.batches.len() == count).await;
    }
    assert!(fold.batches.iter().all(|batch| batch.len() == most));

    let rival = common::session(&other).await;
    put(&*rival, &key(1_000), "rival").await.unwrap();
    let mut mixed = vec![put_of(&key(1), "3"), put_of(&key(1_000), "3"), Write::Delete { key: key(2) }];
    for result in publish(&*session, mixed.clone(), true).await {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Conflict);
    }
    // A deletion of what is another's is no conflict, and the rest is written.
    mixed[1] = Write::Delete { key: key(1_000) };
    publish(&*session, mixed, true).await.into_iter().for_each(|result| drop(result.unwrap()));
    let state = listed(&owner, &endpoints()).await;
    assert_eq!((&state[&key(1)][..], &state[&key(1_000)][..]), (&b"3"[..], &b"rival"[..]));
    assert_eq!(state.len(), most);

    let large = vec![put_of(&key(1), vec![b'1'; 800_000]), put_of(&key(3), vec![b'1'; 800_000])];
    for result in publish(&*session, large, true).await {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::TooLarge);
    }
    assert_eq!(listed(&owner, &endpoints()).await, state);
}

#[tokio::test]
async fn independent_writes_fail_alone() {
    let etcd = Etcd::start().await.unwrap();
    let (owner, other) = (backend(&etcd.endpoint()).await, backend(&etcd.endpoint()).await);
    let (session, rival) = (session(&owner).await, session(&other).await);
    put(&*rival, &key(150), "rival").await.unwrap();
    let writes = (100..400).map(|id| put_of(&key(id), id.to_string())).collect();
    let results = publish(&*session, writes, false).await;
    let mut revisions = HashSet::new();
    for (id, result) in (100..400).zip(results) {
        match id {
            150 => assert_eq!(result.unwrap_err().kind(), ErrorKind::Conflict),
            _ => revisions.extend(result.unwrap().position),
        }
    }
    let state = listed(&owner, &endpoints()).await;
    assert_eq!((state.len(), &state[&key(150)][..]), (300, &b"rival"[..]));
    assert!(revisions.len() <= 8, "299 writes go in few transactions, not in {}", revisions.len());
}

#[tokio::test]
async fn values_up_to_the_limit_are_stored_and_no_longer_ones() {
    let etcd = Etcd::start().await.unwrap();
    let backend = backend(&etcd.endpoint()).await;
    let session = session(&backend).await;
    let most = backend.bounds().max_value;
    let value = format!("\"{}\"", "x".repeat(most - 2));
    backend.admit(&key(1), most).unwrap();
    put(&*session, &key(1), &value).await.unwrap();
    put(&*session, &key(1), &value).await.unwrap();
    assert_eq!(listed(&backend, &endpoints()).await[&key(1)], value);
    assert_eq!(backend.admit(&key(1), most + 1).unwrap_err().kind(), ErrorKind::TooLarge);
    let two = vec![put_of(&key(2), &value), put_of(&key(3), &value)];
    publish(&*session, two, false).await.into_iter().for_each(|result| drop(result.unwrap()));
}

#[tokio::test]
async fn a_set_of_many_megabytes_is_one_snapshot() {
    let etcd = Etcd::start().await.unwrap();
    let backend = backend(&etcd.endpoint()).await;
    let session = session(&backend).await;
    let value = format!("\"{}\"", "x".repeat(2_000));
    let wanted: Vec<_> = (0..6_000).map(|id| (key(id), value.clone())).collect();
    for part in wanted.chunks(512) {
        let writes = part.iter().map(|(key, value)| put_of(key, value)).collect();
        publish(&*session, writes, false).await.into_iter().for_each(|result| drop(result.unwrap()));
    }
    let wanted = desired(wanted);
    assert_eq!(listed(&backend, &endpoints()).await, wanted);
    assert_eq!(Fold::open(&backend, &endpoints(), None).await.values(), wanted);
    // Thousands of records on one lease are verified, and end as one.
    assert!(session.verify(&wanted).await.unwrap().is_empty());
    let mut fold = Fold::open(&backend, &endpoints(), None).await;
    session.close().await.unwrap();
    fold.until("the end", |fold| fold.entries.is_empty()).await;
    assert_eq!(fold.batches.len(), 1);
}

#[tokio::test]
async fn what_others_did_to_its_records_is_found_and_put_right() {
    let etcd = Etcd::start().await.unwrap();
    let (owner, other) = (backend(&etcd.endpoint()).await, backend(&etcd.endpoint()).await);
    let (session, rival) = (session(&owner).await, session(&other).await);
    let wanted = desired((1..=5).map(|id| (key(id), id.to_string())));
    for (key, value) in &wanted {
        put(&*session, key, value).await.unwrap();
    }
    put(&*session, &key(9), "nobody wants it").await.unwrap();
    etcd.ctl(["del", &stored(1)]).await.unwrap();
    etcd.ctl(["put", &stored(2), "garbage"]).await.unwrap();
    etcd.ctl(["put", "--ignore-lease", &stored(3), "garbage"]).await.unwrap();
    etcd.ctl(["del", &stored(4)]).await.unwrap();
    put(&*rival, &key(4), "rival").await.unwrap();
    let drifts: BTreeMap<Key, Drift> = session.verify(&wanted).await.unwrap().into_iter().collect();
    let shown: Vec<_> = drifts.iter().map(|(key, drift)| (key.instance().0, drift)).collect();
    assert!(
        matches!(
            shown.as_slice(),
            [(1, Drift::Changed), (2, Drift::Changed), (3, Drift::Changed), (4, Drift::Taken(_)), (9, Drift::Unwanted)]
        ),
        "{shown:?}"
    );
    for id in 1..=3 {
        put(&*session, &key(id), id.to_string()).await.unwrap();
    }
    delete(&*session, &key(9)).await.unwrap();
    let wanted = desired(wanted.into_iter().filter(|(key, _)| key.instance() != InstanceId(4)));
    assert!(session.verify(&wanted).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_prefix_keeps_two_fleets_apart() {
    let etcd = Etcd::start().await.unwrap();
    let of = |prefix: &str| connect(environment(&etcd.endpoint()).with("DYN_DISCOVERY_ETCD_PREFIX", prefix));
    let (plain, team) = (backend(&etcd.endpoint()).await, of("team").await.unwrap());
    let (one, two) = (session(&plain).await, session(&team).await);
    put(&*one, &key(1), "1").await.unwrap();
    put(&*two, &key(1), "2").await.unwrap();
    assert_eq!(raw(&etcd, &format!("team/{}", stored(1))).await.0, "2");
    for (backend, value) in [(&plain, "1"), (&team, "2")] {
        let all = listed(backend, &Scope::all()).await;
        assert_eq!(all, desired([(key(1), value)]));
        assert_eq!(Fold::open(backend, &Scope::all(), None).await.values(), all);
    }
}

#[tokio::test]
async fn the_change_log_tells_everything_after_a_token_or_that_it_cannot() {
    use futures_util::StreamExt;
    let etcd = Etcd::start().await.unwrap();
    let backend = backend(&etcd.endpoint()).await;
    let session = session(&backend).await;
    let log = backend.change_log().unwrap();
    let token = log.now().await.unwrap();
    for value in ["1", "2", "3"] {
        put(&*session, &key(1), value).await.unwrap();
    }
    delete(&*session, &key(1)).await.unwrap();
    let mut changes = log.changes_since(&endpoints(), &token).await.unwrap();
    let mut seen = Vec::new();
    let mut second = token.clone();
    for _ in 0..4 {
        let (changes, position) = within("a change", changes.next()).await.unwrap().unwrap();
        if seen.len() == 1 {
            second = position;
        }
        seen.extend(changes.into_iter().map(|change| match change {
            Change::Put(entry) => String::from_utf8(entry.value.to_vec()).unwrap(),
            Change::Delete(_) => "gone".to_owned(),
        }));
    }
    assert_eq!(seen, ["1", "2", "3", "gone"]);
    let mut rest = log.changes_since(&endpoints(), &second).await.unwrap();
    let (changes, _) = within("a change", rest.next()).await.unwrap().unwrap();
    assert!(matches!(&changes[..], [Change::Put(entry)] if entry.value == "3"));
    put(&*session, &key(2), "1").await.unwrap();
    etcd.compact().await.unwrap();
    // At once, or by the server's first answer.
    let error = match log.changes_since(&endpoints(), &token).await {
        Ok(mut late) => within("an error", late.next()).await.unwrap().unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Expired);
}

async fn expires(log: &dyn ChangeLog, token: &Position) {
    let error = match log.changes_since(&Scope::all(), token).await {
        Ok(mut late) => within("an error", late.next()).await.unwrap().unwrap_err(),
        Err(error) => error,
    };
    assert_eq!(error.kind(), ErrorKind::Expired, "{error}");
}

#[tokio::test]
async fn a_token_of_another_history_is_expired_however_far_that_has_come() {
    let etcd = Etcd::start().await.unwrap();
    let (owner, fresh) = (backend(&etcd.endpoint()).await, backend(&etcd.endpoint()).await);
    let first = session(&owner).await;
    for value in 0..5 {
        put(&*first, &key(1), value.to_string()).await.unwrap();
    }
    let now = owner.change_log().unwrap().now().await.unwrap();
    // Of what came after `now`, a deletion alone was seen.
    put(&*first, &key(2), "1").await.unwrap();
    delete(&*first, &key(2)).await.unwrap();
    let mut log = owner.change_log().unwrap().changes_since(&endpoints(), &now).await.unwrap();
    within("the record", log.next()).await.unwrap().unwrap();
    let (_, after) = within("its deletion", log.next()).await.unwrap().unwrap();
    drop(log);
    for token in [&now, &after] {
        let mut rest = fresh.change_log().unwrap().changes_since(&endpoints(), token).await.unwrap();
        assert!(rest.next().now_or_never().is_none_or(|item| item.unwrap().is_ok()), "the history is the same");
    }
    etcd.wipe().await.unwrap();
    // A handle that knows nothing of the loss, and a history that is longer.
    let stranger = backend(&etcd.endpoint()).await;
    let second = session(&stranger).await;
    for value in 0..20 {
        put(&*second, &key(1), value.to_string()).await.unwrap();
    }
    for token in [&now, &after] {
        expires(stranger.change_log().unwrap(), token).await;
    }
}

#[tokio::test]
async fn a_token_of_an_empty_store_is_followed_by_everything() {
    let etcd = Etcd::start().await.unwrap();
    let backend = backend(&etcd.endpoint()).await;
    let token = backend.change_log().unwrap().now().await.unwrap();
    let session = session(&backend).await;
    put(&*session, &key(1), "1").await.unwrap();
    let mut log = backend.change_log().unwrap().changes_since(&Scope::all(), &token).await.unwrap();
    let (changes, _) = within("the record", log.next()).await.unwrap().unwrap();
    assert!(matches!(&changes[..], [Change::Put(entry)] if entry.key == key(1)), "{changes:?}");
    drop(log);
    session.close().await.unwrap();
    drop(etcd.compact().await);
    expires(backend.change_log().unwrap(), &token).await;
}

#[tokio::test]
async fn health_says_which_server_answers() {
    let etcd = Etcd::start().await.unwrap();
    let backend = backend(&etcd.endpoint()).await;
    let health = backend.health().await.unwrap();
    assert!(health.detail.contains("etcd 3.") && health.detail.contains(&etcd.endpoint()), "{}", health.detail);
    backend.close().await.unwrap();
    assert_eq!(backend.health().await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(backend.list(&endpoints()).await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn a_prefix_is_erased_and_nothing_beside_it() {
    let etcd = Etcd::start().await.unwrap();
    let below = |prefix| environment(&etcd.endpoint()).with("DYN_DISCOVERY_ETCD_PREFIX", prefix);
    let (done, other) = (connect(below("done")).await.unwrap(), connect(below("done-not")).await.unwrap());
    for backend in [&done, &other] {
        let session = session(backend).await;
        put(&*session, &key(1), "1").await.unwrap();
    }
    let config = discovery_etcd::Config::from_environment(&below("done")).unwrap();
    // The record, and the fence of the handle that wrote it.
    assert_eq!(discovery_etcd::erase(&config).await.unwrap(), 2);
    assert_eq!(discovery_etcd::erase(&config).await.unwrap(), 0);
    assert!(listed(&done, &endpoints()).await.is_empty());
    assert_eq!(listed(&other, &endpoints()).await.len(), 1);
    let everything = discovery_etcd::Config::from_environment(&environment(&etcd.endpoint())).unwrap();
    let error = discovery_etcd::erase(&everything).await.unwrap_err();
    assert_eq!(error.kind(), discovery_core::ErrorKind::InvalidConfig, "{error}");
    assert_eq!(listed(&other, &endpoints()).await.len(), 1);
}

#[tokio::test]
async fn transactions_that_wait_are_told_together_to_views_and_one_by_one_by_the_log() {
    let etcd = Etcd::start().await.unwrap();
    let (owner, reader) = (backend(&etcd.endpoint()).await, backend(&etcd.endpoint()).await);
    let session = session(&owner).await;
    let log = reader.change_log().unwrap();
    let token = log.now().await.unwrap();
    let mut slow = Fold::open(&reader, &endpoints(), None).await;
    let mut other = Fold::open(&reader, &endpoints(), None).await;
    for value in 0..20 {
        put(&*session, &key(1), value.to_string()).await.unwrap();
    }
    other.until("the last one", |fold| fold.values().get(&key(1)).is_some_and(|value| value == "19")).await;
    slow.until("the last one", |fold| fold.values().get(&key(1)).is_some_and(|value| value == "19")).await;
    let told: Vec<_> = slow.batches.concat().into_iter().map(value_of).collect();
    let written: Vec<_> = (0..20).map(|value: u32| value.to_string()).collect();
    assert_eq!(told, written, "each of them, in order");
    assert!(slow.batches.len() < 20, "{} versions for 20 transactions that waited", slow.batches.len());
    let logged = log.changes_since(&endpoints(), &token).await.unwrap().take(20).collect::<Vec<_>>();
    let logged = within("the log", logged).await.into_iter().map(|item| item.unwrap().0).collect::<Vec<_>>();
    assert!(logged.iter().all(|changes| changes.len() == 1), "{logged:?}");
    assert_eq!(logged.concat().into_iter().map(value_of).collect::<Vec<_>>(), written);
}

fn value_of(change: Change) -> String {
    match change {
        Change::Put(entry) => String::from_utf8_lossy(&entry.value).into_owned(),
        Change::Delete(key) => format!("{key} is gone"),
    }
}
