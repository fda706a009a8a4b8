//! Redis as services use it, through the handle: with the server frozen, killed and emptied, and an owner killed.

mod support;

use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use discovery_conformance::{Factory, Fault};
use discovery_core::{
    Changes, Discovery, Environment, ErrorKind, Freshness, InstanceId, Path, Query, Record, RegistrationState, Result,
    ViewChange,
};
use discovery_redis::{FACTORY, PREFIX_VARIABLE, TTL_VARIABLE, URL_VARIABLE};
use libtest_mimic::{Arguments, Completion, Trial};
use serde::{Deserialize, Serialize};
use support::server::{Server, missing};
use support::world::OnRedis;
use tokio::time::{sleep, timeout};

/// Far beyond every bound, for a busy machine.
const SOON: Duration = Duration::from_secs(60);

/// Says that this process is an owner that is going to be killed.
const OWNER_VARIABLE: &str = "DISCOVERY_REDIS_TEST_OWNER";

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

fn main() -> ExitCode {
    if std::env::var_os(OWNER_VARIABLE).is_some() {
        on_runtime(async || {
            let owner = handle(Environment::process()).await;
            let _mine = owner.register(worker("doomed")).await.expect("registered");
            std::future::pending::<()>().await;
        });
    }
    let trials = [
        trial("records_are_listed_seen_changed_and_leave", records_are_listed_seen_changed_and_leave),
        trial("of_two_owners_one_holds_a_key", of_two_owners_one_holds_a_key),
        trial("a_killed_owner_goes_after_its_ttl", a_killed_owner_goes_after_its_ttl),
        trial("a_frozen_server_makes_views_stale_and_they_heal", a_frozen_server_makes_views_stale_and_they_heal),
        trial("a_write_that_a_frozen_server_does_late_stays_undone", a_late_write_stays_undone),
        trial("a_killed_server_comes_back_and_nothing_leaves", a_killed_server_comes_back_and_nothing_leaves),
        trial("an_emptied_server_is_filled_again", an_emptied_server_is_filled_again),
        trial("an_index_that_is_gone_is_written_again", an_index_that_is_gone_is_written_again),
        trial("an_outage_of_a_world_meets_who_comes_later", an_outage_of_a_world_meets_who_comes_later),
        trial("settings_and_addresses_are_checked", settings_and_addresses_are_checked),
    ];
    let arguments = Arguments::from_args();
    if !arguments.list
        && let Some(why) = missing()
    {
        println!("{why}");
    }
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}

/// Each has a server of its own, since some of them harm it.
fn trial(name: &str, run: impl AsyncFnOnce(&Server) + Send + 'static) -> Trial {
    Trial::ignorable_test(name, move || {
        if let Some(why) = missing() {
            return Ok(Completion::ignored_with(why));
        }
        let server = Server::start();
        on_runtime(async || run(&server).await);
        Ok(Completion::Completed)
    })
}

fn on_runtime(work: impl AsyncFnOnce()) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(work());
}

fn settings(server: &Server) -> Environment {
    [("DYN_DISCOVERY_BACKEND", "redis".to_owned()), (URL_VARIABLE, server.url())].into_iter().collect()
}

async fn handle(environment: Environment) -> Discovery {
    let builder = Discovery::builder().environment(environment).ttl(Duration::from_secs(5));
    builder.operation_timeout(SOON).build().await.expect("a handle")
}

async fn addresses(discovery: &Discovery) -> Vec<String> {
    let listed = discovery.list::<Worker>(Query::all()).await.expect("a list");
    listed.iter().map(|worker| worker.address.clone()).collect()
}

async fn watched(discovery: &Discovery) -> Changes<Worker> {
    let mut changes = discovery.view::<Worker>(Query::all()).await.expect("a view").changes();
    assert!(changes.next().await.expect("a batch").is_synced());
    changes
}

/// The next changes, freshness aside.
async fn changed(changes: &mut Changes<Worker>) -> Vec<ViewChange<Worker>> {
    let next = async {
        loop {
            let batch = changes.next().await.expect("the stream goes on");
            if !batch.changes().is_empty() {
                return batch.changes().to_vec();
            }
        }
    };
    timeout(SOON, next).await.expect("a change in time")
}

async fn until_freshness(changes: &mut Changes<Worker>, accept: impl Fn(&Freshness) -> bool) {
    let next = async {
        loop {
            let batch = changes.next().await.expect("the stream goes on");
            assert!(batch.changes().is_empty(), "an outage changes nothing: {batch:?}");
            if accept(batch.freshness()) {
                return;
            }
        }
    };
    timeout(SOON, next).await.expect("freshness in time");
}

