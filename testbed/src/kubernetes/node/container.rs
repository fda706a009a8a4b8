//! What happens to one container from its first start to its last end?

use std::convert::Infallible;
use std::future::pending;
use std::net::Ipv4Addr;
use std::time::Duration;

use k8s_openapi::api::core::v1::{self, LifecycleHandler};
use rustix::process::Signal;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use super::pod::Wanted;
use super::probe::{Prober, Question};
use super::process::Recipe;
use super::status::{ContainerState, Ended, Now, States, now};
use crate::supervised::Supervised;

/// How long one that has ended is left alone: not at all for the first time, then so long, then twice as long each time.
const BACKOFF: Duration = Duration::from_secs(10);
const MOST_BACKOFF: Duration = Duration::from_secs(300);
/// One that ran for so long begins anew.
const STABLE: Duration = Duration::from_secs(600);
/// What a process has at least after SIGTERM, however long its preStop took.
const LEAST_GRACE: Duration = Duration::from_secs(2);

/// One container of a pod, and all that it takes to run it.
pub(super) struct Container {
    pub(super) number: usize,
    pub(super) spec: v1::Container,
    pub(super) recipe: Recipe,
    pub(super) address: Ipv4Addr,
    /// Whether it is started again after it has ended with this code.
    pub(super) again: fn(i32) -> bool,
    /// The grace that a process has which is ended because it is not alive.
    pub(super) grace: Duration,
    pub(super) states: watch::Sender<States>,
}

impl Container {
    /// Runs it until it has ended for good, or until it has been ended because the pod is to go. Dropped before that,
    /// its process is killed.
    pub(super) async fn run(&self, mut wanted: watch::Receiver<Wanted>) {
        let mut pause = Duration::ZERO;
        while matches!(*wanted.borrow(), Wanted::Run) {
            let (since, started) = (now(), Instant::now());
            let (pid, code, message) = match self.recipe.start() {
                Ok(mut process) => {
                    let pid = process.pid().as_raw_nonzero().get();
                    self.note(|state| state.now = Now::Running { pid, since: since.clone() });
                    let (code, why) = self.attend(&mut process, &mut wanted).await;
                    (pid, code, why)
                }
                Err(error) => (0, 128, Some(error.to_string())),
            };
            let log = || if code == 0 { String::new() } else { self.recipe.log_tail() };
            let ended = Ended { pid, code, since, at: now(), message: message.unwrap_or_else(log) };
            self.note(|state| {
                state.ready = false;
                state.now = Now::Ended(ended.clone());
                state.before = Some(ended);
            });
            if !matches!(*wanted.borrow(), Wanted::Run) || !(self.again)(code) {
                return;
            }
            if started.elapsed() >= STABLE {
                pause = Duration::ZERO;
            }
            if !pause.is_zero() {
                let message = format!("started again {pause:?} after its end");
                self.note(|state| state.now = Now::Waiting { reason: "CrashLoopBackOff", message });
                tokio::select! {
                    () = sleep(pause) => {}
                    _ = left(&mut wanted) => return,
                }
            }
            pause = (pause * 2).clamp(BACKOFF, MOST_BACKOFF);
            self.note(|state| state.restarts += 1);
        }
    }

    fn note(&self, change: impl FnOnce(&mut ContainerState)) {
        self.states.send_modify(|states| states.change(self.number, change));
    }

    /// Attends to a process until it has ended. Answers its exit code, and why it was ended where that is told.
    async fn attend(&self, process: &mut Supervised, wanted: &mut watch::Receiver<Wanted>) -> (i32, Option<String>) {
        // Goes on while the process is being ended: whoever drains may say that it is not ready.
        let readiness = self.keep_ready();
        tokio::pin!(readiness);
        let (grace, why) = tokio::select! {
            ended = process.ended() => return (ended.unwrap_or(-1), None),
            grace = left(wanted) => (grace, None),
            cause = self.die() => (self.grace, Some(format!("the liveness probe failed: {cause}"))),
            never = &mut readiness => match never {},
        };
        let code = tokio::select! {
            code = self.stop(process, grace, wanted) => code,
            never = &mut readiness => match never {},
        };
        (code, why)
    }

