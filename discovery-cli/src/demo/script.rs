//! What happens in the demo, and what is checked after each step.

use std::collections::BTreeMap;
use std::time::Duration;

use rustix::process::Signal;

use super::process::{Leave, Router, Worker};
use super::store::{Store, Variables};
use super::timeline::{Timeline, Took, span};
use super::told::{Ask, Moment, Report};
use super::{COMPONENT, ENDPOINT, MODEL, NAMESPACE};
use crate::failure::{Failure, Outcome};

const WORKERS: usize = 5;
/// What is asked for: short, so that the frozen worker is not waited for too long.
const TTL: Duration = Duration::from_secs(2);
/// How many requests are answered between two steps.
const TRAFFIC: u64 = 80;
/// Declared bounds hold on the machines that they were measured on. Those of milliseconds may be exceeded so many times
/// where a machine has other work; each time is shown.
const BUSY: u32 = 10;

/// An instance that no request may go to any more.
struct Removed {
    name: String,
    instance: String,
    /// The latest moment at which a request may have gone there.
    until: Moment,
}

/// The demo under way.
pub(super) struct Script<'a> {
    store: &'a Store,
    variables: Variables,
    /// The time to live in force.
    ttl: Duration,
    timeline: Timeline,
    router: Option<Router>,
    workers: BTreeMap<usize, Worker>,
    /// The worker that is stopped: alive, and not expected in any view.
    frozen: Option<Worker>,
    removed: Vec<Removed>,
    report: Report,
    /// What was not as it should be.
    view_faults: Vec<String>,
    late: Vec<String>,
}

