//! The router under observation: what it must know after each step, and whether it did.

use std::collections::BTreeMap;
use std::time::Duration;

use super::MODEL;
use super::process::Router;
use super::store::Variables;
use super::timeline::{Timeline, Took, span};
use super::told::{Ask, Bounds, Moment, Report};
use crate::failure::{Failure, Outcome};

/// How many requests are answered between two steps.
const TRAFFIC: u64 = 80;
/// Declared bounds hold on the machines that they were measured on. Those of milliseconds may be exceeded so many times
/// where a machine has other work; each time is shown.
pub(super) const BUSY: u32 = 10;

/// A worker that the router must know.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) instance: String,
    pub(super) address: String,
}

/// An instance that no request may go to any more.
struct Removed {
    name: String,
    instance: String,
    /// The latest moment at which a request may have gone there.
    until: Moment,
}

/// Watches the router, and keeps what was not as it should be.
pub(super) struct Judge {
    pub(super) timeline: Timeline,
    router: Option<Router>,
    removed: Vec<Removed>,
    report: Report,
    faults: Vec<String>,
    late: Vec<String>,
}

impl Judge {
    pub(super) fn new() -> Self {
        Self {
            timeline: Timeline::start(),
            router: None,
            removed: Vec::new(),
            report: Report::default(),
            faults: Vec::new(),
            late: Vec::new(),
        }
    }

    pub(super) async fn start_router(&mut self, variables: &Variables) -> Outcome<Bounds> {
        Ok(self.router.insert(Router::start(variables).await?).bounds)
    }

    pub(super) fn router(&mut self) -> Outcome<&mut Router> {
        self.router.as_mut().ok_or_else(|| Failure::failed("demo: there is no router"))
    }

    /// Ends the router, where it still runs.
    pub(super) async fn clear(&mut self) {
        if let Some(router) = &mut self.router {
            router.process.kill().await;
        }
    }

    /// Something else that is not as it should be.
    pub(super) fn fault(&mut self, what: String) {
        self.faults.push(what);
    }

    /// Prints when the router knew, and remembers where that was too late.
    pub(super) fn note(&mut self, name: &str, what: &str, at: Moment, took: Took) -> Outcome {
        if !took.in_time() {
            let time = took.time.map_or_else(|| "never".to_owned(), span);
            self.late.push(format!("{name} {what}: the router knew after {time}, allowed {}", span(took.allowed)));
        }
        self.timeline.heard(at, name, what, took)
    }

    /// The router must hear within `declared` that a worker is gone, and send it nothing from then on.
    pub(super) async fn expect_gone(&mut self, member: &Member, at: Moment, what: &str, declared: Duration) -> Outcome {
        let router = self.router()?;
        // A bound of seconds has room for a busy machine by itself.
        let allowed = declared.max(router.bounds.propagation * BUSY);
        let known = router.knows(&member.instance, true).await?;
        let took = Took { time: known.map(|known| known.since(at)), declared, allowed };
        self.note(&member.name, what, at, took)?;
        let Member { name, instance, .. } = member.clone();
        self.removed.push(Removed { name, instance, until: at.after(allowed) });
        Ok(())
    }

    /// An instance that was gone is back: requests may go there again.
    pub(super) fn is_back(&mut self, instance: &str) {
        self.removed.retain(|removed| removed.instance != instance);
    }

    /// Lets requests flow, and then compares the router's view with what is true.
    pub(super) async fn settle(&mut self, step: &str, members: &[Member]) -> Outcome {
        // Counted from now: a step that takes its time has seen many already.
        let now = self.router()?.report(Ask { answered: 0, stop: false }).await?;
        let report = self.router()?.report(Ask { answered: now.answered + TRAFFIC, stop: false }).await?;
        self.check_views(step, members, &report);
        for Member { name, instance, .. } in members {
            let count = |report: &Report| report.sent.get(instance).map_or(0, |sent| sent.answered);
            if count(&report) == count(&now) {
                self.faults.push(format!("{name} answered nothing after {step}"));
            }
        }
        self.report = report;
        Ok(())
    }

    fn check_views(&mut self, step: &str, members: &[Member], report: &Report) {
        let expected: BTreeMap<_, _> =
            members.iter().map(|member| (member.instance.clone(), member.address.clone())).collect();
        if report.endpoints != expected {
            self.faults.push(format!("after {step} the view is {:?}, not {expected:?}", report.endpoints));
        }
        if !report.models.iter().eq(expected.keys()) {
            self.faults.push(format!("after {step} the models are those of {:?}", report.models));
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

    /// How many requests broke there until the step before.
    pub(super) fn broken(&self, instance: &str) -> u64 {
        self.report.sent.get(instance).map_or(0, |sent| sent.broken)
    }

    /// Who drains answers all that it was sent: no more broke than did `before`.
    pub(super) fn check_drained(&mut self, name: &str, instance: &str, before: u64) {
        let broken = self.broken(instance) - before;
        if broken > 0 {
            self.faults.push(format!("{broken} requests broke at {name} though it drained"));
        }
    }

    /// No more requests, once those that are counted have been answered.
    pub(super) async fn stop_traffic(&mut self) -> Outcome {
        let answered = self.report.answered + TRAFFIC;
        self.report = self.router()?.report(Ask { answered, stop: true }).await?;
        let what = format!("sends no more requests: {} answered", self.report.answered);
        self.timeline.event(Moment::now(), "router", what)
    }

    /// Looks at the views for the last time, and ends the router.
    pub(super) async fn finish(&mut self, members: &[Member]) -> Outcome {
        let answered = self.report.answered;
        let last = self.router()?.report(Ask { answered, stop: true }).await?;
        self.check_views("the end", members, &last);
        self.report = last;
        if !self.router()?.process.ended().await? {
            self.faults.push("the router did not end in order".to_owned());
        }
        Ok(())
    }

    /// Prints the verdicts. An error is what was not right.
    pub(super) fn sum_up(&self) -> Outcome {
        let sent = || self.report.sent.values();
        let (broken, timed_out): (u64, u64) =
            (sent().map(|sent| sent.broken).sum(), sent().map(|sent| sent.timed_out).sum());
        let Report { answered, failed, .. } = self.report;
        self.timeline.say(format!(
            "\n{answered} requests of model {MODEL} answered, {failed} failed; {} went to another worker at second try:\n\
             {broken} whose connection broke, {timed_out} whose worker did not answer",
            broken + timed_out,
        ))?;
        self.timeline.verdict(self.faults.is_empty(), "the router's view was right after every step")?;
        self.timeline
            .verdict(self.late.is_empty(), "it was so in time, and no request went to a removed worker after")?;
        self.timeline.verdict(failed == 0, "no request failed that had somewhere to go")?;
        self.timeline.say(format!("{:.1} s", self.timeline.elapsed().as_secs_f64()))?;
        let mut faults: Vec<_> = self.faults.iter().chain(&self.late).cloned().collect();
        if failed > 0 {
            faults.push(format!("{failed} requests failed"));
        }
        let stale = self.router.as_ref().and_then(|router| router.stale.first());
        faults.extend(stale.filter(|_| !faults.is_empty()).map(|cause| format!("the views were stale: {cause}")));
        if faults.is_empty() { Ok(()) } else { Err(Failure::failed(format!("demo: {}", faults.join("; ")))) }
    }
}
