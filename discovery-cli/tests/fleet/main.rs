//! Fifty workers and five watchers, each a process of its own, and an etcd that is restarted, wiped and away for longer
//! than a time to live: nobody exits, nobody alive stays away, nobody dead stays, and all watchers end with the truth.

#[path = "../common/mod.rs"]
mod common;
mod group;
mod watcher;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::{Place, Running};
use discovery_testbed::Etcd;
use group::Group;
use rustix::process::Signal;
use watcher::Watcher;

const WORKERS: usize = 50;
const WATCHERS: usize = 5;
/// Short, for the sake of the test's time; above the smallest and above the bound of recovery, for that of a busy machine.
const TTL: Duration = Duration::from_secs(6);
/// What the backend declares: see `discovery doctor`.
const SLACK: Duration = Duration::from_secs(3);
const RECOVERY: Duration = Duration::from_secs(5);
/// Sixty processes start anew on two cores that have other work: the bounds are those of a machine with time for them.
const PATIENCE: u32 = 3;

struct Worker {
    process: Running,
    instance: String,
    address: String,
}

struct Fleet {
    place: Place,
    group: Group,
    etcd: Etcd,
    workers: Vec<Worker>,
    watchers: Vec<Watcher>,
}

impl Fleet {
    fn start_process(&self, words: &[&str]) -> Running {
        let mut command = self.place.command(words);
        command.env("DYN_DISCOVERY_BACKEND", "etcd").env("ETCD_ENDPOINTS", self.etcd.endpoint());
        command.env("ETCD_LEASE_TTL", TTL.as_secs().to_string());
        self.group.join(&mut command);
        Running::start(command)
    }

    /// Starts so many workers, and waits until each says that it is registered.
    fn start_workers(&mut self, count: usize) {
        let first = self.workers.len();
        let addresses: Vec<_> = (first..first + count).map(|n| format!("10.0.0.5:{}", 9000 + n)).collect();
        let start = |address: &String| {
            // With its log, for whoever has to find out what went wrong.
            self.start_process(&["-v", "register", "endpoint", "fleet/backend/generate", "--tcp", address])
        };
        let processes: Vec<_> = addresses.iter().map(start).collect();
        let started = processes.into_iter().zip(addresses).map(|(process, address)| {
            let instance = process.line();
            Worker { process, instance, address }
        });
        self.workers.extend(started.collect::<Vec<_>>());
    }

    /// Ends so many workers by SIGKILL, and answers their ids.
    fn kill_workers(&mut self, count: usize) -> Vec<String> {
        let killed = self.workers.drain(..count);
        killed
            .map(|mut worker| {
                worker.process.signal(Signal::KILL);
                worker.process.wait();
                worker.instance
            })
            .collect()
    }

    /// Whom every watcher should show, and where.
    fn truth(&self) -> BTreeMap<String, String> {
        self.workers.iter().map(|worker| (worker.instance.clone(), worker.address.clone())).collect()
    }

