//! Registrations.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use discovery_core::{ErrorKind, ExecutorKind, Key, Query, Record, RegistrationState, Result, ViewChange};
use discovery_memory::Cluster;
use serde::{Deserialize, Serialize};

use crate::{Worker, builder, handle, worker};

const LONG: Duration = Duration::from_secs(10);

#[tokio::test(start_paused = true)]
async fn a_dropped_guard_withdraws_in_the_background() {
    let cluster = Cluster::new();
    let owner = handle(&cluster.connect()).await;
    let watcher = handle(&cluster.connect()).await;
    let view = watcher.view::<Worker>(Query::all()).await.expect("a view");
    let mut changes = view.changes();
    changes.next().await.expect("the first batch");
    let first = owner.register(worker("a", 1)).await.expect("registered");
    let again = owner.register(worker("a", 1)).await.expect("an equal record again is silent");
    assert_eq!(changes.next().await.expect("a batch").changes().len(), 1);
    drop(first);
    let probe = owner.register(worker("b", 1)).await.expect("registered");
    let batch = changes.next().await.expect("a batch");
    assert!(matches!(batch.changes(), [ViewChange::Added(w)] if w.pool == "b"), "one guard is left: {batch:?}");
    drop(again);
    let batch = changes.next().await.expect("a batch");
    assert!(matches!(batch.changes(), [ViewChange::Removed(w)] if w.pool == "a"), "{batch:?}");
    drop(probe);
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_is_given_up_leaves_nothing() {
    let cluster = Cluster::new();
    let backend = cluster.connect();
    let owner = handle(&backend).await;
    let kept = owner.register(worker("kept", 1)).await.expect("registered");
    backend.link().delay_writes(Duration::from_secs(1));
    let given_up = tokio::time::timeout(Duration::from_millis(100), owner.register(worker("a", 1))).await;
    assert!(given_up.is_err());
    backend.link().heal();
    let watcher = handle(&cluster.connect()).await;
    let view = watcher.view::<Worker>(Query::all()).await.expect("a view");
    tokio::time::timeout(LONG, async {
        let mut changes = view.changes();
        while changes.next().await.is_some() {
            if view.load().len() == 1 && cluster.records().len() == 1 {
                break;
            }
        }
    })
    .await
    .expect("only what was kept is left");
    tokio::time::sleep(LONG).await;
    assert_eq!(cluster.records().len(), 1);
    assert!(kept.state().is_registered());
}

#[tokio::test(start_paused = true)]
async fn an_update_that_is_refused_keeps_the_value_before() {
    let cluster = Cluster::new();
    let backend = cluster.connect();
    let owner = handle(&backend).await;
    let mine = owner.register(worker("a", 1)).await.expect("registered");
    backend.link().deny();
    let error = mine.update(worker("a", 2)).await.expect_err("denied");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    backend.link().heal();
    assert_eq!(mine.value().load, 1);
    let listed = owner.list::<Worker>(Query::all()).await.expect("a list");
    assert_eq!(listed.nth(0).expect("the record").load, 1);
    let error = mine.update(worker("b", 2)).await.expect_err("another key");
    assert_eq!(error.kind(), ErrorKind::InvalidKey);
    mine.update(worker("a", 3)).await.expect("updated");
    assert_eq!(owner.list::<Worker>(Query::all()).await.expect("a list").nth(0).expect("the record").load, 3);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_one_transaction_through_failures() {
    let cluster = Cluster::new();
    let backend = cluster.connect();
    let owner = handle(&backend).await;
    let watcher = handle(&cluster.connect()).await;
    let view = watcher.view::<Worker>(Query::all()).await.expect("a view");
    let mut changes = view.changes();
    changes.next().await.expect("the first batch");
    owner.instance_id().await.expect("a session");
    backend.link().cut();
    let link = backend.clone();
    let heal = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        link.link().heal();
    };
    let records = (0..50).map(|n| worker(&format!("w{n}"), n)).collect();
    let (registered, ()) = tokio::join!(owner.register_all(records), heal);
    let registered = registered.expect("registered");
    assert_eq!(registered.len(), 50);
    assert_eq!(changes.next().await.expect("a batch").changes().len(), 50, "one batch");
    let max = owner.bounds().max_batch;
    let error = owner
        .register_all((0..=max).map(|n| worker(&format!("x{n}"), 0)).collect::<Vec<_>>())
        .await
        .expect_err("above the declared batch");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
}

#[tokio::test(start_paused = true)]
async fn shutdown_names_what_it_could_not_withdraw() {
    let cluster = Cluster::new();
    let backend = cluster.connect();
    let owner = handle(&backend).await;
    let mine = owner.register(worker("a", 1)).await.expect("registered");
    backend.link().cut();
    let report = owner.shutdown(Duration::from_secs(1)).await;
    assert_eq!(report.not_withdrawn, [mine.key().clone()]);
    assert!(report.joined && !report.is_clean(), "{report:?}");
    assert!(matches!(mine.state(), RegistrationState::Withdrawn));
    let error = owner.register(worker("b", 1)).await.expect_err("closed");
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[test]
fn renewals_go_on_while_the_users_runtime_is_blocked() {
    let cluster = Cluster::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let backend = cluster.connect_with_ttl(Duration::from_millis(300));
        let owner = builder(&backend).executor(ExecutorKind::Dedicated).build().await.expect("a handle");
        let mine = owner.register(worker("a", 1)).await.expect("registered");
        let revision = cluster.revision();
        // Blocks the only thread of this runtime for several times to live.
        std::thread::sleep(Duration::from_secs(1));
        assert!(mine.state().is_registered(), "{:?}", mine.state());
        assert_eq!(cluster.revision(), revision, "nothing expired, nothing was put back");
        assert!(owner.shutdown(LONG).await.is_clean());
        assert!(cluster.records().is_empty());
    });
}