impl<'a> Script<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        Self {
            store,
            variables: store.variables(TTL),
            ttl: TTL,
            timeline: Timeline::start(),
            router: None,
            workers: BTreeMap::new(),
            frozen: None,
            removed: Vec::new(),
            report: Report::default(),
            view_faults: Vec::new(),
            late: Vec::new(),
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
        self.sum_up()
    }

    /// Ends every process that still runs.
    pub(super) async fn clear(&mut self) {
        for worker in self.workers.values_mut().chain(&mut self.frozen) {
            worker.process.kill().await;
        }
        if let Some(router) = &mut self.router {
            router.process.kill().await;
        }
    }

    fn router(&mut self) -> Outcome<&mut Router> {
        self.router.as_mut().ok_or_else(|| Failure::failed("demo: there is no router"))
    }

    async fn open(&mut self) -> Outcome {
        self.timeline.say(format!("{WORKERS} workers and a router find each other in {}", self.store))?;
        let router = Router::start(&self.variables).await?;
        let bounds = router.bounds;
        self.timeline.say(format!(
            "backend {}: time to live {}; declared bounds: propagation {}, slack {}, recovery {}\n",
            self.store.backend(),
            span(TTL),
            span(bounds.propagation),
            span(bounds.slack),
            span(bounds.recovery)
        ))?;
        let what = format!("follows {NAMESPACE}/{COMPONENT}/{ENDPOINT}, endpoints and models");
        self.timeline.event(Moment::now(), "router", what)?;
        self.router = Some(router);
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
            self.timeline.event(worker.ready, &name, format!("is granted a time to live of {}", span(worker.ttl)))?;
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
        let bounds = self.router()?.bounds;
        let declared = if bounds.death_notice { bounds.propagation } else { self.ttl + bounds.slack };
        self.expect_gone(&worker, at, "is killed with SIGKILL", declared).await?;
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
        let bounds = self.router()?.bounds;
        let declared = self.ttl + bounds.slack;
        let gone = self.expect_gone(&worker, at, "is stopped with SIGSTOP, and expires", declared).await;
        let (instance, address) = (worker.instance.clone(), worker.address.clone());
        self.frozen = Some(worker);
        gone?;
        self.settle("the expiry").await?;

        let Some(worker) = self.frozen.take() else { return Ok(()) };
        self.removed.retain(|removed| removed.instance != instance);
        let at = Moment::now();
        let resumed = worker.process.signal(Signal::CONT);
        self.workers.insert(n, worker);
        resumed?;
        let router = self.router()?;
        let known = router.knows(&instance, false).await?;
        let took =
            Took { time: known.map(|known| known.since(at)), declared: bounds.recovery, allowed: bounds.recovery * 2 };
        self.note(&name_of(n), &format!("is resumed with SIGCONT, back as {address}"), at, took)?;
        self.settle("the return").await
    }

    /// Leaves in order, with requests under way.
    async fn drain(&mut self, n: usize) -> Outcome {
        let worker = self.take(n)?;
        let instance = worker.instance.clone();
        self.leave(worker, "drains: deregisters first").await?;
        self.settle("the drain").await?;
        let broken = self.report.sent.get(&instance).map_or(0, |sent| sent.broken);
        if broken > 0 {
            self.view_faults.push(format!("{broken} requests broke at {} though it drained", name_of(n)));
        }
        Ok(())
    }

    /// A worker that is told to end: it deregisters, serves what is under way, and exits.
    async fn leave(&mut self, mut worker: Worker, what: &str) -> Outcome {
        worker.process.signal(Signal::TERM)?;
        let Leave { draining, deregistered, in_flight } = worker.withdrawn().await?;
        // Time enough to withdraw is the store's; from then on the bound counts.
        let withdrawing = deregistered.since(draining);
        let declared = withdrawing + self.router()?.bounds.propagation;
        self.expect_gone(&worker, draining, &format!("{what} in {}", span(withdrawing)), declared).await?;
        let (accepted, answered, orderly) = worker.finished().await?;
        let name = worker.process.name.clone();
        let what = format!("answers the {in_flight} requests under way, and exits: {answered} of {accepted} answered");
        self.timeline.event(Moment::now(), &name, what)?;
        if accepted != answered || !orderly {
            self.view_faults.push(format!("{name} left {} requests, orderly: {orderly}", accepted - answered));
        }
        Ok(())
    }

    /// No more requests; the others leave, and nothing is left.
    async fn close(&mut self) -> Outcome {
        let answered = self.report.answered + TRAFFIC;
        let report = self.router()?.report(Ask { answered, stop: true }).await?;
        self.timeline.event(
            Moment::now(),
            "router",
            format!("sends no more requests: {} answered", report.answered),
        )?;
        let left: Vec<_> = std::mem::take(&mut self.workers).into_iter().collect();
        for (_, worker) in left {
            self.leave(worker, "is told to end, and deregisters").await?;
        }
        let answered = report.answered;
        let last = self.router()?.report(Ask { answered, stop: true }).await?;
        self.check_views("the end", &last);
        self.report = last;
        let router = self.router()?;
        if !router.process.ended().await? {
            self.view_faults.push("the router did not end in order".to_owned());
        }
        Ok(())
    }

    fn sum_up(&mut self) -> Outcome {
        let sent = || self.report.sent.values();
        let (broken, timed_out): (u64, u64) =
            (sent().map(|sent| sent.broken).sum(), sent().map(|sent| sent.timed_out).sum());
        let Report { answered, failed, .. } = self.report;
        self.timeline.say(format!(
            "\n{answered} requests of model {MODEL} answered, {failed} failed; {} went to another worker at second try:\n\
             {broken} whose connection broke, {timed_out} whose worker did not answer",
            broken + timed_out,
        ))?;
        let right = self.view_faults.is_empty();
        self.timeline.verdict(right, "the router's view was right after every step")?;
        self.timeline
            .verdict(self.late.is_empty(), "it was so in time, and no request went to a removed worker after")?;
        self.timeline.verdict(failed == 0, "no request failed that had somewhere to go")?;
        self.timeline.say(format!("{:.1} s", self.timeline.elapsed().as_secs_f64()))?;
        let mut faults: Vec<_> = self.view_faults.iter().chain(&self.late).cloned().collect();
        if failed > 0 {
            faults.push(format!("{failed} requests failed"));
        }
        let stale = self.router.as_ref().and_then(|router| router.stale.first());
        faults.extend(stale.filter(|_| !faults.is_empty()).map(|cause| format!("the views were stale: {cause}")));
        if faults.is_empty() { Ok(()) } else { Err(Failure::failed(format!("demo: {}", faults.join("; ")))) }
    }

    fn take(&mut self, n: usize) -> Outcome<Worker> {
        self.workers.remove(&n).ok_or_else(|| Failure::failed(format!("demo: there is no {}", name_of(n))))
    }

    async fn expect_there(&mut self, worker: &Worker, what: &str) -> Outcome {
        let router = self.router()?;
        let registering = worker.ready.since(worker.asked);
        let propagation = router.bounds.propagation;
        let known = router.knows(&worker.instance, false).await?;
        let took = Took {
            time: known.map(|known| known.since(worker.asked)),
            declared: registering + propagation,
            allowed: registering + propagation * BUSY,
        };
        self.note(&worker.process.name, what, worker.asked, took)
    }

    /// The router must hear within `declared` that a worker is gone, and send it nothing from then on.
    async fn expect_gone(&mut self, worker: &Worker, at: Moment, what: &str, declared: Duration) -> Outcome {
        let router = self.router()?;
        // A bound of seconds has room for a busy machine by itself.
        let allowed = declared.max(router.bounds.propagation * BUSY);
        let known = router.knows(&worker.instance, true).await?;
        let took = Took { time: known.map(|known| known.since(at)), declared, allowed };
        let (name, instance) = (worker.process.name.clone(), worker.instance.clone());
        self.note(&name, what, at, took)?;
        self.removed.push(Removed { name, instance, until: at.after(allowed) });
        Ok(())
    }

    fn note(&mut self, name: &str, what: &str, at: Moment, took: Took) -> Outcome {
        if !took.in_time() {
            let time = took.time.map_or_else(|| "never".to_owned(), span);
            self.late.push(format!("{name} {what}: the router knew after {time}, allowed {}", span(took.allowed)));
        }
        self.timeline.heard(at, name, what, took)
    }

    /// Lets requests flow, and then compares the router's view with what is true.
    async fn settle(&mut self, step: &str) -> Outcome {
        // Counted from now: a step that takes its time has seen many already.
        let now = self.router()?.report(Ask { answered: 0, stop: false }).await?;
        let report = self.router()?.report(Ask { answered: now.answered + TRAFFIC, stop: false }).await?;
        self.check_views(step, &report);
        for worker in self.workers.values() {
            let count = |report: &Report| report.sent.get(&worker.instance).map_or(0, |sent| sent.answered);
            if count(&report) == count(&now) {
                self.view_faults.push(format!("{} answered nothing after {step}", worker.process.name));
            }
        }
        self.report = report;
        Ok(())
    }

    fn check_views(&mut self, step: &str, report: &Report) {
        let expected: BTreeMap<_, _> =
            self.workers.values().map(|worker| (worker.instance.clone(), worker.address.clone())).collect();
        if report.endpoints != expected {
            self.view_faults.push(format!("after {step} the view is {:?}, not {expected:?}", report.endpoints));
        }
        if !report.models.iter().eq(expected.keys()) {
            self.view_faults.push(format!("after {step} the models are those of {:?}", report.models));
        }
        for Removed { name, instance, until } in &self.removed {
            if let Some(sent) = report.sent.get(instance)
                && sent.last > *until
            {
                let after = span(sent.last.since(*until));
                self.late.push(format!("a request went to {name} {after} after the bound"));
            }
        }
    }
}

fn name_of(n: usize) -> String {
    format!("worker-{n}")
}
