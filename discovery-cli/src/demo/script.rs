//! What happens in the demo, and what is checked after each step.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::Signal;

use super::judge::{BUSY, Judge, Member};
use super::process::{Leave, Worker};
use super::store::{Store, Variables};
use super::timeline::{Took, span};
use super::told::Moment;
use super::{COMPONENT, ENDPOINT, NAMESPACE};
use crate::failure::{Failure, Outcome};

const WORKERS: usize = 5;
/// What is asked for: short, so that the frozen worker is not waited for too long.
const TTL: Duration = Duration::from_secs(2);

/// The demo under way.
pub(super) struct Script<'a> {
    store: &'a Store,
    variables: Variables,
    /// The time to live in force.
    ttl: Duration,
    judge: Judge,
    workers: BTreeMap<usize, Worker>,
    /// The worker that is stopped: alive, and not expected in any view.
    frozen: Option<Worker>,
}

impl<'a> Script<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self {
            store,
            variables: store.variables(TTL),
            ttl: TTL,
            judge: Judge::new(),
            workers: BTreeMap::new(),
            frozen: None,
        }
    }

    /// Plays it all. An error is what kept it from going on, or what was not right.
    pub(super) async fn play(&mut self) -> Outcome {
        self.open().await?;
        self.kill(1).await?;
        self.restart(2).await?;
        self.freeze(3).await?;
        self.drain(4).await?;
        self.close().await?;
        self.judge.sum_up()
    }

    /// Ends every process that still runs.
    pub(super) async fn clear(&mut self) {
        for worker in self.workers.values_mut().chain(&mut self.frozen) {
            worker.process.kill().await;
        }
        self.judge.clear().await;
    }

    /// Whom the router must know.
    fn members(&self) -> Vec<Member> {
        self.workers.values().map(member).collect()
    }

    async fn settle(&mut self, step: &str) -> Outcome {
        let members = self.members();
        self.judge.settle(step, &members).await
    }

    async fn open(&mut self) -> Outcome {
        self.judge.timeline.say(format!("{WORKERS} workers and a router find each other in {}", self.store))?;
        let bounds = self.judge.start_router(&self.variables).await?;
        self.judge.timeline.say(format!(
            "backend {}: time to live {}; declared bounds: propagation {}, slack {}, recovery {}\n",
            self.store.backend(),
            span(TTL),
            span(bounds.propagation),
            span(bounds.slack),
            span(bounds.recovery)
        ))?;
        let what = format!("follows {NAMESPACE}/{COMPONENT}/{ENDPOINT}, endpoints and models");
        self.judge.timeline.event(Moment::now(), "router", what)?;
        for n in 1..=WORKERS {
            self.start_worker(n, None).await?;
        }
        self.settle("the start").await
    }

    async fn start_worker(&mut self, n: usize, not_port: Option<&str>) -> Outcome {
        let name = name_of(n);
        let worker = Worker::start(&name, not_port, &self.variables).await?;
        if worker.ttl != self.ttl {
            self.ttl = worker.ttl;
            self.judge.timeline.event(
                worker.ready,
                &name,
                format!("is granted a time to live of {}", span(worker.ttl)),
            )?;
        }
        let what = format!("registers {} as instance {}", worker.address, worker.instance);
        self.expect_there(&worker, &what).await?;
        self.workers.insert(n, worker);
        Ok(())
    }

    /// Killed without warning.
    async fn kill(&mut self, n: usize) -> Outcome {
        let mut worker = self.take(n)?;
        let at = Moment::now();
        worker.process.signal(Signal::KILL)?;
        let bounds = self.judge.router()?.bounds;
        let declared = if bounds.death_notice { bounds.propagation } else { self.ttl + bounds.slack };
        self.judge.expect_gone(&member(&worker), at, "is killed with SIGKILL", declared).await?;
        worker.process.ended().await?;
        self.settle("the kill").await
    }

    /// Ended in order, and started again on another port.
    async fn restart(&mut self, n: usize) -> Outcome {
        let old = self.take(n)?;
        let port = old.port().to_owned();
        self.leave(old, "is told to restart, and deregisters").await?;
        self.start_worker(n, Some(&port)).await?;
        self.settle("the restart").await
    }

    /// Stopped until it counts as dead, then resumed.
    async fn freeze(&mut self, n: usize) -> Outcome {
        let worker = self.take(n)?;
        let at = Moment::now();
        worker.process.signal(Signal::STOP)?;
        let bounds = self.judge.router()?.bounds;
        let declared = self.ttl + bounds.slack;
        let gone = self.judge.expect_gone(&member(&worker), at, "is stopped with SIGSTOP, and expires", declared).await;
        let (instance, address) = (worker.instance.clone(), worker.address.clone());
        self.frozen = Some(worker);
        gone?;
        self.settle("the expiry").await?;

        let Some(worker) = self.frozen.take() else { return Ok(()) };
        self.judge.is_back(&instance);
        let at = Moment::now();
        let resumed = worker.process.signal(Signal::CONT);
        self.workers.insert(n, worker);
        resumed?;
        let router = self.judge.router()?;
        let known = router.knows(&instance, false).await?;
        let took =
            Took { time: known.map(|known| known.since(at)), declared: bounds.recovery, allowed: bounds.recovery * 2 };
        self.judge.note(&name_of(n), &format!("is resumed with SIGCONT, back as {address}"), at, took)?;
        self.settle("the return").await
    }

    /// Leaves in order, with requests under way.
    async fn drain(&mut self, n: usize) -> Outcome {
        let worker = self.take(n)?;
        let instance = worker.instance.clone();
        let broken = self.judge.broken(&instance);
        self.leave(worker, "drains: deregisters first").await?;
        self.settle("the drain").await?;
        self.judge.check_drained(&name_of(n), &instance, broken);
        Ok(())
    }

    /// A worker that is told to end: it deregisters, serves what is under way, and exits.
    async fn leave(&mut self, mut worker: Worker, what: &str) -> Outcome {
        worker.process.signal(Signal::TERM)?;
        let Leave { draining, deregistered, in_flight } = worker.withdrawn().await?;
        // Time enough to withdraw is the store's; from then on the bound counts.
        let withdrawing = deregistered.since(draining);
        let declared = withdrawing + self.judge.router()?.bounds.propagation;
        self.judge
            .expect_gone(&member(&worker), draining, &format!("{what} in {}", span(withdrawing)), declared)
            .await?;
        let (accepted, answered, orderly) = worker.finished().await?;
        let name = worker.process.name.clone();
        let what = format!("answers the {in_flight} requests under way, and exits: {answered} of {accepted} answered");
        self.judge.timeline.event(Moment::now(), &name, what)?;
        if accepted != answered || !orderly {
            self.judge.fault(format!("{name} left {} requests, orderly: {orderly}", accepted - answered));
        }
        Ok(())
    }

    /// No more requests; the others leave, and nothing is left.
    async fn close(&mut self) -> Outcome {
        self.judge.stop_traffic().await?;
        let left: Vec<_> = std::mem::take(&mut self.workers).into_iter().collect();
        for (_, worker) in left {
            self.leave(worker, "is told to end, and deregisters").await?;
        }
        let members = self.members();
        self.judge.finish(&members).await
    }

    fn take(&mut self, n: usize) -> Outcome<Worker> {
        self.workers.remove(&n).ok_or_else(|| Failure::failed(format!("demo: there is no {}", name_of(n))))
    }

    async fn expect_there(&mut self, worker: &Worker, what: &str) -> Outcome {
        let router = self.judge.router()?;
        let registering = worker.ready.since(worker.asked);
        let propagation = router.bounds.propagation;
        let known = router.knows(&worker.instance, false).await?;
        let took = Took {
            time: known.map(|known| known.since(worker.asked)),
            declared: registering + propagation,
            allowed: registering + propagation * BUSY,
        };
        self.judge.note(&worker.process.name, what, worker.asked, took)
    }
}

fn member(worker: &Worker) -> Member {
    Member { name: worker.process.name.clone(), instance: worker.instance.clone(), address: worker.address.clone() }
}

fn name_of(n: usize) -> String {
    format!("worker-{n}")
}
