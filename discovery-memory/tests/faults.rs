//! Every fault hook.

mod common;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use common::{Fold, TTL, delete, failure, key, kind, open, open_as, put, scope, stored, write};
use discovery_core::backend::{
    Backend, ChangeLog, Desired, Drift, Lineage, Registrar, Session, SessionRequest, Watcher,
};
use discovery_core::{BackendContext, Registry};
use discovery_core::{Effect, Environment, ErrorKind, Scope, TaskScope};
use discovery_memory::{Cluster, MemoryBackend, Operation};
use futures_util::FutureExt;
use tokio::time::{Instant, advance, timeout};

const LONG: Duration = Duration::from_secs(1);

/// What every call answers, in a fixed order.
async fn every_call(backend: &MemoryBackend, session: &dyn Session) -> Vec<Option<ErrorKind>> {
    fn brief<T>(result: discovery_core::Result<T>) -> Option<ErrorKind> {
        result.err().map(|error| {
            assert_eq!((error.backend(), error.effect()), (Some("memory"), Effect::None));
            assert!(error.operation().is_some());
            error.kind()
        })
    }
    vec![
        brief(backend.watch(&Scope::all(), None).await),
        brief(backend.list(&Scope::all()).await),
        brief(backend.barrier(&Scope::all()).await),
        brief(backend.health().await),
        brief(ChangeLog::now(backend).await),
        brief(session.renew().await),
        brief(session.verify(&Desired::new()).await),
        brief(write(session, put(&key("call", 1), "1")).await),
    ]
}

struct Setting {
    cluster: Cluster,
    backend: MemoryBackend,
    session: Box<dyn Session>,
    other: MemoryBackend,
    fold: Fold,
}

async fn setting() -> Setting {
    let cluster = Cluster::new();
    let (backend, other) = (cluster.connect(), cluster.connect());
    let session = open_as(&backend, Some(1)).await;
    stored(&*session, put(&key("a", 1), "1")).await;
    let fold = Fold::open(&backend, &scope("a")).await;
    Setting { cluster, backend, session, other, fold }
}

