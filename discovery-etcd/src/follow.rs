//! An open watch of the server: what it says, and whether it is alive and in step.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{GetOptions, WatchRequestSender, WatchResponse, WatchResponseStream, WatchStream};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::alive::MUCH;
use crate::awaited::Target;
use crate::fault::Fault;
use crate::link::Wire;
use crate::names::Range;
use crate::place::Witness;

/// Between two looks at whether the member is alive and in touch with its leader.
const BEAT: Duration = Duration::from_millis(1_250);
/// How long that look may take.
const PROBE: Duration = Duration::from_millis(1_500);
/// For how long the watch may then be behind what the leader has, and be told nothing.
const LAG: Duration = Duration::from_secs(2);
/// A time that is over for longer than this when it is looked at was over while nobody listened, and says nothing of the member:
/// progress is asked for, and an answer taken, only while somebody does.
const UNHEARD: Duration = Duration::from_millis(250);
/// The first pause between two requests for progress; it doubles up to [`RAREST`].
const SOONEST: Duration = Duration::from_millis(5);
const RAREST: Duration = Duration::from_millis(200);

type Probe = BoxFuture<'static, Result<(i64, Option<Witness>), Fault>>;

/// What there is to say of the watch.
pub(crate) enum Heard {
    Message(WatchResponse),
    /// The member is in touch with the leader, and everything that the leader had was told.
    InStep {
        witness: Option<Witness>,
    },
    /// The store is at an earlier revision than what it told.
    WentBack,
    Nothing,
}

pub(crate) struct Following {
    wire: Wire,
    requests: WatchRequestSender,
    responses: WatchResponseStream,
    range: Range,
    /// What had come over the connection when the watch began.
    received: u64,
    awaited: Arc<Target>,
    /// What it was when it was looked at last.
    wanted: i64,
    /// The watch is to reach this revision.
    target: i64,
    /// A beat ends when the watch has reached this revision.
    beat: Option<(i64, Option<Witness>)>,
    /// When it is too late for that, or for the probe before it, where no news came.
    late: Instant,
    /// How far it was when that was said.
    seen: i64,
    next_beat: Instant,
    /// With how far the watch was when it was sent.
    probe: Option<(i64, Probe)>,
    next_request: Instant,
    pause: Duration,
    /// For whichever of these times is next. News come far more often than it changes.
    timer: Pin<Box<Sleep>>,
    /// What [`Following::more`] came upon that is not news.
    held: Option<Answer>,
}

/// What a stream of answers gives.
type Answer = Result<Option<WatchResponse>, etcd_client::Error>;

impl Following {
    pub(crate) fn new(wire: Wire, stream: WatchStream, range: Range, awaited: Arc<Target>) -> Self {
        let (requests, responses) = stream.split();
        let now = Instant::now();
        let target = awaited.revision();
        Self {
            received: wire.received.count(),
            wire,
            requests,
            responses,
            range,
            awaited,
            wanted: target,
            target,
            beat: None,
            late: now,
            seen: 0,
            next_beat: now,
            probe: None,
            next_request: now,
            pause: SOONEST,
            timer: Box::pin(sleep_until(now)),
            held: None,
        }
    }

    pub(crate) fn wire(&self) -> &Wire {
        &self.wire
    }

    /// Whether so much has come since it began that a message may be on its way.
    pub(crate) fn is_sent_much(&self) -> bool {
        self.wire.received.count() - self.received >= MUCH
    }

