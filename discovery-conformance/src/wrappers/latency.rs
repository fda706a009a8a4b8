//! A backend whose calls and events take longer.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use discovery_core::backend::{
    Backend, Change, ChangeLog, Desired, Drift, Entry, Health, Position, Registrar, Session, SessionRequest, Stamp,
    WatchStream, Watcher, WriteBatch,
};
use discovery_core::{Bounds, Capabilities, Error, ErrorKind, InstanceId, Key, Result, Scope};
use futures_util::stream::BoxStream;
use tokio::time::{Instant, sleep};

use super::Dice;
use super::held::held;

/// How long something takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Distribution {
    /// Always the same.
    Constant(Duration),
    /// Anything between the two, equally likely.
    Uniform(Duration, Duration),
    /// Exponential: mostly around the first, seldom much longer, never longer than the second.
    Tail(Duration, Duration),
}

impl Distribution {
    /// The longest that it can be.
    pub fn longest(&self) -> Duration {
        match *self {
            Self::Constant(by) => by,
            Self::Uniform(one, other) => one.max(other),
            Self::Tail(_, cap) => cap,
        }
    }

    fn draw(&self, dice: &Dice) -> Duration {
        match *self {
            Self::Constant(by) => by,
            Self::Uniform(one, other) => {
                let (low, high) = (one.min(other), one.max(other));
                low + (high - low).mul_f64(dice.roll())
            }
            // A roll is below 1, so the logarithm is finite.
            Self::Tail(mean, cap) => mean.mul_f64(-(1.0 - dice.roll()).ln()).min(cap),
        }
    }
}

/// A backend whose every call takes longer on its way there and on its way back, and whose events come later, in their
/// order. What is drawn depends on the seed.
///
/// It declares bounds that count the longest delay. A call that is dropped on its way there had no effect.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use discovery_conformance::wrappers::{Distribution, Latency};
/// use discovery_core::backend::{Backend, Watcher};
/// use discovery_core::Scope;
/// use discovery_memory::Cluster;
/// use tokio::time::Instant;
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> discovery_core::Result<()> {
/// let inner: Arc<dyn Backend> = Arc::new(Cluster::new().connect());
/// let slow = Latency::around(inner, 7, Distribution::Constant(Duration::from_millis(30)));
/// let start = Instant::now();
/// slow.list(&Scope::all()).await?;
/// assert_eq!(start.elapsed(), Duration::from_millis(60));
/// # Ok(())
/// # }
/// ```
pub struct Latency {
    inner: Arc<dyn Backend>,
    by: Distribution,
    dice: Arc<Dice>,
}

impl Latency {
    /// Puts latency around a backend.
    pub fn around(inner: Arc<dyn Backend>, seed: u64, by: Distribution) -> Arc<Self> {
        Arc::new(Self { inner, by, dice: Arc::new(Dice::new(seed)) })
    }

    async fn pass(&self) {
        sleep(self.by.draw(&self.dice)).await;
    }

    fn delays(&self) -> impl Fn() -> Duration + Send + Sync + 'static + use<> {
        let (by, dice) = (self.by, self.dice.fork());
        move || by.draw(&dice)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Watcher for Latency {
    async fn watch(&self, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
        self.pass().await;
        let stream = self.inner.watch(scope, after).await;
        self.pass().await;
        Ok(held(stream?, self.delays()))
    }

    async fn list(&self, scope: &Scope) -> Result<(Vec<Entry>, Position)> {
        self.pass().await;
        let answer = self.inner.list(scope).await;
        self.pass().await;
        answer
    }

    fn coarsen(&self, scope: &Scope) -> Scope {
        self.inner.coarsen(scope)
    }

    async fn barrier(&self, scope: &Scope) -> Result<Option<Position>> {
        self.pass().await;
        let answer = self.inner.barrier(scope).await;
        self.pass().await;
        answer
    }

    fn reached(&self, at: &Position, target: &Position) -> bool {
        self.inner.reached(at, target)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Registrar for Latency {
    async fn open(&self, request: &SessionRequest) -> Result<Box<dyn Session>> {
        self.pass().await;
        let inner = self.inner.open(request).await;
        self.pass().await;
        Ok(Box::new(Slow { inner: inner?, by: self.by, dice: Arc::clone(&self.dice) }))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Backend for Latency {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn bounds(&self) -> Bounds {
        let longest = self.by.longest();
        let mut bounds = self.inner.bounds();
        // A call there and back, and an event on its way: what is proven by a barrier or a renewal takes that long.
        bounds.propagation += longest * 3;
        bounds.slack += longest * 2;
        // The core gives a call about this long, and a repair is several of them.
        bounds.recovery += longest * 8;
        bounds.silence = bounds.silence.map(|silence| silence + longest);
        bounds.min_ttl = bounds.min_ttl.map(|ttl| ttl.max(longest * 12));
        bounds
    }

    fn admit(&self, key: &Key, value: usize) -> Result<()> {
        self.inner.admit(key, value)
    }

    async fn health(&self) -> Result<Health> {
        self.pass().await;
        let answer = self.inner.health().await;
        self.pass().await;
        answer
    }

    fn change_log(&self) -> Option<&dyn ChangeLog> {
        self.inner.change_log().map(|_| self as &dyn ChangeLog)
    }

    async fn close(&self) -> Result<()> {
        self.pass().await;
        self.inner.close().await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl ChangeLog for Latency {
    async fn now(&self) -> Result<Position> {
        self.pass().await;
        let answer = log_of(&*self.inner)?.now().await;
        self.pass().await;
        answer
    }

    async fn changes_since(
        &self,
        scope: &Scope,
        token: &Position,
    ) -> Result<BoxStream<'static, Result<(Vec<Change>, Position)>>> {
        self.pass().await;
        let stream = log_of(&*self.inner)?.changes_since(scope, token).await;
        self.pass().await;
        Ok(held(stream?, self.delays()))
    }
}

/// The log of the backend inside, asked for only where it has one.
pub(super) fn log_of(inner: &dyn Backend) -> Result<&dyn ChangeLog> {
    inner.change_log().ok_or_else(|| Error::new(ErrorKind::Unsupported, "the backend inside keeps no change log"))
}

struct Slow {
    inner: Box<dyn Session>,
    by: Distribution,
    dice: Arc<Dice>,
}

impl Slow {
    async fn pass(&self) {
        sleep(self.by.draw(&self.dice)).await;
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Session for Slow {
    fn id(&self) -> InstanceId {
        self.inner.id()
    }

    fn effective_ttl(&self) -> Option<Duration> {
        self.inner.effective_ttl()
    }

    async fn renew(&self) -> Result<Duration> {
        self.pass().await;
        // What is proven counts from the call inside, which comes later than this one: it holds from this one too.
        let life = self.inner.renew().await;
        self.pass().await;
        life
    }

    async fn publish(&self, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        self.pass().await;
        let results = self.inner.publish(batch, desired).await;
        self.pass().await;
        results
    }

    async fn verify(&self, desired: &Desired) -> Result<Vec<(Key, Drift)>> {
        self.pass().await;
        let answer = self.inner.verify(desired).await;
        self.pass().await;
        answer
    }

    fn verify_by(&self) -> Option<Instant> {
        self.inner.verify_by()
    }

    async fn lost(&self) -> Error {
        let cause = self.inner.lost().await;
        self.pass().await;
        cause
    }

    async fn close(&self) -> Result<()> {
        self.pass().await;
        let answer = self.inner.close().await;
        self.pass().await;
        answer
    }
}