    /// Waits until every watcher shows this.
    fn shows(&mut self, what: &str, expected: &BTreeMap<String, String>, limit: Duration) {
        let start = Instant::now();
        loop {
            let wrong = self.watchers.iter_mut().filter_map(|watcher| {
                watcher.hear();
                watcher.differs(expected)
            });
            let wrong: Vec<_> = wrong.collect();
            if wrong.is_empty() {
                println!("{what}: all watchers agree after {:?}, allowed {limit:?}", start.elapsed());
                return;
            }
            assert!(start.elapsed() < limit, "{what}: not within {limit:?}: {wrong:#?}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    fn shows_the_truth(&mut self, what: &str, limit: Duration) {
        let truth = self.truth();
        self.shows(what, &truth, limit);
    }

    /// From here on, what watchers say is judged by itself.
    fn mark(&mut self) {
        for watcher in &mut self.watchers {
            watcher.hear();
            watcher.told.clear();
        }
    }

    fn nobody_exited(&mut self) {
        let processes = self.workers.iter_mut().map(|worker| &mut worker.process);
        for process in processes.chain(self.watchers.iter_mut().map(|watcher| &mut watcher.process)) {
            let ended = process.child.try_wait().unwrap();
            assert_eq!(ended, None, "{}", process.told());
        }
    }
}

/// The removals since the mark are those of `dead`, once each, and those of others at most `more` times each; nobody who
/// lives was away for longer than `limit`, counted from `since` where that is later.
fn judge(fleet: &Fleet, dead: &[String], more: usize, since: Instant, limit: Duration) {
    let mut longest = Duration::ZERO;
    for watcher in &fleet.watchers {
        for instance in dead {
            assert_eq!(watcher.removals(instance), 1, "{instance} is dead: {watcher:?}");
        }
        for worker in &fleet.workers {
            let removals = watcher.removals(&worker.instance);
            let told = || worker.process.told_so_far().join("\n");
            assert!(
                removals <= more,
                "{} lives and was removed {removals} times: {watcher:?}\n{}",
                worker.instance,
                told()
            );
            longest = longest.max(watcher.away(&worker.instance, since));
        }
    }
    println!("the longest absence of anybody alive: {longest:?}, allowed {limit:?}");
    assert!(longest <= limit, "somebody alive was away for {longest:?}");
}

#[tokio::test]
async fn a_fleet_outlives_what_happens_to_its_etcd() {
    let etcd = Etcd::start().await.unwrap();
    let (place, group) = (Place::new(), Group::new());
    let mut fleet = Fleet { place, group, etcd, workers: Vec::new(), watchers: Vec::new() };
    for _ in 0..WATCHERS {
        let process = fleet.start_process(&["watch", "endpoint/fleet", "--output", "json"]);
        fleet.watchers.push(Watcher::new(process));
    }
    fleet.start_workers(WORKERS);
    fleet.shows_the_truth("the start", RECOVERY * PATIENCE);

    // Killed and started again: it counts leases anew from then on, and only who died meanwhile goes.
    fleet.mark();
    fleet.etcd.kill().await.unwrap();
    let dead = fleet.kill_workers(2);
    fleet.etcd.restart().await.unwrap();
    let back = Instant::now();
    fleet.shows_the_truth("a restart", TTL + (SLACK + RECOVERY) * PATIENCE);
    judge(&fleet, &dead, 0, back, Duration::ZERO);
    fleet.nobody_exited();

    // Wiped: who lives is put back, and who died meanwhile is not.
    fleet.mark();
    fleet.etcd.kill().await.unwrap();
    let dead = fleet.kill_workers(3);
    std::fs::remove_dir_all(fleet.etcd.data()).unwrap();
    fleet.etcd.restart().await.unwrap();
    let back = Instant::now();
    fleet.shows_the_truth("all data lost", RECOVERY * PATIENCE);
    judge(&fleet, &dead, 1, back, RECOVERY * PATIENCE);
    fleet.nobody_exited();

    // Away for longer than a time to live: meanwhile nothing is removed and all say that they are not up to date.
    fleet.mark();
    let before = fleet.truth();
    fleet.etcd.kill().await.unwrap();
    let away = Instant::now();
    let mut dead = fleet.kill_workers(3);
    let stopped = fleet.workers.split_off(fleet.workers.len() - 2);
    stopped.iter().for_each(|worker| worker.process.signal(Signal::STOP));
    dead.extend(stopped.iter().map(|worker| worker.instance.clone()));
    // It is the time that is tested.
    tokio::time::sleep_until((away + TTL + SLACK).into()).await;
    for watcher in &mut fleet.watchers {
        watcher.hear();
        assert!(watcher.stale && watcher.differs(&before).is_none(), "{watcher:?}");
    }
    fleet.etcd.restart().await.unwrap();
    let back = Instant::now();
    fleet.shows_the_truth("an outage", TTL + (SLACK + RECOVERY) * PATIENCE);
    judge(&fleet, &dead, 1, back, RECOVERY * PATIENCE);
    stopped.iter().for_each(|worker| worker.process.signal(Signal::CONT));
    fleet.workers.extend(stopped);
    fleet.shows_the_truth("the return of the stopped", RECOVERY * PATIENCE);
    fleet.nobody_exited();

    // Ended in order: for that it takes longer than a time to live, and goes on to revoke leases that nobody can renew.
    fleet.mark();
    fleet.etcd.stop().await.unwrap();
    let dead = fleet.kill_workers(1);
    fleet.etcd.restart().await.unwrap();
    let back = Instant::now();
    fleet.shows_the_truth("an end in order", TTL + (SLACK + RECOVERY) * PATIENCE);
    judge(&fleet, &dead, 1, back, RECOVERY * PATIENCE);
    fleet.nobody_exited();

    // It goes on as if nothing had been.
    fleet.start_workers(1);
    fleet.shows_the_truth("a new worker", RECOVERY * PATIENCE);
    assert!(fleet.watchers.iter().all(|watcher| !watcher.stale));
    for worker in &fleet.workers {
        worker.process.signal(Signal::TERM);
    }
    for mut worker in std::mem::take(&mut fleet.workers) {
        let code = worker.process.wait().code();
        assert_eq!(code, Some(0), "{}", worker.process.told());
    }
    fleet.shows_the_truth("the end", RECOVERY * PATIENCE);
    let keys = fleet.etcd.ctl(["get", "--prefix", "v1/", "--keys-only"]).await.unwrap();
    assert_eq!(keys, "");
    for mut watcher in fleet.watchers {
        watcher.process.signal(Signal::TERM);
        assert_eq!(watcher.process.wait().code(), Some(0));
    }
}
