//! One owner's handle on a store of others: it sees its world alone, and its way there can be broken.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use discovery_core::backend::{
    Backend, Change, ChangeLog, Desired, Drift, Entry, Health, Position, Registrar, Session, SessionRequest, Stamp,
    WatchStream, Watcher, Write, WriteBatch,
};
use discovery_core::{Bounds, Capabilities, Effect, Error, ErrorKind, InstanceId, Key, Result, Scope};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::place::Segment;
use super::sessions::{Number, Sessions, World};

/// What is wrong with the way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Way {
    #[default]
    Whole,
    /// Calls and streams fail.
    Fails(ErrorKind),
    /// Writes are done, and their answers get lost.
    LosesAnswers,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    way: Way,
    outage: bool,
    /// How often it broke: a stream does not outlive that.
    breaks: u64,
}

impl State {
    fn check(self) -> Result<()> {
        let fails = |kind| Err(Error::new(kind, "the way to the store is broken"));
        match self.way {
            _ if self.outage => fails(ErrorKind::Unavailable),
            Way::Fails(kind) => fails(kind),
            Way::Whole | Way::LosesAnswers => Ok(()),
        }
    }
}

pub(super) struct Tenant {
    inner: Arc<dyn Backend>,
    segment: Segment,
    world: World,
    sessions: Arc<Sessions>,
    state: watch::Sender<State>,
}

impl Tenant {
    pub(super) fn new(inner: Arc<dyn Backend>, segment: Segment, world: World, sessions: Arc<Sessions>) -> Self {
        Self { inner, segment, world, sessions, state: watch::Sender::default() }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        self.state.send_modify(|state| {
            change(state);
            state.breaks += u64::from(state.check().is_err());
        });
    }

    pub(super) fn set(&self, way: Way) {
        self.change(|state| state.way = way);
    }

    pub(super) fn set_outage(&self, outage: bool) {
        self.change(|state| state.outage = outage);
    }

    fn check(&self) -> Result<()> {
        self.state.borrow().check()
    }

    /// What the store can watch of the scope.
    fn stored_scope(&self, scope: &Scope) -> Result<Scope> {
        Ok(self.inner.coarsen(&self.segment.stored_scope(scope)?))
    }
}

#[async_trait]
impl Watcher for Tenant {
    async fn watch(&self, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
        let state = self.state.subscribe();
        let opened = *state.borrow();
        opened.check()?;
        let inner = self.inner.watch(&self.stored_scope(scope)?, after).await?;
        let segment = self.segment.clone();
        let events = stream::unfold(Some((inner, state, segment)), move |open| async move {
            let (mut inner, mut state, segment) = open?;
            let broken = async {
                // The sender may be gone: nobody breaks the way any more.
                if state.wait_for(|state| state.breaks != opened.breaks).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            let event = tokio::select! {
                biased;
                () = broken => None,
                event = inner.next() => Some(event?),
            };
            Some(match event {
                Some(event) => (event.map(|event| segment.seen_event(event)), Some((inner, state, segment))),
                None => (Err(Error::new(ErrorKind::Unavailable, "the way to the store broke")), None),
            })
        });
        Ok(events.boxed())
    }

    async fn list(&self, scope: &Scope) -> Result<(Vec<Entry>, Position)> {
        self.check()?;
        let (entries, position) = self.inner.list(&self.stored_scope(scope)?).await?;
        self.check()?;
        let mut seen = self.segment.seen_entries(entries);
        seen.retain(|entry| scope.contains(&entry.key));
        Ok((seen, position))
    }

    fn coarsen(&self, scope: &Scope) -> Scope {
        let coarse = self.stored_scope(scope).and_then(|stored| self.segment.seen_scope(&stored));
        coarse.unwrap_or_else(|_| Scope::all())
    }

    async fn barrier(&self, scope: &Scope) -> Result<Option<Position>> {
        self.check()?;
        self.inner.barrier(&self.stored_scope(scope)?).await
    }

    fn reached(&self, at: &Position, target: &Position) -> bool {
        self.inner.reached(at, target)
    }
}

#[async_trait]
impl Registrar for Tenant {
    async fn open(&self, request: &SessionRequest) -> Result<Box<dyn Session>> {
        self.check()?;
        self.sessions.check()?;
        let inner: Arc<dyn Session> = Arc::from(self.inner.open(request).await?);
        let number = self.sessions.keep(self.world, &inner);
        let (segment, sessions, state) = (self.segment.clone(), Arc::clone(&self.sessions), self.state.clone());
        Ok(Box::new(Stay { inner, segment, sessions, number, over: AtomicBool::new(false), state }))
    }
}

#[async_trait]
impl ChangeLog for Tenant {
    async fn now(&self) -> Result<Position> {
        self.log()?.now().await
    }

    async fn changes_since(
        &self,
        scope: &Scope,
        token: &Position,
    ) -> Result<BoxStream<'static, Result<(Vec<Change>, Position)>>> {
        let (stored, segment) = (self.segment.stored_scope(scope)?, self.segment.clone());
        let changes = self.log()?.changes_since(&stored, token).await?;
        let seen = move |item: Result<(Vec<Change>, Position)>| {
            let seen = item.map(|(changes, position)| (segment.seen_changes(changes), position));
            // Others' transactions are none of this world's.
            let own = seen.as_ref().map_or(true, |(changes, _)| !changes.is_empty());
            std::future::ready(own.then_some(seen))
        };
        Ok(changes.filter_map(seen).boxed())
    }
}

