//! A whole backend of a store of keys, used through the handle.

use std::sync::Arc;
use std::time::Duration;

use discovery_core::adapter::{Simple, Stored, Tag, name_of};
use discovery_core::backend::Backend;
use discovery_core::{
    Discovery, ErrorKind, ExecutorKind, Freshness, InstanceId, Key, Path, Query, Record, RegistrationState, Result,
    ViewChange,
};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, timeout};

use crate::toy::{Road, Toy};

const SOON: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Worker {
    pool: String,
    address: String,
}

impl Record for Worker {
    const KIND: &'static str = "worker";

    fn path(&self) -> Result<Path> {
        Path::new(Self::KIND, [&self.pool])
    }
}

fn worker(address: &str) -> Worker {
    Worker { pool: "a".to_owned(), address: address.to_owned() }
}

fn backend(toy: &Toy) -> Arc<dyn Backend> {
    Arc::new(Simple::new("toy", toy.clone()))
}

async fn handle(toy: &Toy) -> Discovery {
    let builder = Discovery::builder().with_backend(backend(toy)).executor(ExecutorKind::Current);
    builder.ttl(Duration::from_secs(5)).build().await.expect("a handle")
}

async fn addresses(discovery: &Discovery) -> Vec<String> {
    let listed = discovery.list::<Worker>(Query::all()).await.expect("a list");
    listed.iter().map(|worker| worker.address.clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn registrations_are_listed_seen_changed_and_leave() {
    let toy = Toy::new();
    let (owner, reader) = (handle(&toy.other_road()).await, handle(&toy.other_road()).await);
    let view = reader.view::<Worker>(Query::path(["a"])).await.expect("a view");
    let mut changes = view.changes();
    assert!(changes.next().await.expect("a batch").changes().is_empty());

    let mine = owner.register(worker("one")).await.expect("registered");
    assert_eq!(addresses(&reader).await, ["one"]);
    view.reached(&mine.stamp()).await.expect("reached");
    assert_eq!(view.load().len(), 1);
    assert!(matches!(changes.next().await.expect("a batch").changes(), [ViewChange::Added(_)]));
    mine.update(worker("two")).await.expect("updated");
    assert!(matches!(changes.next().await.expect("a batch").changes(), [ViewChange::Updated { .. }]));

    // Withdrawn and registered again between two lists: a new incarnation of an equal record.
    mine.deregister().await.expect("deregistered");
    let mine = owner.register(worker("two")).await.expect("registered");
    let batch = changes.next().await.expect("a batch");
    assert!(matches!(batch.changes(), [ViewChange::Removed(_), ViewChange::Added(_)]), "{batch:?}");

    let report = owner.shutdown(SOON).await;
    assert!(report.is_clean(), "{report:?}");
    drop(mine);
    assert!(matches!(changes.next().await.expect("a batch").changes(), [ViewChange::Removed(_)]));
    assert!(reader.shutdown(SOON).await.is_clean());
}

#[tokio::test(start_paused = true)]
async fn an_owner_that_is_cut_off_goes_and_is_back_afterwards() {
    let toy = Toy::new();
    let road = toy.other_road();
    let (owner, reader) = (handle(&road).await, handle(&toy).await);
    let view = reader.view::<Worker>(Query::all()).await.expect("a view");
    let mut changes = view.changes();
    changes.next().await.expect("a batch");
    let mine = owner.register(worker("one")).await.expect("registered");
    changes.next().await.expect("added");
    road.set_road(Road::Closed);
    let gone = timeout(SOON, changes.next()).await.expect("in time").expect("a batch");
    assert!(matches!(gone.changes(), [ViewChange::Removed(_)]), "{gone:?}");
    timeout(SOON, mine.wait_for(|state| matches!(state, RegistrationState::Lost(_)))).await.expect("lost");
    road.set_road(Road::Clear);
    let back = timeout(SOON, changes.next()).await.expect("in time").expect("a batch");
    assert!(matches!(back.changes(), [ViewChange::Added(_)]), "{back:?}");
    mine.wait_for(RegistrationState::is_registered).await;
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_cut_off_is_stale_and_heals() {
    let toy = Toy::new();
    let road = toy.other_road();
    let (owner, reader) = (handle(&toy).await, handle(&road).await);
    let _mine = owner.register(worker("one")).await.expect("registered");
    let view = reader.view::<Worker>(Query::all()).await.expect("a view");
    let mut changes = view.changes();
    changes.next().await.expect("a batch");
    road.set_road(Road::Closed);
    let stale = timeout(SOON, changes.next()).await.expect("in time").expect("a batch");
    assert!(stale.changes().is_empty() && matches!(stale.freshness(), Freshness::Stale { .. }), "{stale:?}");
    assert_eq!(view.load().len(), 1);
    road.set_road(Road::Clear);
    let live = timeout(SOON, changes.next()).await.expect("in time").expect("a batch");
    assert!(live.changes().is_empty() && live.freshness().is_live(), "{live:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_whose_lists_are_slow_is_not_taken_for_dead() {
    let toy = Toy::new();
    let (owner, reader) = (handle(&toy).await, handle(&toy).await);
    let _mine = owner.register(worker("one")).await.expect("registered");
    toy.set_slow(Duration::from_secs(4));
    let view = reader.view::<Worker>(Query::all()).await.expect("a view");
    let mut changes = view.changes();
    assert!(changes.next().await.expect("a batch").freshness().is_live());
    let next = timeout(SOON * 10, changes.next()).await;
    assert!(next.is_err(), "nothing happens, and nobody is told otherwise: {next:?}");

    // Without an answer at all it is.
    toy.set_slow(SOON * 1000);
    let stale = timeout(SOON, changes.next()).await.expect("in time").expect("a batch");
    assert!(stale.changes().is_empty() && matches!(stale.freshness(), Freshness::Stale { .. }), "{stale:?}");
}

#[tokio::test(start_paused = true)]
async fn records_that_others_deleted_or_overwrote_are_put_back() {
    let toy = Toy::new();
    let (owner, reader) = (handle(&toy).await, handle(&toy).await);
    let mine = owner.register(worker("one")).await.expect("registered");
    let name = name_of(mine.key());
    let garbage = Stored { tag: Tag(1), document: "garbage".into() };
    for damage in [None, Some(garbage)] {
        match damage {
            None => toy.remove(&name),
            Some(stored) => toy.overwrite(&name, stored),
        }
        assert!(addresses(&reader).await.is_empty());
        let back = async {
            while addresses(&reader).await != ["one"] {
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(SOON, back).await.expect("back");
    }
}

#[tokio::test(start_paused = true)]
async fn a_proven_loss_of_data_is_bridged_where_the_reader_asks_for_it() {
    let toy = Toy::new();
    let owner = handle(&toy).await;
    let builder = Discovery::builder().with_backend(backend(&toy)).executor(ExecutorKind::Current);
    let reader = builder.resync_grace(SOON).build().await.expect("a handle");
    let mine = owner.register(worker("one")).await.expect("registered");
    let view = reader.view::<Worker>(Query::all()).await.expect("a view");
    let mut changes = view.changes();
    changes.next().await.expect("a batch");
    toy.lose_data();
    timeout(SOON / 2, async {
        while addresses(&owner).await != ["one"] {
            sleep(Duration::from_millis(100)).await;
        }
    })
    .await
    .expect("put back");
    view.reached(&mine.stamp()).await.expect("reached");
    assert!(timeout(SOON * 2, changes.next()).await.is_err(), "nobody saw it leave");
    assert_eq!(view.load().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_the_store_cannot_hold_is_refused_before_it_is_asked() {
    let toy = Toy::new();
    let backend = backend(&toy);
    let key = |segment: &str| Key::new(Path::new("worker", [segment]).expect("a path"), InstanceId(1));
    backend.admit(&key("a"), 1 << 20).expect("fits");
    let error = backend.admit(&key("a"), (1 << 20) + 1).expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let error = backend.admit(&key(&"a".repeat(1 << 10)), 1).expect_err("too long");
    assert_eq!(error.kind(), ErrorKind::InvalidKey);
    assert!(backend.health().await.expect("healthy").detail.contains("toy"));
}