#[tokio::test(start_paused = true)]
async fn a_cut_link_fails_until_healed_and_ends_streams() {
    let mut s = setting().await;
    s.backend.link().cut();
    let answers = every_call(&s.backend, &*s.session).await;
    assert_eq!(answers, vec![Some(ErrorKind::Unavailable); answers.len()]);
    let opened = s.backend.open(&SessionRequest::default()).await;
    assert_eq!(kind(opened.map(drop)), ErrorKind::Unavailable);
    assert!(s.session.lost().now_or_never().is_none());
    assert!(s.other.list(&Scope::all()).await.is_ok());
    s.backend.link().heal();
    assert!(every_call(&s.backend, &*s.session).await.iter().all(Option::is_none));
    assert_eq!(kind(s.fold.step().await), ErrorKind::Unavailable);
    assert!(s.fold.ended().await);
    let after = s.fold.position.take();
    let fold = Fold::open_after(&s.backend, &scope("a"), after.as_ref()).await;
    assert_eq!(fold.resumed, 1);
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_a_stream_that_waits() {
    let Setting { backend, mut fold, .. } = setting().await;
    let (item, ()) = tokio::join!(fold.step(), async {
        tokio::task::yield_now().await;
        backend.link().cut();
    });
    assert_eq!(kind(item), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_half_open_link_says_nothing_and_goes_on_when_healed() {
    let mut s = setting().await;
    s.backend.link().half_open();
    stored(&*open(&s.other).await, put(&key("a", 2), "1")).await;
    assert!(timeout(LONG, s.fold.step()).await.is_err());
    assert!(timeout(LONG, s.session.renew()).await.is_err());
    assert!(timeout(LONG, write(&*s.session, put(&key("a", 1), "2"))).await.is_err());
    assert!(timeout(LONG / 2, s.backend.list(&Scope::all())).await.is_err());
    let (renewed, ()) = tokio::join!(timeout(LONG / 4, s.session.renew()), async {
        tokio::task::yield_now().await;
        s.backend.link().heal();
    });
    // The session expired meanwhile: what hung was never sent.
    assert_eq!(kind(renewed.expect("an answer")), ErrorKind::SessionLost);
    s.fold.until(|fold| fold.batches.len() == 2).await;
    assert_eq!(s.fold.batches, [vec!["+a/2=1"], vec!["-a/1"]]);
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_added_to_each_call() {
    let s = setting().await;
    s.backend.link().delay(Duration::from_millis(70));
    let start = Instant::now();
    let answers = every_call(&s.backend, &*s.session).await;
    assert!(answers.iter().all(Option::is_none));
    assert_eq!(start.elapsed(), Duration::from_millis(70) * answers.len() as u32);
    // A link that breaks meanwhile fails the call.
    let everything = Scope::all();
    let (listed, ()) = tokio::join!(s.backend.list(&everything), async {
        tokio::task::yield_now().await;
        s.backend.link().cut();
    });
    assert_eq!(kind(listed), ErrorKind::Unavailable);
    s.backend.link().heal();
    assert!(s.backend.list(&Scope::all()).now_or_never().is_some());
}

#[tokio::test(start_paused = true)]
async fn denied_means_permission_denied() {
    let mut s = setting().await;
    s.backend.link().deny();
    let answers = every_call(&s.backend, &*s.session).await;
    assert_eq!(answers, vec![Some(ErrorKind::PermissionDenied); answers.len()]);
    assert_eq!(kind(s.fold.step().await), ErrorKind::PermissionDenied);
    s.backend.link().heal();
    assert!(every_call(&s.backend, &*s.session).await.iter().all(Option::is_none));
}

#[tokio::test(start_paused = true)]
async fn lost_answers_leave_the_effect_unknown_and_done() {
    let s = setting().await;
    s.backend.link().drop_acks();
    for change in [put(&key("a", 1), "2"), delete(&key("a", 1)), put(&key("a", 3), "1")] {
        let before = s.cluster.revision();
        let error = failure(write(&*s.session, change).await);
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown));
        assert!(error.is_temporary());
        assert_eq!(s.cluster.revision(), before + 1);
    }
    s.session.renew().await.expect("only writes are not answered");
    let error = failure(s.session.close().await);
    assert_eq!(error.effect(), Effect::Unknown);
    assert_eq!((s.cluster.record_count(), s.cluster.session_count()), (0, 0));
    s.backend.link().heal();
    s.session.close().await.expect("closed");
}

#[tokio::test(start_paused = true)]
async fn a_late_write_arrives_after_its_caller_gave_up() {
    let mut s = setting().await;
    s.backend.link().delay_writes(LONG);
    let start = Instant::now();
    stored(&*s.session, put(&key("a", 1), "2")).await;
    assert_eq!(start.elapsed(), LONG);
    let given_up = timeout(LONG / 4, write(&*s.session, put(&key("a", 1), "3"))).await;
    assert!(given_up.is_err());
    s.fold.until(|fold| fold.batches.len() == 2).await;
    assert_eq!(s.fold.batches, [["+a/1=2"], ["+a/1=3"]]);
    assert_eq!(start.elapsed(), 2 * LONG);
}

#[tokio::test(start_paused = true)]
async fn a_late_write_is_fenced_by_its_session_and_by_newer_writes() {
    let s = setting().await;
    let late = |change| async {
        s.backend.link().delay_writes(LONG);
        assert!(timeout(LONG / 4, write(&*s.session, change)).await.is_err());
        s.backend.link().heal();
    };
    // Deregister, give up, register again: the late deletion must not undo it.
    late(delete(&key("a", 1))).await;
    stored(&*s.session, put(&key("a", 1), "2")).await;
    advance(LONG).await;
    assert_eq!(s.cluster.records()[0].value, Bytes::from("2"));
    // The same across sessions.
    late(delete(&key("a", 1))).await;
    let second = open(&s.backend).await;
    stored(&*second, put(&key("a", 1), "3")).await;
    advance(LONG).await;
    assert_eq!(s.cluster.records()[0].value, Bytes::from("3"));
    // And after the end of a session.
    s.backend.link().delay_writes(LONG);
    let (result, ()) = tokio::join!(write(&*second, put(&key("a", 2), "1")), async {
        tokio::task::yield_now().await;
        assert_eq!(s.cluster.revoke_handle(&s.backend), 2);
    });
    let error = failure(result);
    assert_eq!((error.kind(), error.effect()), (ErrorKind::SessionLost, Effect::None));
    assert_eq!(s.cluster.record_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_everybodys_and_time_goes_on() {
    let mut s = setting().await;
    s.cluster.outage();
    let answers = every_call(&s.backend, &*s.session).await;
    assert_eq!(answers, vec![Some(ErrorKind::Unavailable); answers.len()]);
    assert_eq!(kind(s.other.list(&Scope::all()).await), ErrorKind::Unavailable);
    assert_eq!(kind(s.fold.step().await), ErrorKind::Unavailable);
    assert!(timeout(2 * TTL, s.session.lost()).await.is_err(), "nobody can have told");
    s.cluster.restore();
    assert_eq!(s.session.lost().await.kind(), ErrorKind::SessionLost);
    assert_eq!(s.cluster.record_count(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_breaks_connections_and_refreshes_leases() {
    let mut s = setting().await;
    advance(TTL - Duration::from_millis(1)).await;
    s.cluster.change_leader();
    assert_eq!(kind(s.fold.step().await), ErrorKind::Unavailable);
    let mut fold = Fold::open_after(&s.backend, &scope("a"), s.fold.position.as_ref()).await;
    let start = Instant::now();
    assert_eq!(fold.batch().await, ["-a/1"]);
    assert_eq!(start.elapsed(), TTL);
}

#[tokio::test(start_paused = true)]
async fn a_lost_member_breaks_the_connections_to_it_alone() {
    let cluster = Cluster::builder().members(3).build();
    assert!(cluster.connect().capabilities().cluster && !Cluster::new().connect().capabilities().cluster);
    let backends: Vec<_> = (0..3).map(|_| cluster.connect()).collect();
    let mut sessions = Vec::new();
    for (backend, id) in backends.iter().zip(1..) {
        let session = open_as(backend, Some(id)).await;
        stored(&*session, put(&key("a", id), "1")).await;
        sessions.push(session);
    }
    let mut folds = Vec::new();
    for backend in &backends {
        folds.push(Fold::open(backend, &scope("a")).await);
    }
    cluster.lose_member(&backends[0]);
    let broken = folds.iter_mut().filter_map(|fold| fold.ready()).filter(|event| event.is_err()).count();
    assert_eq!(broken, 1);
    for session in &sessions {
        session.renew().await.expect("another member answers");
    }
    assert_eq!(cluster.record_count(), 3);
    // One of three decides nothing.
    cluster.lose_member(&backends[0]);
    for session in &sessions {
        assert_eq!(kind(session.renew().await), ErrorKind::Unavailable);
    }
    cluster.restore_members();
    for session in &sessions {
        session.renew().await.expect("all members are back");
    }
}

#[tokio::test(start_paused = true)]
async fn the_only_member_does_not_die() {
    let s = setting().await;
    s.cluster.lose_member(&s.backend);
    s.session.renew().await.expect("it lives");
}

#[tokio::test(start_paused = true)]
async fn a_terminating_handle_is_invisible_for_good() {
    let cluster = Cluster::with_readiness();
    let (owner, reader) = (cluster.connect(), cluster.connect());
    cluster.set_ready(&owner, true);
    let session = open_as(&owner, Some(1)).await;
    stored(&*session, put(&key("a", 1), "1")).await;
    let mut fold = Fold::open(&reader, &scope("a")).await;
    cluster.terminate(&owner);
    assert_eq!(fold.batch().await, ["-a/1"]);
    cluster.set_ready(&owner, false);
    cluster.set_ready(&owner, true);
    let at = stored(&*session, put(&key("a", 1), "2")).await;
    fold.reach(&reader, &at).await;
    assert!(fold.records.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_record_in_the_name_of_a_ready_owner_is_not_its_own() {
    let cluster = Cluster::with_readiness();
    let (owner, reader) = (cluster.connect(), cluster.connect());
    cluster.set_ready(&owner, true);
    let session = open_as(&owner, Some(1)).await;
    cluster.impersonate(&key("a", 1), "1");
    let at = stored(&*session, put(&key("b", 1), "1")).await;
    let mut fold = Fold::open(&reader, &Scope::all()).await;
    fold.reach(&reader, &at).await;
    assert_eq!(fold.records.len(), 1);
    assert_eq!(kind(write(&*session, put(&key("a", 1), "2")).await), ErrorKind::Conflict);
    cluster.delete(&key("a", 1));
    stored(&*session, put(&key("a", 1), "2")).await;
    assert_eq!(fold.batch().await, ["+a/1=2"]);
}

#[tokio::test(start_paused = true)]
async fn a_crashed_process_is_silent_for_ever_and_expires() {
    let mut s = setting().await;
    s.cluster.crash(&s.backend);
    s.backend.link().heal();
    let answers = every_call(&s.backend, &*s.session).await;
    assert_eq!(answers, vec![Some(ErrorKind::Unavailable); answers.len()]);
    assert_eq!(kind(s.fold.step().await), ErrorKind::Unavailable);
    assert_eq!(kind(s.session.close().await), ErrorKind::Unavailable);
    let start = Instant::now();
    let mut watch = Fold::open(&s.other, &scope("a")).await;
    assert_eq!(watch.batch().await, ["-a/1"]);
    assert_eq!(start.elapsed(), TTL);
    assert!(timeout(LONG, s.session.lost()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_stopped_process_hangs_and_wakes_up_to_a_lost_session() {
    let mut s = setting().await;
    s.cluster.pause(&s.backend);
    s.backend.link().cut();
    assert!(timeout(2 * TTL, s.session.renew()).await.is_err());
    assert!(timeout(LONG, s.fold.step()).await.is_err());
    s.backend.link().heal();
    let (renewed, ()) = tokio::join!(s.session.renew(), async {
        tokio::task::yield_now().await;
        s.cluster.resume(&s.backend);
    });
    assert_eq!(kind(renewed), ErrorKind::SessionLost);
    assert_eq!(s.session.lost().await.kind(), ErrorKind::SessionLost);
    stored(&*open_as(&s.backend, Some(1)).await, put(&key("a", 1), "1")).await;
    assert_eq!(s.cluster.record_count(), 1);
}

#[tokio::test(start_paused = true)]
async fn lost_data_is_told_as_a_reset() {
    let mut s = setting().await;
    let before = s.fold.position.clone();
    let stamp = s.backend.barrier(&scope("a")).await.expect("an answer").expect("a position");
    s.cluster.lose_data();
    s.fold.until(|fold| fold.lineages.len() == 2 && fold.position != before).await;
    assert_eq!(s.fold.lineages[1], Lineage::Reset);
    assert!(s.fold.records.is_empty());
    assert!(s.backend.reached(s.fold.position.as_ref().expect("a position"), &stamp));
    assert!(!s.backend.reached(&stamp, s.fold.position.as_ref().expect("a position")));
    assert_eq!(s.session.lost().await.kind(), ErrorKind::SessionLost);
    assert_eq!(kind(write(&*s.session, put(&key("a", 1), "1")).await), ErrorKind::SessionLost);
    let fold = Fold::open_after(&s.backend, &scope("a"), before.as_ref()).await;
    assert_eq!(fold.lineages, [Lineage::Reset]);
    assert_eq!((s.cluster.record_count(), s.cluster.session_count()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn rolled_back_data_is_older_and_ends_with_its_owners() {
    let mut s = setting().await;
    let newer = open_as(&s.other, Some(2)).await;
    stored(&*newer, put(&key("a", 2), "1")).await;
    let kept = s.fold.incarnations.clone();
    for value in ["2", "3"] {
        stored(&*s.session, put(&key("a", 1), value)).await;
    }
    s.session.renew().await.expect("renewed");
    let latest = open_as(&s.cluster.connect(), Some(3)).await;
    stored(&*latest, put(&key("a", 3), "1")).await;
    newer.close().await.expect("closed");
    let revision = s.cluster.revision();

    // Takes back the closing, the third's record and the third value.
    s.cluster.roll_back(3);
    assert!(s.cluster.revision() > revision);
    s.fold.until(|fold| fold.lineages.len() == 2 && fold.records.len() == 2).await;
    assert_eq!(s.fold.lineages[1], Lineage::Reset);
    assert_eq!(s.fold.records[&key("a", 1)], "2");
    assert_eq!(s.fold.incarnations[&key("a", 1)], kept[&key("a", 1)]);
    assert_eq!(latest.lost().await.kind(), ErrorKind::SessionLost);
    assert_eq!(kind(write(&*newer, put(&key("a", 2), "2")).await), ErrorKind::SessionLost);
    let drift = s.session.verify(&Desired::from([(key("a", 1), Bytes::from("3"))])).await.expect("verified");
    assert!(matches!(&drift[..], [(_, Drift::Changed)]));
    stored(&*s.session, put(&key("a", 1), "3")).await;

    // The second one's record came back without anybody to renew it.
    advance(TTL / 2).await;
    s.session.renew().await.expect("renewed");
    advance(TTL / 2).await;
    assert_eq!((s.cluster.record_count(), s.cluster.session_count()), (1, 1));
    s.cluster.roll_back(1_000);
    assert_eq!(s.cluster.records().len(), 2, "no further than to the epoch's beginning");
}

#[tokio::test(start_paused = true)]
async fn foreign_entries_are_shown_and_taken_over_by_an_owner_that_writes_them() {
    let mut s = setting().await;
    s.cluster.inject(&key("a", 1), &b"\xff not json"[..]);
    assert_eq!(s.fold.batch().await.len(), 1);
    let before = s.fold.incarnations.clone();
    assert_eq!(s.cluster.owner_of(&key("a", 1)), None);
    s.session.close().await.expect("closed");
    assert_eq!(s.cluster.record_count(), 1, "it is nobody's");
    stored(&*open(&s.other).await, put(&key("a", 1), "1")).await;
    assert_eq!(s.fold.batch().await, ["+a/1=1"]);
    assert_eq!(s.fold.incarnations, before);
    assert_eq!(s.cluster.owner_of(&key("a", 1)), Some(s.other.owner()));
    s.cluster.delete(&key("a", 1));
    s.cluster.delete(&key("a", 1));
    assert_eq!(s.fold.batch().await, ["-a/1"]);
    assert_eq!(s.cluster.revision(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_condition_can_be_awaited() {
    let s = setting().await;
    let start = Instant::now();
    s.cluster.wait_until(|cluster| cluster.record_count() == 0).await;
    assert_eq!(start.elapsed(), TTL);
    let renewed = s.cluster.wait_until(|cluster| cluster.counters().calls_of(Operation::Renew) == 2);
    let (_, ()) = tokio::join!(renewed, async {
        for _ in 0..2 {
            let _ = s.session.renew().await;
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_closed_handle_stays_closed() {
    let mut s = setting().await;
    s.backend.close().await.expect("closed");
    s.backend.link().heal();
    let answers = every_call(&s.backend, &*s.session).await;
    assert_eq!(answers, vec![Some(ErrorKind::Closed); answers.len()]);
    assert_eq!(kind(s.fold.step().await), ErrorKind::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_handle_leaves_its_records_to_expire() {
    let Setting { cluster, backend, session, fold, other, .. } = setting().await;
    drop((backend, session, fold));
    assert_eq!(cluster.record_count(), 1);
    let start = Instant::now();
    assert_eq!(Fold::open(&other, &scope("a")).await.batch().await, ["-a/1"]);
    assert_eq!(start.elapsed(), TTL);
}

#[tokio::test]
async fn named_clusters_are_shared_while_something_holds_them() {
    let cluster = Cluster::named("faults-named");
    cluster.inject(&key("a", 1), "1");
    assert_eq!(Cluster::named("faults-named").record_count(), 1);
    assert_eq!(Cluster::named("faults-other").record_count(), 0);
    let handle = cluster.connect();
    drop(cluster);
    assert_eq!(Cluster::named("faults-named").record_count(), 1);
    drop(handle);
    assert_eq!(Cluster::named("faults-named").record_count(), 0);
}

#[tokio::test]
async fn the_factory_reads_its_environment() {
    let registry = Registry::linked();
    let connect = |name: &str, environment: Environment| {
        let factory = *registry.find(name).expect("linked in");
        (factory.connect)(BackendContext::new(environment, TaskScope::current()))
    };
    let empty = || Environment::from_iter::<[(&str, &str); 0]>([]);
    let settings = empty().with("DYN_DISCOVERY_MEMORY_CLUSTER", "factory").with("DYN_DISCOVERY_MEMORY_TTL", "2.5");
    let cluster = Cluster::named("factory");
    cluster.inject(&key("a", 1), "1");
    let backend = connect("memory", settings).await.expect("a backend");
    assert_eq!(backend.name(), "memory");
    assert_eq!(backend.bounds().default_ttl, Some(Duration::from_millis(2_500)));
    assert_eq!(backend.list(&Scope::all()).await.expect("a list").0.len(), 1);
    let health = backend.health().await.expect("healthy");
    assert!(health.detail.contains("\"factory\""), "{}", health.detail);
    let alias: Arc<dyn Backend> = connect("mem", empty()).await.expect("a backend");
    assert!(alias.list(&Scope::all()).await.expect("a list").0.is_empty());
    let wrong = connect("mem", empty().with("DYN_DISCOVERY_MEMORY_TTL", "soon")).await;
    assert_eq!(kind(wrong.map(drop)), ErrorKind::InvalidConfig);
    assert!(backend.capabilities().exclusive && !backend.capabilities().readiness);
    assert!(Cluster::with_readiness().connect().capabilities().readiness);
}