/// Stops the server's process, its connections open, or lets it go on.
fn freeze(server: &Server, frozen: bool) {
    let pid = std::fs::read_to_string(server.file("pid")).expect("a process id");
    let signal = if frozen { "-STOP" } else { "-CONT" };
    let status = Command::new("kill").args([signal, pid.trim()]).status().expect("kill");
    assert!(status.success(), "{status}");
}

async fn records_are_listed_seen_changed_and_leave(server: &Server) {
    let (owner, reader) = (handle(settings(server)).await, handle(settings(server)).await);
    let stranger = handle(settings(server).with(PREFIX_VARIABLE, "elsewhere")).await;
    let mut changes = watched(&reader).await;
    let mine = owner.register(worker("one")).await.expect("registered");
    assert_eq!(owner.effective_ttl(), Some(Duration::from_secs(5)));
    assert_eq!(addresses(&reader).await, ["one"]);
    assert!(addresses(&stranger).await.is_empty(), "prefixes are worlds apart");
    assert!(matches!(&changed(&mut changes).await[..], [ViewChange::Added(one)] if one.address == "one"));
    mine.update(worker("two")).await.expect("updated");
    assert!(matches!(&changed(&mut changes).await[..], [ViewChange::Updated { new, .. }] if new.address == "two"));
    mine.deregister().await.expect("deregistered");
    assert!(addresses(&reader).await.is_empty());
    assert!(matches!(changed(&mut changes).await[..], [ViewChange::Removed(_)]));
    assert!(reader.health().await.expect("healthy").detail.contains("redis.sock"));
    for discovery in [owner, reader, stranger] {
        assert!(discovery.shutdown(SOON).await.is_clean());
    }
}

async fn of_two_owners_one_holds_a_key(server: &Server) {
    let builder = || Discovery::builder().environment(settings(server)).instance(InstanceId(7));
    let (first, second) = (builder().build().await.expect("a handle"), builder().build().await.expect("a handle"));
    let held = first.register(worker("first")).await.expect("registered");
    let error = second.register(worker("second")).await.expect_err("a conflict");
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(addresses(&second).await, ["first"]);
    held.deregister().await.expect("deregistered");
    let _taken = second.register(worker("second")).await.expect("free");
    first.shutdown(SOON).await;
    assert_eq!(addresses(&second).await, ["second"], "closing takes only one's own");
}

/// A process of its own that registers a record and waits to be killed.
struct Doomed(Child);

impl Drop for Doomed {
    fn drop(&mut self) {
        let killed = self.0.kill();
        self.0.wait().and(killed).expect("killed");
    }
}

async fn a_killed_owner_goes_after_its_ttl(server: &Server) {
    let reader = handle(settings(server)).await;
    let mut changes = watched(&reader).await;
    let mut owner = Command::new(std::env::current_exe().expect("this program"));
    owner.env(OWNER_VARIABLE, "1").env(URL_VARIABLE, server.url()).env("DYN_DISCOVERY_BACKEND", "redis");
    let owner = Doomed(owner.stdin(Stdio::null()).spawn().expect("an owner"));
    assert!(matches!(&changed(&mut changes).await[..], [ViewChange::Added(one)] if one.address == "doomed"));
    assert!(timeout(Duration::from_secs(8), changes.next()).await.is_err(), "it renews");
    drop(owner);
    let killed = std::time::Instant::now();
    assert!(matches!(changed(&mut changes).await[..], [ViewChange::Removed(_)]));
    // Renewed every third of its time to live.
    assert!(killed.elapsed() > Duration::from_secs(2), "not before its time has passed");
}

async fn a_frozen_server_makes_views_stale_and_they_heal(server: &Server) {
    let (owner, reader) = (handle(settings(server)).await, handle(settings(server)).await);
    let mine = owner.register(worker("one")).await.expect("registered");
    let mut changes = watched(&reader).await;
    freeze(server, true);
    until_freshness(&mut changes, |freshness| matches!(freshness, Freshness::Stale { .. })).await;
    freeze(server, false);
    until_freshness(&mut changes, Freshness::is_live).await;
    assert_eq!(addresses(&reader).await, ["one"]);
    timeout(SOON, mine.wait_for(RegistrationState::is_registered)).await.expect("registered");
}