#[test]
fn a_handle_works_without_any_runtime_of_the_user() {
    let cluster = Cluster::new();
    let backend = cluster.connect();
    let owner = block_on(builder(&backend).executor(ExecutorKind::Dedicated).build()).expect("a handle");
    let mine = block_on(owner.register(worker("a", 1))).expect("registered");
    let view = block_on(owner.view::<Worker>(Query::all())).expect("a view");
    assert_eq!(view.load().len(), 1);
    block_on(mine.deregister()).expect("deregistered");
    assert_eq!(block_on(owner.list::<Worker>(Query::all())).expect("a list").len(), 0);
}

/// The smallest executor: parks the thread until it is woken.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_handle_lives_as_long_as_what_was_made_from_it() {
    let cluster = Cluster::new();
    let backend = cluster.connect();
    let owner = handle(&backend).await;
    let mine = owner.register(worker("a", 1)).await.expect("registered");
    drop(owner);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.records().len(), 1, "the registration keeps its handle");
    drop(mine);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(cluster.records().is_empty(), "withdrawn, long before the time to live has passed");
}

/// Two of these at one path exclude each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Leader {
    term: u32,
}

static STRICT: AtomicBool = AtomicBool::new(true);

impl Record for Leader {
    const KIND: &'static str = "leader";

    fn path(&self) -> Result<discovery_core::Path> {
        discovery_core::Path::new(Self::KIND, ["only"])
    }

    fn neighbours(&self) -> Option<Query> {
        STRICT.load(Ordering::Relaxed).then(|| Query::path(["only"]))
    }

    fn check_beside(&self, other: &Self) -> Result<()> {
        let conflict = || discovery_core::Error::new(ErrorKind::Conflict, "there is another leader");
        if other.term == self.term { Err(conflict()) } else { Ok(()) }
    }

    fn check_update(&self, next: &Self) -> Result<()> {
        let refused = || discovery_core::Error::new(ErrorKind::Refused, "a term is for good: register again");
        if self == next { Ok(()) } else { Err(refused()) }
    }
}

#[tokio::test(start_paused = true)]
async fn neighbours_that_exclude_each_other_step_back() {
    let cluster = Cluster::new();
    let first = handle(&cluster.connect()).await;
    let second = handle(&cluster.connect()).await;
    let leader = first.register(Leader { term: 1 }).await.expect("registered");
    let error = second.register(Leader { term: 1 }).await.expect_err("excluded");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(cluster.records().len(), 1, "the loser leaves nothing");
    let error = leader.update(Leader { term: 2 }).await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Refused);
    let error = first.register(Leader { term: 2 }).await.expect_err("the same key, another value");
    assert_eq!(error.kind(), ErrorKind::Refused);
    leader.deregister().await.expect("deregistered");
    let (one, two) = tokio::join!(first.register(Leader { term: 3 }), second.register(Leader { term: 3 }));
    assert!(one.is_err() || two.is_err(), "never both");
    let stored: Vec<Key> = cluster.records().into_iter().map(|entry| entry.key).collect();
    assert_eq!(stored.len(), usize::from(one.is_ok()) + usize::from(two.is_ok()), "{stored:?}");
}

#[tokio::test(start_paused = true)]
async fn a_withdrawn_record_that_a_restored_store_brings_back_is_removed_again() {
    let cluster = Cluster::new();
    let owner = handle(&cluster.connect()).await;
    let kept = owner.register(worker("kept", 1)).await.expect("registered");
    let gone = owner.register(worker("gone", 1)).await.expect("registered");
    gone.deregister().await.expect("deregistered");
    cluster.roll_back(1);
    assert_eq!(cluster.records().len(), 2, "the store went back in time");
    tokio::time::timeout(LONG, cluster.wait_until(|cluster| cluster.record_count() == 1)).await.expect("removed again");
    assert_eq!(cluster.records()[0].key, *kept.key());
}
