//! The demo on Kubernetes: pods of `deploy/`'s example become ready, are killed, drain and roll.

mod slices;
mod space;

use std::fs;
use std::time::Duration;

use discovery_k8s::NAME;
use rustix::process::{Pid, Signal, kill_process};

use self::slices::Slices;
use self::space::Pod;
pub(super) use self::space::Space;
use super::judge::{BUSY, Judge, Member};
use super::store::Store;
use super::timeline::{Took, span};
use super::told::Moment;
use super::worker::place;
use super::{COMPONENT, ENDPOINT, NAMESPACE};
use crate::failure::{Failure, Outcome};

const WORKERS: usize = 3;
/// How long the cluster may take for anything.
const PATIENCE: Duration = Duration::from_secs(90);

/// A pod that the router is expected to know.
struct Worker {
    member: Member,
    pod: Pod,
}

/// The demo under way.
pub(super) struct Rollout<'a> {
    space: &'a Space,
    judge: Judge,
    slices: Slices,
    workers: Vec<Worker>,
    started: usize,
}

impl<'a> Rollout<'a> {
    pub(super) fn new(space: &'a Space) -> Self {
        Self { space, judge: Judge::new(), slices: Slices::follow(space.slices()), workers: Vec::new(), started: 0 }
    }

    /// Plays it all. An error is what kept it from going on, or what was not right.
    pub(super) async fn play(&mut self, store: &Store) -> Outcome {
        self.open(store).await?;
        self.kill().await?;
        self.drain().await?;
        self.roll().await?;
        self.judge.stop_traffic().await?;
        let members = self.members();
        self.judge.finish(&members).await?;
        self.judge.sum_up()
    }

    /// Ends the router. The pods go with the namespace.
    pub(super) async fn clear(&mut self) {
        self.judge.clear().await;
    }

    fn members(&self) -> Vec<Member> {
        self.workers.iter().map(|worker| worker.member.clone()).collect()
    }

    async fn settle(&mut self, step: &str) -> Outcome {
        let members = self.members();
        self.judge.settle(step, &members).await
    }

    async fn open(&mut self, store: &Store) -> Outcome {
        let since = Moment::now();
        self.judge.timeline.say(format!("{WORKERS} pods and a router find each other in {}", self.space))?;
        for added in self.space.make().await? {
            self.judge.timeline.say(format!("the cluster has a new {added}, which stays"))?;
        }
        let bounds = self.judge.start_router(&store.variables(Duration::ZERO)).await?;
        self.judge.timeline.say(format!(
            "backend {NAME}: Kubernetes says who is ready; declared bounds since then: propagation {}, recovery {}\n",
            span(bounds.propagation),
            span(bounds.recovery)
        ))?;
        let what = format!("follows {NAMESPACE}/{COMPONENT}/{ENDPOINT}, endpoints and models");
        self.judge.timeline.event(Moment::now(), "router", what)?;
        self.space.deploy().await?;
        self.arrive(since, &[]).await?;
        self.settle("the start").await
    }

    /// The pods that have become ready since `since`, and when, once none of `old` is there any more.
    async fn new_pods(&mut self, since: Moment, old: &[&str]) -> Outcome<Vec<(Moment, Pod)>> {
        let mut new = Vec::new();
        for pod in self.space.ready(old).await? {
            if !self.workers.iter().any(|worker| worker.pod.name == pod.name) {
                new.push((self.slices.turned(&pod.name, true, since).await?, pod));
            }
        }
        new.sort_by_key(|(at, _)| *at);
        Ok(new)
    }

    /// Tells of them.
    async fn arrive(&mut self, since: Moment, old: &[&str]) -> Outcome {
        for (at, pod) in self.new_pods(since, old).await? {
            self.welcome(at, pod).await?;
        }
        Ok(())
    }

    /// A pod has become ready at `at`.
    async fn welcome(&mut self, at: Moment, pod: Pod) -> Outcome {
        self.started += 1;
        let name = format!("worker-{}", self.started);
        let Pod { address, instance, .. } = pod.clone();
        let what = format!("is ready at {address} as instance {instance}");
        let worker = Worker { member: Member { name, instance, address }, pod };
        self.there(&worker, at, &what).await?;
        self.workers.push(worker);
        Ok(())
    }

