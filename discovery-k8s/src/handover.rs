//! When owners are given up that no EndpointSlice speaks of any more.
//!
//! One that is dealt out anew is taken out of a slice before another one holds it, for a moment (KEY 7). So it is waited for;
//! and then the API server is asked what there is. The answer, and a watch that has come as far, prove that nobody speaks
//! of the owner. A watch that is behind, that missed something, or to which nothing comes any more, whether anybody has
//! noticed that or not, does not come as far: so no failure removes anybody.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use discovery_core::{Backoff, Error, ErrorKind, Result};
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, future};
use tokio::time::{Instant, sleep_until};

use crate::bounds::{HANDOVER, RECOVERY};
use crate::reflector::{self, Mark};
use crate::source::{Census, Counted, Leg};

/// How soon after one census of a leg another may be asked for: many who go one after the other are asked for together.
const PAUSE: Duration = Duration::from_millis(35);

/// How many of a leg may be under way at a time. A server that waits for its cache answers the first when the pause after the last
/// is over, so that whoever goes while others are asked for is waited for no longer than they: `HANDOVER`, a pause, those 100 ms
/// and a round trip. That is at most 29 requests a second for as long as somebody goes all the time.
const MOST: usize = 3;

/// Over how long the requests are spread of all who hear of one event in the same instant, as every router of a cluster does.
pub(crate) const SPREAD: Duration = Duration::from_millis(25);

/// How far it is with owners that went missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// They may come, or nobody has been asked yet whether they are there.
    Waits,
    /// Their time was over before the census of this number was asked for, which is under way.
    Asked(u64),
    /// The census is of this version. They are gone if the watch comes as far without them.
    Counted(u64),
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    /// The leg that would say where they are.
    leg: usize,
    /// The last step in which one of them went.
    step: u64,
    /// They may come until then: a census that is asked for from then on proves whether they did.
    until: Instant,
    stage: Stage,
}

/// What is asked of a leg, and how it goes.
struct Asking {
    source: Arc<dyn Counted>,
    mark: Arc<Mark>,
    /// What is under way, the oldest first.
    under_way: VecDeque<Request>,
    /// Of the newest.
    number: u64,
    /// When the next may be asked for.
    next: Instant,
    /// How long after the time of those who are missing it is.
    spread: Duration,
    backoff: Backoff,
    /// Since the first of those that failed was asked for, if the last one did.
    failing: Option<Failing>,
}

impl Asking {
    /// Not several at a time of who gives no answer.
    fn may_ask(&self) -> bool {
        self.under_way.len() < if self.failing.is_some() { 1 } else { MOST }
    }
}

/// A census that is under way.
struct Request {
    number: u64,
    asked: Instant,
    answer: BoxFuture<'static, Result<Arc<Census>>>,
}

struct Failing {
    since: Instant,
    error: Error,
    is_told: bool,
}

impl Failing {
    /// When it has to be told. What is not allowed does not pass by itself; anything else may, for as long as recovery may take.
    fn due(&self) -> Instant {
        if self.error.kind() == ErrorKind::PermissionDenied { self.since } else { self.since + RECOVERY }
    }
}

/// Who is waited for, of all legs of a watch.
pub(crate) struct Handover {
    /// The oldest first.
    waits: Vec<Wait>,
    legs: Vec<Asking>,
    random: fastrand::Rng,
}

impl Handover {
    pub(crate) fn new(legs: &[Leg], marks: &[Arc<Mark>]) -> Self {
        let mut random = fastrand::Rng::new();
        let asking = |(leg, mark): (&Leg, &Arc<Mark>)| Asking {
            source: Arc::clone(&leg.source),
            mark: Arc::clone(mark),
            under_way: VecDeque::new(),
            number: 0,
            next: Instant::now(),
            spread: spread(&mut random),
            backoff: Backoff::new(RECOVERY / 2),
            failing: None,
        };
        let legs = legs.iter().zip(marks).map(asking).collect();
        Self { waits: Vec::new(), legs, random }
    }