impl Tenant {
    fn log(&self) -> Result<&dyn ChangeLog> {
        self.check()?;
        let missing = || Error::new(ErrorKind::Unsupported, "this backend keeps no change log");
        self.inner.change_log().ok_or_else(missing)
    }
}

#[async_trait]
impl Backend for Tenant {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn bounds(&self) -> Bounds {
        self.inner.bounds()
    }

    fn admit(&self, key: &Key, value: usize) -> Result<()> {
        let stored = self.segment.stored(key)?;
        self.inner.admit(&stored, value).map_err(|error| error.with_key(key))
    }

    async fn health(&self) -> Result<Health> {
        self.check()?;
        self.inner.health().await
    }

    fn change_log(&self) -> Option<&dyn ChangeLog> {
        self.inner.change_log().map(|_| self as &dyn ChangeLog)
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

/// A session in somebody else's store.
struct Stay {
    inner: Arc<dyn Session>,
    segment: Segment,
    sessions: Arc<Sessions>,
    number: Number,
    /// Whether it is closed or lost.
    over: AtomicBool,
    state: watch::Sender<State>,
}

impl Stay {
    fn check(&self) -> Result<()> {
        self.state.borrow().check()
    }

    /// What the session itself says of its end.
    fn noted<T>(&self, answer: Result<T>) -> Result<T> {
        if answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::SessionLost) {
            self.over.store(true, Ordering::Release);
        }
        answer
    }

    fn stored(&self, desired: &Desired) -> Result<Desired> {
        desired.iter().map(|(key, value)| Ok((self.segment.stored(key)?, value.clone()))).collect()
    }

    fn batch(&self, batch: &WriteBatch) -> Result<WriteBatch> {
        let stored = |write: &Write| {
            Ok(match write {
                Write::Put { key, value } => Write::Put { key: self.segment.stored(key)?, value: value.clone() },
                Write::Delete { key } => Write::Delete { key: self.segment.stored(key)? },
            })
        };
        Ok(WriteBatch { writes: batch.writes.iter().map(stored).collect::<Result<_>>()?, atomic: batch.atomic })
    }

    async fn published(&self, batch: &WriteBatch, desired: &Desired) -> Result<Vec<Result<Stamp>>> {
        self.check()?;
        self.sessions.check()?;
        let (stored, desired) = (self.batch(batch)?, self.stored(desired)?);
        let results = tokio::select! {
            biased;
            // What was under way is found out, and withdrawn, by whoever stopped the run.
            error = self.sessions.stopped() => return Err(error.with_effect(Effect::Unknown)),
            results = self.inner.publish(&stored, &desired) => results,
        };
        let state = *self.state.borrow();
        if state.way == Way::LosesAnswers || state.check().is_err() {
            let lost = Error::new(ErrorKind::Unavailable, "the answer got lost");
            return Err(lost.with_effect(Effect::Unknown));
        }
        let seen = |(write, result): (&Write, Result<Stamp>)| {
            self.noted(result).map_err(|error| if error.key().is_some() { error.with_key(write.key()) } else { error })
        };
        Ok(batch.writes.iter().zip(results).map(seen).collect())
    }
}

#[async_trait]
impl Session for Stay {
    fn id(&self) -> InstanceId {
        self.inner.id()
    }

    fn effective_ttl(&self) -> Option<Duration> {
        self.inner.effective_ttl()
    }

    async fn renew(&self) -> Result<Duration> {
        self.check()?;
        self.noted(self.inner.renew().await)
    }

    async fn publish(&self, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        match self.published(batch, desired).await {
            Ok(results) => results,
            Err(error) => vec![Err(error); batch.writes.len()],
        }
    }

    async fn verify(&self, desired: &Desired) -> Result<Vec<(Key, Drift)>> {
        self.check()?;
        let drifts = self.noted(self.inner.verify(&self.stored(desired)?).await)?;
        let seen = |(key, drift): (Key, Drift)| {
            let key = self.segment.seen(&key)?;
            let drift = match drift {
                Drift::Taken(error) => Drift::Taken(error.with_key(&key)),
                other => other,
            };
            Some((key, drift))
        };
        Ok(drifts.into_iter().filter_map(seen).collect())
    }

    fn verify_by(&self) -> Option<Instant> {
        self.inner.verify_by()
    }

    async fn lost(&self) -> Error {
        let error = self.inner.lost().await;
        self.over.store(true, Ordering::Release);
        error
    }

    async fn close(&self) -> Result<()> {
        self.check()?;
        self.noted(self.inner.close().await)?;
        self.over.store(true, Ordering::Release);
        Ok(())
    }
}

/// One that is dropped with records stored is kept for the end of its world, which withdraws them.
impl Drop for Stay {
    fn drop(&mut self) {
        if *self.over.get_mut() {
            self.sessions.forget(self.number);
        }
    }
}
