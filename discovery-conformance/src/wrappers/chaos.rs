//! A backend that fails now and then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use discovery_core::backend::{
    Backend, Change, ChangeLog, Desired, Drift, Entry, Health, Position, Registrar, Session, SessionRequest, Stamp,
    WatchEvent, WatchStream, Watcher, WriteBatch,
};
use discovery_core::{Bounds, Capabilities, Effect, Error, ErrorKind, InstanceId, Key, Result, Scope};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::Dice;
use super::held::held;
use super::latency::log_of;
use super::rates::{Counts, Injected, Rates};

/// What the handle, its sessions and its streams share.
struct Weather {
    rates: Rates,
    calm: AtomicBool,
    dice: Dice,
    counts: Counts,
}

impl Weather {
    /// Whether it strikes now, counted if so.
    fn strikes(&self, dice: &Dice, rate: f64, count: &AtomicU64) -> bool {
        // Rolled in calm weather too, so that a calm does not shift what comes after it.
        let strikes = dice.roll() < rate && !self.calm.load(Ordering::Acquire);
        if strikes {
            count.fetch_add(1, Ordering::Relaxed);
        }
        strikes
    }

    fn before(&self) -> Result<()> {
        if self.strikes(&self.dice, self.rates.fail, &self.counts.failed) {
            return Err(Error::new(ErrorKind::Unavailable, "chaos: the call did not reach the store"));
        }
        Ok(())
    }

    fn loses_answer(&self) -> bool {
        self.strikes(&self.dice, self.rates.lose_answer, &self.counts.lost_answers)
    }

    fn after<T>(&self, answer: Result<T>) -> Result<T> {
        if self.loses_answer() { Err(unanswered()) } else { answer }
    }

    /// One item of a stream, or how it is broken.
    fn cuts<T>(&self, dice: &Dice) -> Option<Option<Result<T>>> {
        self.strikes(dice, self.rates.cut, &self.counts.cut)
            .then(|| (dice.roll() < 0.5).then(|| Err(Error::new(ErrorKind::Unavailable, "chaos: the stream was cut"))))
    }
}

fn unanswered() -> Error {
    Error::new(ErrorKind::Unavailable, "chaos: the answer was lost").with_effect(Effect::Unknown)
}

/// A backend that fails now and then: calls, answers, streams, sessions, each by a rate. The seed decides what happens
/// to which call, as far as the calls come in the same order.
///
/// It keeps every promise that the backend inside keeps. Its failures are temporary ones that any store may have, and
/// its bounds count the delays that it adds. [`Chaos::calm`] ends it, for tests that then demand that everything is
/// right again.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use discovery_conformance::Item;
/// use discovery_conformance::wrappers::{Chaos, Rates};
/// use discovery_core::{Discovery, ExecutorKind, Query};
/// use discovery_memory::Cluster;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> discovery_core::Result<()> {
/// let chaos = Chaos::around(Arc::new(Cluster::new().connect()), 42, Rates::default().calls(0.2, 0.2));
/// let discovery = Discovery::builder()
///     .with_backend(chaos.clone())
///     .executor(ExecutorKind::Current)
///     .build()
///     .await?;
/// // One call in five fails and another one loses its answer: the core tries again.
/// let registration = discovery.register(Item::at(["pool"])).await?;
/// for n in 1..50 {
///     registration.update(Item::at(["pool"]).n(n)).await?;
/// }
/// chaos.calm(true);
/// assert_eq!(discovery.list::<Item>(Query::all()).await?.len(), 1);
/// assert!(chaos.injected().lost_answers > 0);
/// # drop(registration);
/// # discovery.shutdown(Duration::from_secs(1)).await;
/// # Ok(())
/// # }
/// ```
pub struct Chaos {
    inner: Arc<dyn Backend>,
    weather: Arc<Weather>,
}

impl Chaos {
    /// Puts chaos around a backend.
    pub fn around(inner: Arc<dyn Backend>, seed: u64, mut rates: Rates) -> Arc<Self> {
        if let Some(silence) = inner.bounds().silence {
            rates.delay_by = rates.delay_by.min(silence / 4);
        }
        let weather = Weather { rates, calm: AtomicBool::new(false), dice: Dice::new(seed), counts: Counts::default() };
        Arc::new(Self { inner, weather: Arc::new(weather) })
    }

    /// With `true` nothing more is injected until it is called with `false`.
    pub fn calm(&self, calm: bool) {
        self.weather.calm.store(calm, Ordering::Release);
    }

