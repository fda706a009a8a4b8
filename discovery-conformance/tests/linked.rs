//! The suite on a backend that it does not know, in a store that others use too.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use discovery_conformance::backends::Linked;
use discovery_conformance::{Factory, Item, Outcome, cases, claims, run};
use discovery_core::adapter::{KeyStore, Listing, Simple, Stored, Swap, Swapped};
use discovery_core::{BackendFactory, Discovery, Environment, ErrorKind, ExecutorKind, Query, Result};
use tokio::time::Instant;

/// Names a shelf of its own for each test.
const SHELF_VARIABLE: &str = "SHELF";

type Documents = BTreeMap<String, (Stored, Instant)>;

/// Every shelf there is.
static SHELVES: Mutex<BTreeMap<String, Documents>> = Mutex::new(BTreeMap::new());

fn shelves() -> MutexGuard<'static, BTreeMap<String, Documents>> {
    SHELVES.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Shelf(String);

impl Shelf {
    fn with<T>(&self, work: impl FnOnce(&mut Documents) -> T) -> T {
        let mut shelves = shelves();
        let documents = shelves.entry(self.0.clone()).or_default();
        documents.retain(|_, (_, until)| *until > Instant::now());
        work(documents)
    }
}

#[async_trait]
impl KeyStore for Shelf {
    async fn list(&self, prefix: &str) -> Result<Listing<(String, Stored)>> {
        let below = |documents: &mut Documents| {
            let below = documents.iter().filter(|(name, _)| name.starts_with(prefix));
            below.map(|(name, (stored, _))| (name.clone(), stored.clone())).collect::<Vec<_>>()
        };
        Ok(self.with(below).into())
    }

    async fn swap(&self, swaps: &[Swap], ttl: Duration) -> Result<Vec<Swapped>> {
        let until = Instant::now() + ttl;
        Ok(self.with(|documents| {
            let swap = |swap: &Swap| {
                let stands = documents.get(&swap.name).map(|(stored, _)| stored.clone());
                if stands.as_ref().map(|stored| stored.tag) != swap.expect {
                    return Swapped::Differs(stands);
                }
                if let Some(stored) = swap.put.clone().or(stands) {
                    documents.insert(swap.name.clone(), (stored, until));
                }
                Swapped::Done
            };
            swaps.iter().map(swap).collect()
        }))
    }

    async fn ping(&self) -> Result<String> {
        Ok("a shelf".to_owned())
    }
}

const FACTORY: BackendFactory =
    BackendFactory::new("shelf", env!("CARGO_PKG_NAME"), "a shelf in this process", |context| {
        Box::pin(async move {
            let name = context.environment.get(SHELF_VARIABLE)?.unwrap_or_default().to_owned();
            Ok(Arc::new(Simple::new("shelf", Shelf(name))) as _)
        })
    });

fn environment(shelf: &str) -> Environment {
    Environment::default().with(SHELF_VARIABLE, shelf)
}

/// What stands on the shelf and was not withdrawn: of that a trace stays for a while.
fn names(shelf: &str) -> Vec<String> {
    let standing = |documents: &mut Documents| {
        let live = documents.iter().filter(|(_, (stored, _))| !stored.document.ends_with(b" withdrawn\n"));
        live.map(|(name, _)| name.clone()).collect()
    };
    Shelf(shelf.to_owned()).with(standing)
}

/// Somebody else's handle on the shelf.
async fn stranger(shelf: &str) -> Discovery {
    let backend = Arc::new(Simple::new("shelf", Shelf(shelf.to_owned())));
    Discovery::builder().with_backend(backend).executor(ExecutorKind::Dedicated).build().await.unwrap()
}

#[test]
fn cases_see_their_world_alone_and_leave_nothing() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (discovery, theirs) = runtime.block_on(async {
        let discovery = stranger("shared").await;
        let theirs = discovery.register(Item::at(["theirs"])).await.unwrap();
        (discovery, theirs)
    });
    let (before, mut changes) = runtime.block_on(async {
        let mut changes = discovery.view::<Item>(Query::path(["theirs"])).await.unwrap().changes();
        changes.next().await.unwrap();
        (names("shared"), changes)
    });
    assert_eq!(before.len(), 1);
    let factory = Linked::new(FACTORY, environment("shared"));
    let claims = claims(&factory).unwrap();
    let wanted = [
        "reg_01_ok_means_listed",
        "reg_02_lost_acknowledgement_converges",
        "reg_05_exactly_one_owner",
        "liv_02_unrenewed_session_expires_in_time",
        "wat_03_empty_is_synced",
        "ord_02_every_fold_ends_equal",
        "flt_01_cut_and_healed",
        "flt_04_recreated_in_the_gap_is_new",
        "flt_11_open_while_down_keeps_trying",
        "flt_15_refused_later_is_stale",
        "key_01_queries_are_exact_on_segments",
        "key_05_value_at_the_limit",
    ];
    let picked: Vec<_> = cases().filter(|case| wanted.contains(&case.name)).collect();
    assert_eq!(picked.len(), wanted.len());
    std::thread::scope(|scope| {
        for case in picked {
            let (factory, claims) = (&factory, &claims);
            scope.spawn(move || {
                let ran = run(factory, claims, case);
                assert_eq!(ran.outcome, Outcome::Passed, "{}", ran.name);
            });
        }
    });
    assert_eq!(names("shared"), before, "only what was there before is there now");
    runtime.block_on(async {
        assert!(theirs.state().is_registered());
        let told = tokio::time::timeout(Duration::from_secs(1), changes.next()).await;
        assert!(told.is_err(), "{told:?}");
        assert!(discovery.shutdown(Duration::from_secs(5)).await.is_clean());
    });
}

#[tokio::test]
async fn a_run_that_is_stopped_leaves_nothing_and_writes_nothing_more() {
    let factory = Linked::new(FACTORY, environment("stopped"));
    let world = factory.world().await.unwrap();
    let owner = Discovery::builder().with_backend(world.owner(0).await.unwrap()).build().await.unwrap();
    let _mine = owner.register(Item::at(["mine"])).await.unwrap();
    // Cut off from its store, it could not withdraw anything itself.
    world.inject(discovery_conformance::Fault::Cut(0)).await.unwrap();
    assert_eq!(names("stopped").len(), 1);

    factory.withdraw().await.unwrap();
    assert!(names("stopped").is_empty(), "{:?}", names("stopped"));
    world.inject(discovery_conformance::Fault::Heal(0)).await.unwrap();
    let builder = Discovery::builder().with_backend(world.owner(1).await.unwrap());
    let late = builder.operation_timeout(Duration::from_secs(1)).build().await.unwrap();
    late.register(Item::at(["late"])).await.unwrap_err();
    assert!(names("stopped").is_empty(), "{:?}", names("stopped"));
    assert_eq!(factory.world().await.err().map(|error| error.kind()), Some(ErrorKind::Closed));
}
