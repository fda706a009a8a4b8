//! Sessions that are lost, follow each other, and write late.

mod common;

use std::time::Duration;

use common::*;
use discovery_core::backend::{Backend, Change, Drift, Registrar, SessionRequest, Watcher};
use discovery_core::{Discovery, Effect, ErrorKind, ExecutorKind, InstanceId, Key, Path};
use discovery_testbed::{Direction, Etcd, Proxy};

async fn revoke(etcd: &Etcd, lease: u64) {
    etcd.ctl(["lease", "revoke", &format!("{lease:x}")]).await.unwrap();
}

/// The lease of a stored key, as etcd's own client sees it.
async fn lease_of(etcd: &Etcd, stored: &str) -> u64 {
    let fields = etcd.ctl(["get", "--write-out=fields", stored]).await.unwrap();
    fields.lines().find_map(|line| line.strip_prefix("\"Lease\" : ")).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_revoked_lease_is_followed_by_another_under_the_same_id() {
    let etcd = Etcd::start().await.unwrap();
    let backend = backend(&etcd.endpoint()).await;
    let first = session(&backend).await;
    let id = first.id();
    put(&*first, &key(id.0), "1").await.unwrap();
    first.renew().await.unwrap();
    revoke(&etcd, id.0).await;
    assert!(listed(&backend, &endpoints()).await.is_empty());
    assert_eq!(within("a loss", first.renew()).await.unwrap_err().kind(), ErrorKind::SessionLost);
    assert_eq!(within("the loss to be told", first.lost()).await.kind(), ErrorKind::SessionLost);
    assert_eq!(put(&*first, &key(id.0), "late").await.unwrap_err().kind(), ErrorKind::SessionLost);
    assert_eq!(first.verify(&desired([(key(id.0), "1")])).await.unwrap_err().kind(), ErrorKind::SessionLost);

    let second = session_again(&backend, id).await;
    assert_eq!(second.id(), id);
    assert_eq!(second.verify(&desired([(key(id.0), "1")])).await.unwrap().len(), 1);
    put(&*second, &key(id.0), "1").await.unwrap();
    assert!(second.verify(&desired([(key(id.0), "1")])).await.unwrap().is_empty());
    assert_ne!(lease_of(&etcd, &stored(id.0)).await, id.0);
    // Closing the one that is gone takes nothing.
    first.close().await.unwrap();
    assert_eq!(listed(&backend, &endpoints()).await, desired([(key(id.0), "1")]));
}

#[tokio::test]
async fn each_call_finds_a_revoked_lease() {
    let etcd = Etcd::start().await.unwrap();
    let backend = backend(&etcd.endpoint()).await;
    let request = SessionRequest::default();
    let first = backend.open(&request).await.unwrap();
    revoke(&etcd, first.id().0).await;
    let error = put(&*first, &key(1), "1").await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::SessionLost, Effect::None));
    let second = backend.open(&request).await.unwrap();
    revoke(&etcd, second.id().0).await;
    assert_eq!(second.verify(&desired([(key(1), "1")])).await.unwrap_err().kind(), ErrorKind::SessionLost);
    let third = backend.open(&request).await.unwrap();
    revoke(&etcd, third.id().0).await;
    let atomic = publish(&*third, vec![put_of(&key(1), "1"), put_of(&key(2), "2")], true).await;
    assert!(atomic.into_iter().all(|result| result.unwrap_err().kind() == ErrorKind::SessionLost));
    assert!(listed(&backend, &endpoints()).await.is_empty());
}

#[tokio::test]
async fn a_record_moves_to_the_next_lease_without_a_gap() {
    let etcd = Etcd::start().await.unwrap();
    let (owner, reader) = (backend(&etcd.endpoint()).await, backend(&etcd.endpoint()).await);
    let first = session(&owner).await;
    let id = first.id();
    for record in 1..=3 {
        put(&*first, &key(record), "1").await.unwrap();
    }
    let mut fold = Fold::open(&reader, &endpoints(), None).await;
    let second = session_again(&owner, id).await;
    // One alone, one in a transaction, and one that is withdrawn.
    put(&*second, &key(1), "2").await.unwrap();
    publish(&*second, vec![put_of(&key(2), "2")], true).await.remove(0).unwrap();
    delete(&*second, &key(3)).await.unwrap();
    // What is left of the first session has no effect.
    assert_eq!(put(&*first, &key(1), "late").await.unwrap_err().kind(), ErrorKind::SessionLost);
    assert_eq!(first.renew().await.unwrap_err().kind(), ErrorKind::SessionLost);
    revoke(&etcd, id.0).await;
    put(&*second, &key(4), "2").await.unwrap();
    fold.until("the end", |fold| fold.entries.contains_key(&key(4))).await;
    assert_eq!(fold.values(), desired([(key(1), "2"), (key(2), "2"), (key(4), "2")]));
    let deleted: Vec<_> = fold.batches.iter().flatten().filter(|change| matches!(change, Change::Delete(_))).collect();
    assert!(matches!(deleted.as_slice(), [Change::Delete(gone)] if *gone == key(3)), "{deleted:?}");
}