    /// What has been injected so far.
    pub fn injected(&self) -> Injected {
        self.weather.counts.read()
    }

    /// The delays of one stream's events.
    fn delays(&self) -> impl Fn() -> Duration + Send + Sync + 'static + use<> {
        let (weather, dice) = (Arc::clone(&self.weather), self.weather.dice.fork());
        move || {
            let late = weather.strikes(&dice, weather.rates.delay, &weather.counts.delayed);
            if late { weather.rates.delay_by.mul_f64(dice.roll()) } else { Duration::ZERO }
        }
    }
}

/// A watch that breaks, stutters and repeats itself.
struct Stormy {
    inner: Option<WatchStream>,
    weather: Arc<Weather>,
    dice: Dice,
    /// What comes next, before anything new is read.
    next: Vec<WatchEvent>,
    started: bool,
    /// The newest position that was delivered, and whether what came last had moved it. What did not is part of
    /// something that a resumption repeats from its start: cut there, it would go back.
    at: Option<Position>,
    whole: bool,
}

impl Stormy {
    async fn next(&mut self) -> Option<Result<WatchEvent>> {
        if let Some(event) = self.next.pop() {
            if let WatchEvent::Recovered = event {
                tokio::time::sleep(self.weather.rates.delay_by).await;
            }
            return Some(Ok(event));
        }
        let event = match self.inner.as_mut()?.next().await? {
            Ok(event) => event,
            Err(error) => return Some(Err(error)),
        };
        if self.whole
            && let Some(end) = self.weather.cuts(&self.dice)
        {
            self.inner = None;
            return end;
        }
        if let WatchEvent::Batch { position, .. } | WatchEvent::Progress(position) | WatchEvent::SnapshotEnd(position) =
            &event
        {
            self.whole = !matches!(event, WatchEvent::Batch { .. }) || self.at.as_ref() != Some(position);
            self.at = Some(position.clone());
        }
        let (rates, counts) = (&self.weather.rates, &self.weather.counts);
        // A snapshot is one thing: nothing is said in its middle.
        let starts = matches!(event, WatchEvent::SnapshotEnd(_) | WatchEvent::Resumed);
        let between = self.started && matches!(event, WatchEvent::Batch { .. } | WatchEvent::Progress(_));
        self.started |= starts;
        if between && self.weather.strikes(&self.dice, rates.interrupt, &counts.interrupted) {
            self.next = vec![event, WatchEvent::Recovered];
            let cause = Error::new(ErrorKind::Unavailable, "chaos: the watch is interrupted");
            return Some(Ok(WatchEvent::Interrupted(cause)));
        }
        if matches!(event, WatchEvent::Batch { .. })
            && self.weather.strikes(&self.dice, rates.duplicate, &counts.duplicated)
        {
            self.next.push(event.clone());
        }
        Some(Ok(event))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Watcher for Chaos {
    async fn watch(&self, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
        self.weather.before()?;
        let stream = self.inner.watch(scope, after).await;
        let stormy = Stormy {
            inner: Some(self.weather.after(stream)?),
            weather: Arc::clone(&self.weather),
            dice: self.weather.dice.fork(),
            next: Vec::new(),
            started: false,
            at: after.cloned(),
            whole: true,
        };
        let stream = stream::unfold(stormy, |mut stormy| async {
            let item = stormy.next().await?;
            Some((item, stormy))
        });
        Ok(held(stream.boxed(), self.delays()))
    }

    async fn list(&self, scope: &Scope) -> Result<(Vec<Entry>, Position)> {
        self.weather.before()?;
        let answer = self.inner.list(scope).await;
        self.weather.after(answer)
    }

    fn coarsen(&self, scope: &Scope) -> Scope {
        self.inner.coarsen(scope)
    }

    async fn barrier(&self, scope: &Scope) -> Result<Option<Position>> {
        self.weather.before()?;
        let answer = self.inner.barrier(scope).await;
        self.weather.after(answer)
    }

    fn reached(&self, at: &Position, target: &Position) -> bool {
        self.inner.reached(at, target)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Registrar for Chaos {
    async fn open(&self, request: &SessionRequest) -> Result<Box<dyn Session>> {
        self.weather.before()?;
        let inner = self.inner.open(request).await;
        let inner = self.weather.after(inner)?;
        Ok(Box::new(Shaken { inner, weather: Arc::clone(&self.weather), lost: watch::Sender::new(false) }))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for Chaos {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn bounds(&self) -> Bounds {
        let rates = &self.weather.rates;
        let mut bounds = self.inner.bounds();
        if rates.delay > 0.0 || rates.interrupt > 0.0 {
            // An event may wait for an interruption to end, and be late on top.
            bounds.propagation += rates.delay_by * 2;
            bounds.silence = bounds.silence.map(|silence| silence + rates.delay_by * 2);
        }
        bounds
    }

    fn admit(&self, key: &Key, value: usize) -> Result<()> {
        self.inner.admit(key, value)
    }

    async fn health(&self) -> Result<Health> {
        self.weather.before()?;
        let answer = self.inner.health().await;
        self.weather.after(answer)
    }

    fn change_log(&self) -> Option<&dyn ChangeLog> {
        self.inner.change_log().map(|_| self as &dyn ChangeLog)
    }

    async fn close(&self) -> Result<()> {
        // Called once: to fail here would leak what is open.
        self.inner.close().await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ChangeLog for Chaos {
    async fn now(&self) -> Result<Position> {
        self.weather.before()?;
        let answer = log_of(&*self.inner)?.now().await;
        self.weather.after(answer)
    }

    async fn changes_since(
        &self,
        scope: &Scope,
        token: &Position,
    ) -> Result<BoxStream<'static, Result<(Vec<Change>, Position)>>> {
        self.weather.before()?;
        let stream = log_of(&*self.inner)?.changes_since(scope, token).await;
        let (weather, dice) = (Arc::clone(&self.weather), self.weather.dice.fork());
        let state = (Some(self.weather.after(stream)?), weather, dice);
        let stream = stream::unfold(state, |(inner, weather, dice)| async move {
            let mut inner = inner?;
            let item = inner.next().await?;
            match weather.cuts::<()>(&dice) {
                // The end of a log would look like its last change.
                Some(_) => {
                    let cause = Error::new(ErrorKind::Unavailable, "chaos: the stream was cut");
                    Some((Err(cause), (None, weather, dice)))
                }
                None => Some((item, (Some(inner), weather, dice))),
            }
        });
        Ok(held(stream.boxed(), self.delays()))
    }
}

struct Shaken {
    inner: Box<dyn Session>,
    weather: Arc<Weather>,
    lost: watch::Sender<bool>,
}

impl Shaken {
    fn gone() -> Error {
        Error::new(ErrorKind::SessionLost, "chaos: the session was ended")
    }

    fn check(&self) -> Result<()> {
        if *self.lost.borrow() { Err(Self::gone()) } else { Ok(()) }
    }

    /// Whether the session ends now.
    async fn survives(&self) -> Result<()> {
        self.check()?;
        let (rate, count) = (self.weather.rates.lose_session, &self.weather.counts.lost_sessions);
        if self.weather.strikes(&self.weather.dice, rate, count) {
            // Writes are refused from now on. What could not be removed expires, or is taken over by the next session.
            self.lost.send_replace(true);
            let _ = self.inner.close().await;
            return Err(Self::gone());
        }
        Ok(())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Session for Shaken {
    fn id(&self) -> InstanceId {
        self.inner.id()
    }

    fn effective_ttl(&self) -> Option<Duration> {
        self.inner.effective_ttl()
    }

    async fn renew(&self) -> Result<Duration> {
        self.survives().await?;
        self.weather.before()?;
        let answer = self.inner.renew().await;
        self.weather.after(answer)
    }

    async fn publish(&self, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        let all = |error: &Error| batch.writes.iter().map(|write| Err(error.clone().with_key(write.key()))).collect();
        if let Err(error) = self.check().and_then(|()| self.weather.before()) {
            return all(&error);
        }
        let results = self.inner.publish(batch, desired).await;
        if self.weather.loses_answer() { all(&unanswered()) } else { results }
    }

    async fn verify(&self, desired: &Desired) -> Result<Vec<(Key, Drift)>> {
        self.survives().await?;
        self.weather.before()?;
        let answer = self.inner.verify(desired).await;
        self.weather.after(answer)
    }

    fn verify_by(&self) -> Option<Instant> {
        self.inner.verify_by()
    }

    async fn lost(&self) -> Error {
        let mut lost = self.lost.subscribe();
        tokio::select! {
            biased;
            // The sender lives in the session.
            _ = lost.wait_for(|lost| *lost) => Self::gone(),
            cause = self.inner.lost() => cause,
        }
    }

    async fn close(&self) -> Result<()> {
        if self.check().is_err() {
            return Ok(());
        }
        let answer = self.inner.close().await;
        self.weather.after(answer)
    }
}