    /// The router must hear that a pod is ready, which Kubernetes says since `at`.
    async fn there(&mut self, worker: &Worker, at: Moment, what: &str) -> Outcome {
        let router = self.judge.router()?;
        let declared = router.bounds.propagation;
        let known = router.knows(&worker.member.instance, false).await?;
        let took = Took { time: known.map(|known| known.since(at)), declared, allowed: declared * BUSY };
        self.judge.note(&worker.member.name, what, at, took)
    }

    /// The router must hear that a pod is not ready any more, from when Kubernetes says so.
    async fn gone(&mut self, worker: &Worker, since: Moment, what: &str) -> Outcome {
        let at = self.slices.turned(&worker.pod.name, false, since).await?;
        let declared = self.judge.router()?.bounds.propagation;
        let what = format!("{what}: not ready after {}", span(at.since(since)));
        self.judge.expect_gone(&worker.member, at, &what, declared).await
    }

    fn take(&mut self) -> Outcome<Worker> {
        if self.workers.is_empty() {
            return Err(Failure::failed("demo: there is no pod"));
        }
        Ok(self.workers.remove(0))
    }

    /// A container is killed without warning, and started again in its pod.
    async fn kill(&mut self) -> Outcome {
        let Some(process) = self.workers.first().and_then(|worker| own_process(&worker.pod)) else {
            let what = "left out: a kill. The containers are no processes of this machine that this user may kill";
            return self.judge.timeline.event(Moment::now(), "", what);
        };
        let worker = self.take()?;
        let since = Moment::now();
        kill_process(process, Signal::KILL).map_err(|error| {
            Failure::failed(format!("demo: pod {} cannot be killed: {error}: run this as root", worker.pod.name))
        })?;
        self.gone(&worker, since, "is killed with SIGKILL").await?;
        let what = format!("is started again, back as {}", worker.member.address);
        let at = self.slices.turned(&worker.pod.name, true, since).await?;
        self.there(&worker, at, &what).await?;
        self.judge.is_back(&worker.member.instance);
        self.workers.push(worker);
        self.settle("the kill").await
    }

    /// A pod is deleted, leaves in order, and another takes its place.
    async fn drain(&mut self) -> Outcome {
        let worker = self.take()?;
        let broken = self.judge.broken(&worker.member.instance);
        let since = Moment::now();
        self.space.delete(&worker.pod.name).await?;
        self.gone(&worker, since, "is deleted, and drains").await?;
        self.arrive(since, &[&worker.pod.name]).await?;
        self.settle("the drain").await?;
        self.judge.check_drained(&worker.member.name, &worker.member.instance, broken);
        Ok(())
    }

    /// All make room for another version.
    async fn roll(&mut self) -> Outcome {
        let old = std::mem::take(&mut self.workers);
        let names: Vec<_> = old.iter().map(|worker| worker.pod.name.as_str()).collect();
        let broken: Vec<_> = old.iter().map(|worker| self.judge.broken(&worker.member.instance)).collect();
        let since = Moment::now();
        self.space.roll().await?;
        self.judge.timeline.event(since, "all", "roll to another version of their Deployment")?;
        let mut new = self.new_pods(since, &names).await?.into_iter().peekable();
        let mut left = Vec::new();
        for worker in &old {
            left.push((self.slices.turned(&worker.pod.name, false, since).await?, worker));
        }
        left.sort_by_key(|(at, _)| *at);
        // As it happened: each old pod makes room for one that has become ready.
        for (at, worker) in left {
            while let Some((ready, pod)) = new.next_if(|(ready, _)| *ready < at) {
                self.welcome(ready, pod).await?;
            }
            self.gone(worker, since, "makes room, and drains").await?;
        }
        for (ready, pod) in new {
            self.welcome(ready, pod).await?;
        }
        self.settle("the rollout").await?;
        for (worker, before) in old.iter().zip(broken) {
            self.judge.check_drained(&worker.member.name, &worker.member.instance, before);
        }
        Ok(())
    }
}

/// The worker's process, where it is one of this machine that this process may kill.
fn own_process(pod: &Pod) -> Option<Pid> {
    let id = pod.process?;
    // The cluster may be on another machine, where the id is somebody else's.
    let command = fs::read_to_string(format!("/proc/{id}/cmdline")).ok()?;
    let listens = |word| place(word).is_ok_and(|place| place.to_string() == pod.address);
    let is_it = command.contains("demo-worker\0") && command.split('\0').any(listens);
    let process = Pid::from_raw(id).filter(|_| is_it)?;
    rustix::process::test_kill_process(process).ok()?;
    Some(process)
}