#[tokio::test]
async fn what_another_handle_holds_is_a_conflict_until_its_lease_ends() {
    let etcd = Etcd::start().await.unwrap();
    let (one, two) = (backend(&etcd.endpoint()).await, backend(&etcd.endpoint()).await);
    let (first, second) = (session(&one).await, session(&two).await);
    put(&*first, &key(1), "1").await.unwrap();
    let error = put(&*second, &key(1), "2").await.unwrap_err();
    assert_eq!((error.kind(), error.effect(), error.is_temporary()), (ErrorKind::Conflict, Effect::None, false));
    assert!(error.key() == Some(&key(1)), "{error}");
    first.close().await.unwrap();
    put(&*second, &key(1), "2").await.unwrap();
}

/// A worker that was stopped beyond its time to live, and its replacement.
#[tokio::test]
async fn two_handles_under_one_instance_id_never_share_a_lease() {
    let etcd = Etcd::start().await.unwrap();
    let (stopped, replacement) = (backend(&etcd.endpoint()).await, backend(&etcd.endpoint()).await);
    let id = Some(InstanceId(7));
    let short = SessionRequest::new(Some(Duration::from_secs(2)), id);
    let first = stopped.open(&short).await.unwrap();
    put(&*first, &key(7), "1").await.unwrap();
    until("the lease to end", || async { listed(&replacement, &endpoints()).await.is_empty() }).await;
    let second = replacement.open(&SessionRequest::new(Some(Duration::from_secs(60)), id)).await.unwrap();
    put(&*second, &key(7), "2").await.unwrap();
    // The first one goes on.
    assert_eq!(within("a loss", first.renew()).await.unwrap_err().kind(), ErrorKind::SessionLost);
    let third = stopped.open(&short).await.unwrap();
    assert_eq!(put(&*third, &key(7), "3").await.unwrap_err().kind(), ErrorKind::Conflict);
    let drifts = third.verify(&desired([(key(7), "3")])).await.unwrap();
    assert!(matches!(&drifts[..], [(_, Drift::Taken(_))]), "{drifts:?}");
    delete(&*third, &key(7)).await.unwrap();
    first.close().await.unwrap();
    third.close().await.unwrap();
    assert_eq!(listed(&replacement, &endpoints()).await, desired([(key(7), "2")]));
    assert!(second.verify(&desired([(key(7), "2")])).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_creation_that_arrives_late_does_not_bring_a_withdrawn_record_back() {
    let etcd = Etcd::start().await.unwrap();
    let slow = Proxy::to_port(etcd.port()).unwrap();
    let backend = with_first(&format!("http://{},{}", slow.address(), etcd.endpoint())).await;
    let session = session(&backend).await;
    let mut witness = etcd_client::Client::connect([behind([&slow])], None).await.unwrap();
    let mut fold = Fold::open(&common::backend(&etcd.endpoint()).await, &endpoints(), None).await;
    slow.delay_only(Direction::ToServer, Duration::from_secs(5));
    let error = put(&*session, &key(1), "late").await.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown, "{error}");
    // Sent two seconds later, with as long a way: once this is answered, the write has arrived.
    let arrived = witness.get("v1/", None);
    let meanwhile = async {
        // By now the other endpoint is used.
        put(&*session, &key(1), "1").await.unwrap();
        delete(&*session, &key(1)).await.unwrap();
    };
    let (arrived, ()) = tokio::join!(within("the late write to arrive", arrived), meanwhile);
    arrived.unwrap();
    let barrier = backend.barrier(&endpoints()).await.unwrap().unwrap();
    put(&*session, &key(2), "end").await.unwrap();
    fold.until("the end", |fold| fold.entries.contains_key(&key(2))).await;
    assert!(backend.reached(fold.position.as_ref().unwrap(), &barrier));
    assert_eq!(fold.values(), desired([(key(2), "end")]));
    assert_eq!(fold.batches.concat().len(), 3, "{:?}", fold.batches);
}

/// What a publish on the way to the fence may fail at.
enum Hindrance {
    /// The fence cannot be written.
    Network,
    /// Nothing is sent, for one of the writes cannot be.
    Refusal,
}

/// One write is on its way for eight seconds, and the next publish fails before it writes anything. What is written then must
/// stay, when the first one arrives.
async fn a_late_write_has_no_effect_after(hindrance: Hindrance) {
    const UNDER_WAY: Duration = Duration::from_secs(8);
    let etcd = Etcd::start().await.unwrap();
    let (slow, other) = (Proxy::to_port(etcd.port()).unwrap(), Proxy::to_port(etcd.port()).unwrap());
    let backend = with_first(&behind([&slow, &other])).await;
    let session = backend.open(&SessionRequest::new(Some(Duration::from_secs(60)), None)).await.unwrap();
    put(&*session, &key(1), "first").await.unwrap();
    let mut witness = etcd_client::Client::connect([behind([&slow])], None).await.unwrap();
    slow.delay_only(Direction::ToServer, UNDER_WAY);
    let error = put(&*session, &key(1), "late").await.unwrap_err();
    assert_eq!(error.effect(), Effect::Unknown, "{error}");
    // Sent two seconds later, with as long a way: once this is answered, the write has arrived.
    let arrived = witness.get("v1/", None);
    let meanwhile = async {
        match hindrance {
            Hindrance::Network => {
                other.cut();
                let error = put(&*session, &key(1), "lost").await.unwrap_err();
                assert_eq!(error.effect(), Effect::None, "{error}");
                other.heal();
            }
            Hindrance::Refusal => {
                let long = Key::new(Path::new("endpoint", ["x".repeat(5_000)]).unwrap(), InstanceId(1));
                for result in publish(&*session, vec![put_of(&key(1), "lost"), put_of(&long, "lost")], true).await {
                    assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidKey);
                }
            }
        }
        // A network that heals need not accept connections at once.
        until("the next write", || async { put(&*session, &key(1), "new").await.is_ok() }).await;
    };
    let (arrived, ()) = tokio::join!(within("the late write to arrive", arrived), meanwhile);
    arrived.unwrap();
    assert_eq!(listed(&common::backend(&etcd.endpoint()).await, &endpoints()).await, desired([(key(1), "new")]));
}