async fn a_late_write_stays_undone(server: &Server) {
    let reader = handle(settings(server)).await;
    let builder = Discovery::builder().environment(settings(server)).operation_timeout(Duration::from_secs(3));
    let owner = builder.build().await.expect("a handle");
    let kept = owner.register(worker("kept")).await.expect("registered");
    freeze(server, true);
    let error = owner.register(Worker { pool: "b".to_owned(), ..worker("late") }).await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    kept.update(worker("late")).await.expect_err("no answer");
    freeze(server, false);
    // Now the server does what it was asked to while it stood still, and what compensates for it.
    let settled = async {
        while kept.update(worker("newest")).await.is_err() {}
        while addresses(&reader).await != ["newest"] {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, settled).await.expect("the late record is gone, and the newest value stands");
    let mut changes = watched(&reader).await;
    assert!(timeout(Duration::from_secs(3), changes.next()).await.is_err(), "and so it stays");
}

async fn a_killed_server_comes_back_and_nothing_leaves(server: &Server) {
    let owner = Discovery::builder().environment(settings(server)).ttl(SOON).build().await.expect("a handle");
    let reader = handle(settings(server)).await;
    let _mine = owner.register(worker("one")).await.expect("registered");
    let mut changes = watched(&reader).await;
    server.kill();
    until_freshness(&mut changes, |freshness| matches!(freshness, Freshness::Stale { .. })).await;
    server.start_again();
    until_freshness(&mut changes, Freshness::is_live).await;
    assert_eq!(addresses(&reader).await, ["one"]);
}

async fn an_emptied_server_is_filled_again(server: &Server) {
    let owner = handle(settings(server)).await;
    let builder = Discovery::builder().environment(settings(server)).resync_grace(SOON);
    let (graceful, reader) = (builder.build().await.expect("a handle"), handle(settings(server)).await);
    let mine = owner.register(worker("one")).await.expect("registered");
    let (mut bridged, mut changes) = (watched(&graceful).await, watched(&reader).await);
    let mut redis = redis::Client::open(server.url()).and_then(|client| client.get_connection()).expect("a connection");
    redis::cmd("FLUSHALL").exec(&mut redis).expect("emptied");
    let mut told = Vec::new();
    while told.len() < 2 {
        told.extend(changed(&mut changes).await);
    }
    assert!(matches!(&told[..], [ViewChange::Removed(_), ViewChange::Added(one)] if one.address == "one"), "{told:?}");
    timeout(SOON, mine.wait_for(RegistrationState::is_registered)).await.expect("registered");
    assert!(timeout(Duration::from_secs(3), bridged.next()).await.is_err(), "nobody saw it leave");
}

/// As after somebody's `DEL`, or an eviction: the records are there, and no list finds them.
async fn an_index_that_is_gone_is_written_again(server: &Server) {
    let (owner, reader) = (handle(settings(server)).await, handle(settings(server)).await);
    let _mine = owner.register(worker("one")).await.expect("registered");
    let mut redis = redis::Client::open(server.url()).and_then(|client| client.get_connection()).expect("a connection");
    let absent = async {
        // A renewal may come between the two.
        while !addresses(&reader).await.is_empty() {
            redis::cmd("DEL").arg("{discovery}:names").exec(&mut redis).expect("removed");
        }
    };
    timeout(SOON, absent).await.expect("no list finds them");
    let listed = async {
        while addresses(&reader).await != ["one"] {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, listed).await.expect("listed again, though nobody wrote a value");
}

async fn an_outage_of_a_world_meets_who_comes_later(_: &Server) {
    let world = OnRedis.world().await.expect("a world");
    let (early, crashed) = (world.owner(0).await.expect("an owner"), world.owner(1).await.expect("an owner"));
    early.health().await.expect("the store serves");
    world.inject(Fault::Crash(1)).await.expect("crashed");
    world.inject(Fault::Outage).await.expect("an outage");
    let late = world.owner(2).await.expect("an owner");
    for backend in [&early, &late] {
        assert_eq!(backend.health().await.expect_err("out of reach").kind(), ErrorKind::Unavailable);
    }
    world.inject(Fault::Heal(0)).await.expect("healed");
    assert!(early.health().await.is_err(), "its own way is whole, and the store is away");
    world.inject(Fault::Restore).await.expect("restored");
    for backend in [&early, &late] {
        backend.health().await.expect("the store serves again");
    }
    assert!(crashed.health().await.is_err(), "the dead stay dead");
}

async fn settings_and_addresses_are_checked(server: &Server) {
    for (variable, value) in [(URL_VARIABLE, "no address"), (TTL_VARIABLE, "soon")] {
        let build = Discovery::builder().environment(settings(server).with(variable, value)).build().await;
        let error = build.expect_err("refused");
        assert!(error.kind() == ErrorKind::InvalidConfig && error.message().contains(variable), "{error}");
    }
    let nowhere = settings(server).with(URL_VARIABLE, "redis+unix:///nowhere/redis.sock");
    let error = handle(nowhere).await.health().await.expect_err("nobody there");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let stranger = settings(server).with(URL_VARIABLE, format!("{}?user=eve&pass=hunter2", server.url()));
    let error = handle(stranger).await.health().await.expect_err("nobody of that name");
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(!format!("{error:?} {error}").contains("hunter2"));
    assert_eq!(FACTORY.name, "redis");
}