    /// Owners are missing, the last of them since this step, or nobody is any more. Those that have just gone are waited for
    /// from now on.
    pub(crate) fn missing(&mut self, leg: usize, step: Option<u64>) {
        let Some(step) = step else {
            self.waits.retain(|wait| wait.leg != leg);
            self.legs[leg].under_way.clear();
            self.legs[leg].failing = None;
            return;
        };
        let known = self.waits.iter().rfind(|wait| wait.leg == leg).map(|wait| wait.step);
        if known.is_none_or(|known| known < step) {
            self.waits.push(Wait { leg, step, until: Instant::now() + HANDOVER, stage: Stage::Waits });
        }
    }

    /// Everybody of a leg is waited for anew: nothing was heard of them, and now it is. What is being asked is dropped: its answer
    /// may be of a history that is gone, and would say of this one that it went back.
    pub(crate) fn anew(&mut self, leg: usize, step: Option<u64>) {
        self.waits.retain(|wait| wait.leg != leg);
        let asking = &mut self.legs[leg];
        asking.under_way.clear();
        asking.failing.take_if(|failing| !failing.is_told);
        self.missing(leg, step);
    }

    /// What was counted of a leg once a time was over, or why that is not to be had, which is told once until it is. Nothing is
    /// asked of a leg that is `broken`: who is out of touch removes nobody. May be dropped at any await.
    pub(crate) async fn counted(&mut self, broken: &BTreeMap<usize, Error>) -> (usize, Result<Arc<Census>>) {
        loop {
            let over = at(self.next(broken));
            let due = at(self.due(broken));
            tokio::select! {
                biased;
                (leg, request, answer) = answered(&mut self.legs) => {
                    if let Some(census) = self.take(leg, &request, answer) {
                        return (leg, Ok(census));
                    }
                }
                leg = due => {
                    if let Some(failing) = &mut self.legs[leg].failing {
                        failing.is_told = true;
                        let error = failing.error.clone();
                        tracing::warn!(%error, "whether pods are gone that no slice speaks of cannot be asked: they stay");
                        return (leg, Err(error));
                    }
                }
                leg = over => self.ask(leg),
            }
        }
    }

    /// When a census has to be asked for, and of which leg.
    fn next(&self, broken: &BTreeMap<usize, Error>) -> Option<(Instant, usize)> {
        let may_ask = |leg: usize| self.legs[leg].may_ask() && !broken.contains_key(&leg);
        let waiting = self.waits.iter().filter_map(|wait| match wait.stage {
            Stage::Waits if may_ask(wait.leg) => {
                let asking = &self.legs[wait.leg];
                Some(((wait.until + asking.spread).max(asking.next), wait.leg))
            }
            _ => None,
        });
        waiting.min()
    }

    /// When it has to be told of which leg that it cannot be counted.
    fn due(&self, broken: &BTreeMap<usize, Error>) -> Option<(Instant, usize)> {
        let legs = self.legs.iter().enumerate().filter(|(leg, _)| !broken.contains_key(leg));
        let untold = legs.filter_map(|(leg, asking)| Some((leg, asking.failing.as_ref()?)));
        untold.filter(|(_, failing)| !failing.is_told).map(|(leg, failing)| (failing.due(), leg)).min()
    }

    /// Whether it was told that this leg cannot be counted, and is so still.
    pub(crate) fn is_failing(&self, leg: usize) -> bool {
        self.legs[leg].failing.as_ref().is_some_and(|failing| failing.is_told)
    }

    fn ask(&mut self, leg: usize) {
        let now = Instant::now();
        let asking = &mut self.legs[leg];
        asking.number += 1;
        for wait in self.waits.iter_mut().filter(|wait| wait.leg == leg) {
            if wait.stage == Stage::Waits && wait.until <= now {
                wait.stage = Stage::Asked(asking.number);
            }
        }
        let (source, mark) = (Arc::clone(&asking.source), Arc::clone(&asking.mark));
        let answer = async move { census(&*source, &mark).await }.boxed();
        asking.under_way.push_back(Request { number: asking.number, asked: now, answer });
        (asking.next, asking.spread) = (now + PAUSE, spread(&mut self.random));
    }