#[tokio::test]
async fn a_fence_that_could_not_be_written_is_written_before_anything_else() {
    a_late_write_has_no_effect_after(Hindrance::Network).await;
}

#[tokio::test]
async fn a_batch_that_is_refused_before_it_is_sent_settles_nothing() {
    a_late_write_has_no_effect_after(Hindrance::Refusal).await;
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_is_found_and_written_again() {
    let etcd = Etcd::start().await.unwrap();
    let (network, backend) = backend_behind_a_network(&etcd).await;
    let session = session(&backend).await;
    network.stall_only(Direction::ToClient);
    let error = put(&*session, &key(1), "1").await.unwrap_err();
    assert_eq!((error.effect(), error.is_temporary()), (Effect::Unknown, true), "{error}");
    network.reset();
    network.heal();
    until("the store to answer", || async { put(&*session, &key(1), "2").await.is_ok() }).await;
    assert_eq!(listed(&backend, &endpoints()).await, desired([(key(1), "2")]));
    assert!(session.verify(&desired([(key(1), "2")])).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_silent_connection_is_found_by_renewals_and_left() {
    let etcd = Etcd::start().await.unwrap();
    let (network, backend) = backend_behind_a_network(&etcd).await;
    let session = session(&backend).await;
    session.renew().await.unwrap();
    network.stall();
    let start = std::time::Instant::now();
    let error = session.renew().await.unwrap_err();
    assert!(error.is_temporary() && start.elapsed() < backend.bounds().recovery, "{error} {:?}", start.elapsed());
    network.heal();
    until("a renewal", || async { session.renew().await.is_ok() }).await;
}

#[tokio::test]
async fn a_fence_that_is_gone_is_made_again() {
    let etcd = Etcd::start().await.unwrap();
    let backend = backend(&etcd.endpoint()).await;
    let session = session(&backend).await;
    put(&*session, &key(1), "1").await.unwrap();
    etcd.ctl(["del", "--prefix", "v1/"]).await.unwrap();
    put(&*session, &key(2), "2").await.unwrap();
    etcd.ctl(["del", "--prefix", "v1/.fences/"]).await.unwrap();
    publish(&*session, vec![put_of(&key(1), "1"), put_of(&key(2), "3")], true)
        .await
        .into_iter()
        .for_each(|result| drop(result.unwrap()));
    assert_eq!(listed(&backend, &endpoints()).await, desired([(key(1), "1"), (key(2), "3")]));
}

/// The answer to the grant is on its way for longer than that takes.
#[tokio::test]
async fn nothing_of_a_handle_goes_on_after_its_shutdown() {
    let etcd = Etcd::start().await.unwrap();
    let network = Proxy::to_port(etcd.port()).unwrap();
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = alive();
    let environment = environment(&behind([&network]));
    let building = Discovery::builder().environment(environment).backend("etcd").executor(ExecutorKind::Current);
    let handle = building.build().await.unwrap();
    handle.health().await.unwrap();
    network.stall_only(Direction::ToClient);
    tokio::time::timeout(Duration::from_millis(100), handle.instance_id()).await.unwrap_err();
    let report = handle.shutdown(Duration::from_secs(5)).await;
    assert!(report.is_clean(), "{report:?}");
    drop(handle);
    let ended = async {
        while alive() > before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    // A call may take twice that.
    tokio::time::timeout(Duration::from_secs(1), ended).await.expect("its last task ends with it");
}

/// The lease lives on: nothing else tells that what was withdrawn is there again.
#[tokio::test]
async fn what_a_backup_brings_back_is_found_by_the_first_verification() {
    for others in [&[1][..], &[]] {
        let etcd = Etcd::start().await.unwrap();
        let backend = backend(&etcd.endpoint()).await;
        let session = backend.open(&SessionRequest::new(Some(Duration::from_secs(60)), None)).await.unwrap();
        for id in others {
            put(&*session, &key(*id), "1").await.unwrap();
        }
        put(&*session, &key(2), "1").await.unwrap();
        let backup = tempfile::tempdir().unwrap();
        etcd.stop().await.unwrap();
        copy(&etcd.data(), backup.path());
        etcd.restart().await.unwrap();
        until("the withdrawal", || async { delete(&*session, &key(2)).await.is_ok() }).await;
        let wanted = desired(others.iter().map(|id| (key(*id), "1")));
        for _ in 0..2 {
            assert!(session.verify(&wanted).await.unwrap().is_empty());
        }
        etcd.kill().await.unwrap();
        std::fs::remove_dir_all(etcd.data()).unwrap();
        copy(backup.path(), &etcd.data());
        etcd.restart().await.unwrap();
        let verifying = async {
            loop {
                if let Ok(drifts) = session.verify(&wanted).await {
                    return drifts;
                }
            }
        };
        let drifts = within("a verification", verifying).await;
        assert!(matches!(&drifts[..], [(again, Drift::Unwanted)] if *again == key(2)), "{others:?}: {drifts:?}");
    }
}

#[tokio::test]
async fn a_closed_session_leaves_nothing_and_closes_twice() {
    let etcd = Etcd::start().await.unwrap();
    let backend = backend(&etcd.endpoint()).await;
    let session = session(&backend).await;
    put(&*session, &key(1), "1").await.unwrap();
    session.close().await.unwrap();
    session.close().await.unwrap();
    assert_eq!(etcd.ctl(["get", "--prefix", "", "--keys-only"]).await.unwrap().trim(), "");
    assert_eq!(etcd.ctl(["lease", "list"]).await.unwrap().lines().count(), 1);
}

/// The lease is granted and nobody hears of it; then it is known and not used yet.
#[tokio::test]
async fn a_session_that_is_given_up_while_it_opens_leaves_no_lease() {
    let etcd = Etcd::start().await.unwrap();
    let (network, backend) = backend_behind_a_network(&etcd).await;
    backend.health().await.unwrap();
    let direct = etcd_client::Client::connect([etcd.endpoint()], None).await.unwrap();
    let leases = || async { direct.lease_client().leases().await.unwrap().leases().len() };
    let fences = || async {
        let options = etcd_client::GetOptions::new().with_prefix().with_count_only();
        direct.kv_client().get("v1/.fences/", Some(options)).await.unwrap().count()
    };
    // Longer than anything here waits.
    let request = SessionRequest::new(Some(Duration::from_secs(3_600)), None);

    network.stall_only(Direction::ToClient);
    tokio::select! {
        opened = backend.open(&request) => panic!("no answer came: {:?}", opened.map(drop)),
        () = until("the lease", || async { leases().await == 1 }) => {}
    }
    network.heal();
    until("the lease that nobody heard of to go", || async { leases().await == 0 }).await;

    network.delay_only(Direction::ToClient, Duration::from_millis(500));
    tokio::select! {
        opened = backend.open(&request) => panic!("its last answer was on its way: {:?}", opened.map(drop)),
        () = until("the fence", || async { fences().await == 1 }) => {}
    }
    network.heal();
    until("the lease that was not used to go", || async { leases().await == 0 }).await;
    backend.open(&request).await.unwrap().close().await.unwrap();
}