    async fn keep_ready(&self) -> Infallible {
        let Some(probe) = &self.spec.readiness_probe else {
            self.note(|state| state.ready = true);
            return pending().await;
        };
        let Ok(mut prober) = Prober::new(probe, &self.spec, self.address) else { return pending().await };
        loop {
            for ready in [true, false] {
                prober.until(ready).await;
                self.note(|state| state.ready = ready);
            }
        }
    }

    /// Resolves once the process is to be started anew, with the cause.
    async fn die(&self) -> String {
        let probe = self.spec.liveness_probe.as_ref();
        match probe.and_then(|probe| Prober::new(probe, &self.spec, self.address).ok()) {
            Some(mut prober) => prober.until(false).await,
            None => pending().await,
        }
    }

    /// preStop, SIGTERM, and SIGKILL once the grace is over. Answers the exit code.
    async fn stop(&self, process: &mut Supervised, grace: Duration, wanted: &mut watch::Receiver<Wanted>) -> i32 {
        let deadline = Instant::now() + grace;
        let pid = process.pid();
        let before = self.spec.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref());
        if let Some(before) = before.filter(|_| !grace.is_zero()) {
            tokio::select! {
                ended = process.ended() => return ended.unwrap_or(-1),
                // One that fails or takes too long holds up nothing.
                _ = timeout_at(deadline, self.play(before, pid)) => {}
                () = gone(wanted) => {}
            }
        }
        if !grace.is_zero() && !matches!(*wanted.borrow(), Wanted::Gone) {
            let _ = process.signal(Signal::TERM);
            tokio::select! {
                ended = process.ended() => return ended.unwrap_or(-1),
                () = sleep_until(deadline.max(Instant::now() + LEAST_GRACE)) => {}
                () = gone(wanted) => {}
            }
        }
        let _ = process.signal(Signal::KILL);
        process.ended().await.unwrap_or(-1)
    }

    async fn play(&self, handler: &LifecycleHandler, pid: rustix::process::Pid) {
        if let Some(nap) = &handler.sleep {
            sleep(Duration::from_secs(nap.seconds.try_into().unwrap_or(0))).await;
        } else if let Some(get) = &handler.http_get
            && let Ok(question) = Question::http(get, &self.spec, self.address)
        {
            let _ = question.ask().await;
        } else if let Some(exec) = &handler.exec
            && let Ok(mut process) = self.recipe.start_beside(pid, exec.command.as_deref().unwrap_or_default())
        {
            let _ = process.ended().await;
        }
    }

    /// What of the manifest cannot be played.
    pub(super) fn check(&self) -> Result<(), String> {
        let probes = [&self.spec.readiness_probe, &self.spec.liveness_probe];
        for probe in probes.into_iter().flatten() {
            Prober::new(probe, &self.spec, self.address)?;
        }
        match &self.spec.startup_probe {
            Some(_) => Err("startupProbe is not played here".to_owned()),
            None => Ok(()),
        }
    }
}

/// Resolves with the grace once the pod is to go. Cancel-safe.
async fn left(wanted: &mut watch::Receiver<Wanted>) -> Duration {
    match wanted.wait_for(|wanted| !matches!(wanted, Wanted::Run)).await.as_deref() {
        Ok(&Wanted::Leave(grace)) => grace,
        _ => Duration::ZERO,
    }
}

/// Resolves once there is no such pod any more. Cancel-safe.
async fn gone(wanted: &mut watch::Receiver<Wanted>) {
    let _ = wanted.wait_for(|wanted| matches!(wanted, Wanted::Gone)).await;
}