    /// The answer for those whose time was over before it was asked for, by this request or by an earlier one, which is dropped.
    /// Where there is none a later request that is under way is for them, too; else they are asked for again.
    fn take(&mut self, leg: usize, request: &Request, answer: Result<Arc<Census>>) -> Option<Arc<Census>> {
        let asking = &mut self.legs[leg];
        let asked = self.waits.iter_mut().filter(|wait| wait.leg == leg);
        match &answer {
            Ok(census) => {
                asking.backoff.reset();
                asking.failing = None;
                asking.under_way.retain(|other| other.number > request.number);
                let proven = asked.filter(|wait| matches!(wait.stage, Stage::Asked(by) if by <= request.number));
                proven.for_each(|wait| wait.stage = Stage::Counted(census.version));
            }
            Err(error) => {
                tracing::debug!(%error, "whether pods are gone that no slice speaks of cannot be asked: trying again");
                let (now, since) = (Instant::now(), request.asked);
                let failing =
                    asking.failing.get_or_insert_with(|| Failing { since, error: error.clone(), is_told: false });
                failing.error = error.clone();
                let later = asking.under_way.iter().map(|other| other.number).find(|other| *other > request.number);
                if asking.under_way.is_empty() {
                    // For those, too, whose time is over only later: whoever goes missing makes nobody ask sooner.
                    asking.next = asking.next.max(now + asking.backoff.next());
                }
                let stage = later.map_or(Stage::Waits, Stage::Asked);
                asked.filter(|wait| wait.stage == Stage::Asked(request.number)).for_each(|wait| wait.stage = stage);
            }
        }
        answer.ok()
    }

    /// Somebody else has counted the leg, which is in touch, and began when it was `asked`: that is for those whose time was over by
    /// then. Where nobody else is missing, nothing is asked any more, and nobody needs to know that it could not be.
    pub(crate) fn prove(&mut self, leg: usize, asked: Instant, version: u64) {
        let mut is_open = false;
        for wait in self.waits.iter_mut().filter(|wait| wait.leg == leg) {
            match wait.stage {
                Stage::Counted(_) => {}
                Stage::Waits | Stage::Asked(_) if wait.until <= asked => wait.stage = Stage::Counted(version),
                Stage::Waits | Stage::Asked(_) => is_open = true,
            }
        }
        if !is_open {
            self.legs[leg].under_way.clear();
            self.legs[leg].failing = None;
        }
    }

    /// The step up to which owners are gone, now that the leg's watch has come as far as this version.
    pub(crate) fn over(&mut self, leg: usize, version: u64) -> Option<u64> {
        let is_over = |wait: &&Wait| matches!(wait.stage, Stage::Counted(counted) if counted <= version);
        let step = self.waits.iter().filter(|wait| wait.leg == leg).filter(is_over).map(|wait| wait.step).max()?;
        self.waits.retain(|wait| wait.leg != leg || wait.step > step);
        Some(step)
    }
}

/// What has its time, at that time.
async fn at(next: Option<(Instant, usize)>) -> usize {
    match next {
        Some((until, leg)) => {
            sleep_until(until).await;
            leg
        }
        None => future::pending().await,
    }
}

/// The next answer, to which request of which leg.
async fn answered(legs: &mut [Asking]) -> (usize, Request, Result<Arc<Census>>) {
    let next = |context: &mut Context<'_>| {
        for (leg, asking) in legs.iter_mut().enumerate() {
            for place in 0..asking.under_way.len() {
                if let Poll::Ready(answer) = asking.under_way[place].answer.poll_unpin(context)
                    && let Some(request) = asking.under_way.remove(place)
                {
                    return Poll::Ready((leg, request, answer));
                }
            }
        }
        Poll::Pending
    };
    future::poll_fn(next).await
}

fn spread(random: &mut fastrand::Rng) -> Duration {
    SPREAD.mul_f64(random.f64())
}

/// Counts. One below what the watch had seen before it was asked for proves that the store went back, and nothing else.
async fn census(source: &dyn Counted, mark: &Mark) -> Result<Arc<Census>> {
    let seen = mark.version();
    let census = reflector::count(source).await?;
    if census.version < seen {
        mark.back.notify_one();
        return Err(Error::new(ErrorKind::Unavailable, "the cluster's store went back to an earlier state"));
    }
    Ok(Arc::new(census))
}