    /// Waits for the next thing to say. `told` is how far the watch is.
    pub(crate) async fn hear(&mut self, told: i64, without_witness: bool) -> Result<Heard, Fault> {
        if let Some((_, witness)) = self.beat.take_if(|(revision, _)| *revision <= told) {
            self.next_beat = Instant::now() + BEAT;
            return Ok(Heard::InStep { witness });
        }
        if let Some(answer) = self.held.take() {
            return self.heard(answer);
        }
        if self.beat.is_some() && told > self.seen {
            // etcd tells what was missed a thousand revisions at a time: a long backlog is no silence.
            (self.late, self.seen) = (Instant::now() + LAG, told);
        }
        let behind = self.target > told;
        let beating = self.probe.is_some() || self.beat.is_some();
        let next =
            [behind.then_some(self.next_request), (!beating).then_some(self.next_beat), beating.then_some(self.late)];
        let next = next.into_iter().flatten().min();
        if let Some(next) = next.filter(|next| *next != self.timer.deadline()) {
            self.timer.as_mut().reset(next);
        }
        let probe = async {
            match &mut self.probe {
                Some((since, probe)) => (*since, probe.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            answer = self.responses.message() => self.heard(answer),
            (since, found) = probe => {
                self.probe = None;
                let (revision, witness) = found?;
                // The watch may have been told more while the answer was under way.
                if revision < since {
                    return Ok(Heard::WentBack);
                }
                self.beat = Some((revision, witness.filter(|_| told <= revision)));
                (self.late, self.seen) = (Instant::now() + LAG, told);
                self.expect(revision, told);
                Ok(Heard::Nothing)
            }
            wanted = self.awaited.changed(self.wanted) => {
                self.wanted = wanted;
                self.expect(wanted, told);
                Ok(Heard::Nothing)
            }
            () = self.timer.as_mut(), if next.is_some() => {
                let now = Instant::now();
                if behind && self.next_request <= now {
                    // A queue that is full holds requests enough.
                    let _ = self.requests.request_progress().now_or_never();
                    self.next_request = now + self.pause;
                    self.pause = (self.pause * 2).min(RAREST);
                } else if !beating && self.next_beat <= now {
                    self.probe = Some((told, probe_of(self.wire.clone(), self.range.clone(), without_witness)));
                    self.late = now + PROBE;
                } else if beating && self.late <= now {
                    let limit = if self.probe.is_some() { PROBE } else { LAG };
                    if now - self.late < UNHEARD {
                        return Err(Fault::silent(&self.wire.endpoint, limit));
                    }
                    self.late = now + limit;
                }
                Ok(Heard::Nothing)
            }
        }
    }

    /// News that wait already, behind those that were heard.
    pub(crate) fn more(&mut self) -> Option<WatchResponse> {
        match self.responses.message().now_or_never()? {
            Ok(Some(message)) if !message.canceled() && !message.events().is_empty() => {
                self.forget_witness();
                Some(message)
            }
            other => {
                self.held = Some(other);
                None
            }
        }
    }

    fn heard(&mut self, answer: Answer) -> Result<Heard, Fault> {
        match answer {
            Ok(Some(message)) => {
                if !message.events().is_empty() {
                    self.forget_witness();
                    // They come before the answer to the probe is looked at.
                    if self.probe.is_some() {
                        self.late = Instant::now() + PROBE;
                    }
                }
                Ok(Heard::Message(message))
            }
            Ok(None) => Err(self.wire.canceled("the stream ended")),
            Err(error) => Err(self.wire.failed(&error)),
        }
    }

    /// News may tell that the record is gone which is to be remembered at the end of a beat.
    fn forget_witness(&mut self) {
        if let Some((_, witness)) = &mut self.beat {
            *witness = None;
        }
    }

    /// Asks the server how far it is, until the watch has reached `revision`.
    fn expect(&mut self, revision: i64, told: i64) {
        if revision > self.target {
            self.target = revision;
            if revision > told {
                self.next_request = Instant::now();
                self.pause = SOONEST;
            }
        }
    }
}

/// Reads the leader's revision through the member that the watch is on. The key is one that the watch's reader may read,
/// so that a permission that was taken away shows.
fn probe_of(wire: Wire, range: Range, find_witness: bool) -> Probe {
    async move {
        // With the value: etcd 3.7 leaves the lease out where keys alone are asked for.
        let options = find_witness.then(|| GetOptions::new().with_range(range.end).with_limit(1));
        let answer = wire.kv.clone().get(range.start, options).await.map_err(|error| wire.failed(&error))?;
        let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
        Ok((revision, answer.kvs().first().map(Witness::of)))
    }
    .boxed()
}

#[cfg(test)]
mod tests {
    use discovery_testbed::Etcd;
    use etcd_client::WatchOptions;

    use tokio::time::{timeout, timeout_at};

    use super::*;
    use crate::config::Config;
    use crate::store::Store;

    async fn following(etcd: &Etcd) -> (Arc<Store>, Following) {
        let store = Arc::new(Store::new(Config::new([etcd.endpoint()])));
        let wire = store.watching.wire().await.unwrap();
        let range = store.names.everything();
        let options = WatchOptions::new().with_range(range.end.clone());
        let stream = wire.watch.clone().watch(range.start.clone(), Some(options)).await.unwrap();
        let awaited = store.awaited.subscribe(&range);
        let following = Following::new(wire, stream, range, awaited);
        (store, following)
    }

    /// Until a probe is due, which is sent with the next look.
    async fn probing(following: &mut Following, told: i64) {
        while following.probe.is_none() {
            following.hear(told, false).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_watch_that_does_not_catch_up_is_given_up_in_time() {
        let etcd = Etcd::start().await.unwrap();
        let (_store, mut following) = following(&etcd).await;
        let begun = Instant::now();
        let fault = loop {
            // Whatever the server says, nothing of it is taken note of.
            match timeout(PROBE + LAG * 2, following.hear(0, false)).await.expect("it is given up") {
                Ok(Heard::InStep { .. } | Heard::WentBack) => panic!("it has been told nothing"),
                Ok(_) => {}
                Err(fault) => break fault,
            }
        };
        assert!(fault.broken && begun.elapsed() >= LAG, "{fault:?} after {:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn what_nobody_listened_to_is_no_silence() {
        let etcd = Etcd::start().await.unwrap();
        let (_store, mut following) = following(&etcd).await;
        probing(&mut following, 0).await;
        // The request is made, and its answer is not looked at before it is late.
        assert!(following.hear(0, false).now_or_never().is_none());
        sleep_until(Instant::now() + PROBE + Duration::from_millis(500)).await;
        while following.beat.is_none() {
            following.hear(0, false).await.unwrap();
        }
        // The same of the wait for what the leader has.
        assert!(following.hear(0, false).now_or_never().is_none());
        sleep_until(Instant::now() + LAG + UNHEARD * 2).await;
        let step = async {
            loop {
                if let Heard::Message(message) = following.hear(0, false).await.unwrap() {
                    return message;
                }
            }
        };
        timeout(LAG, step).await.expect("an answer to the request for progress");
    }

    #[tokio::test]
    async fn a_member_that_stops_is_given_up() {
        let etcd = Etcd::start().await.unwrap();
        let (_store, mut following) = following(&etcd).await;
        etcd.pause().unwrap();
        let begun = Instant::now();
        let fault = loop {
            match timeout(BEAT + PROBE * 2, following.hear(0, false)).await.expect("it is given up") {
                Ok(_) => {}
                Err(fault) => break fault,
            }
        };
        assert!(fault.broken && begun.elapsed() >= PROBE, "{fault:?} after {:?}", begun.elapsed());
    }

    #[tokio::test]
    async fn news_that_overtake_a_sign_of_life_prove_no_loss() {
        let etcd = Etcd::start().await.unwrap();
        let (_store, mut following) = following(&etcd).await;
        probing(&mut following, 0).await;
        // The answer is of a revision below what was told since it was asked for.
        loop {
            match following.hear(1_000, false).await.unwrap() {
                Heard::InStep { .. } => break,
                Heard::WentBack => panic!("taken for a loss"),
                Heard::Message(_) | Heard::Nothing => {}
            }
        }
        probing(&mut following, 1_000).await;
        // This one was asked for after that was told.
        while !matches!(following.hear(1_000, false).await.unwrap(), Heard::WentBack) {}
    }

    #[tokio::test]
    async fn a_record_that_goes_while_a_sign_of_life_is_awaited_proves_nothing() {
        let etcd = Etcd::start().await.unwrap();
        let mut client = etcd_client::Client::connect([etcd.endpoint()], None).await.unwrap();
        client.put("v1/record", "", None).await.unwrap();
        let (_store, mut following) = following(&etcd).await;
        while !matches!(following.beat, Some((_, Some(_)))) {
            following.hear(0, true).await.unwrap();
        }
        client.delete("v1/record", None).await.unwrap();
        loop {
            let heard = following.hear(0, true).await.unwrap();
            if matches!(heard, Heard::Message(message) if !message.events().is_empty()) {
                break;
            }
        }
        let step = following.hear(1_000, true).await.unwrap();
        assert!(matches!(step, Heard::InStep { witness: None }));
    }

    #[tokio::test]
    async fn a_watch_that_catches_up_slowly_is_not_given_up() {
        const REVISIONS: i64 = 10;
        let etcd = Etcd::start().await.unwrap();
        let mut client = etcd_client::Client::connect([etcd.endpoint()], None).await.unwrap();
        for _ in 1..REVISIONS {
            client.put("elsewhere", "", None).await.unwrap();
        }
        let (_store, mut following) = following(&etcd).await;
        let begun = Instant::now();
        for told in 0..=REVISIONS {
            // This is how long it takes to be told one more.
            let more = Instant::now() + LAG / 4;
            while let Ok(heard) = timeout_at(more, following.hear(told, false)).await {
                match heard.unwrap() {
                    Heard::InStep { .. } => {
                        assert!(told == REVISIONS && begun.elapsed() > LAG * 2, "{told} after {:?}", begun.elapsed());
                        return;
                    }
                    Heard::WentBack => panic!("it went forward alone"),
                    Heard::Message(_) | Heard::Nothing => {}
                }
            }
        }
        panic!("it has caught up, and does not know");
    }
}
