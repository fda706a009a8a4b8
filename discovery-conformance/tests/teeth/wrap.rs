//! A backend around another one, whose every answer a twist can spoil.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use discovery_conformance::{Clock, Factory, Fault, Hook, World};
use discovery_core::backend::{
    Backend, Change, ChangeLog, Desired, Drift, Entry, Health, Position, Registrar, Session, SessionRequest, Stamp,
    WatchStream, Watcher, WriteBatch,
};
use discovery_core::{Bounds, Capabilities, Error, InstanceId, Key, Result, Scope};
use futures_util::stream::BoxStream;
use tokio::time::Instant;

pub(crate) type LogStream = BoxStream<'static, Result<(Vec<Change>, Position)>>;

/// What is wrong with a backend. Whatever is not overridden is right. Each owner has one of its own.
#[async_trait]
pub(crate) trait Twist: Send + Sync + 'static {
    fn bounds(&self, bounds: Bounds) -> Bounds {
        bounds
    }

    fn capabilities(&self, capabilities: Capabilities) -> Capabilities {
        capabilities
    }

    fn admit(&self, inner: &dyn Backend, key: &Key, value: usize) -> Result<()> {
        inner.admit(key, value)
    }

    fn stream(&self, stream: WatchStream) -> WatchStream {
        stream
    }

    async fn watch(&self, inner: &Arc<dyn Backend>, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
        Ok(self.stream(inner.watch(scope, after).await?))
    }

    async fn list(&self, inner: &Arc<dyn Backend>, scope: &Scope) -> Result<(Vec<Entry>, Position)> {
        inner.list(scope).await
    }

    async fn barrier(&self, inner: &Arc<dyn Backend>, scope: &Scope) -> Result<Option<Position>> {
        inner.barrier(scope).await
    }

    fn reached(&self, inner: &dyn Backend, at: &Position, target: &Position) -> bool {
        inner.reached(at, target)
    }

    async fn open(&self, inner: &Arc<dyn Backend>, request: &SessionRequest) -> Result<Box<dyn Session>> {
        inner.open(request).await
    }

    fn effective_ttl(&self, ttl: Option<Duration>) -> Option<Duration> {
        ttl
    }

    async fn renew(&self, inner: &Arc<dyn Session>) -> Result<Duration> {
        inner.renew().await
    }

    async fn publish(&self, inner: &Arc<dyn Session>, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        inner.publish(batch, desired).await
    }

    async fn verify(&self, inner: &Arc<dyn Session>, desired: &Desired) -> Result<Vec<(Key, Drift)>> {
        inner.verify(desired).await
    }

    async fn lost(&self, inner: &Arc<dyn Session>) -> Error {
        inner.lost().await
    }

    async fn close(&self, inner: &Arc<dyn Session>) -> Result<()> {
        inner.close().await
    }

    async fn changes_since(&self, inner: &dyn ChangeLog, scope: &Scope, token: &Position) -> Result<LogStream> {
        inner.changes_since(scope, token).await
    }

    /// The fault that is done instead, for what a world decides; `None` for nothing.
    fn fault(&self, fault: Fault) -> Option<Fault> {
        Some(fault)
    }
}

/// How a twist is made.
pub(crate) type Make = fn() -> Arc<dyn Twist>;

/// A factory whose backends are all twisted.
pub(crate) struct Twisted {
    pub(crate) factory: Arc<dyn Factory>,
    pub(crate) make: Make,
}

#[async_trait]
impl Factory for Twisted {
    fn name(&self) -> &str {
        "twisted"
    }

    fn clock(&self) -> Clock {
        self.factory.clock()
    }

    fn hooks(&self) -> Vec<Hook> {
        self.factory.hooks()
    }

    fn patience(&self) -> u32 {
        self.factory.patience()
    }

    async fn world(&self) -> Result<Box<dyn World>> {
        Ok(Box::new(TwistedWorld { world: self.factory.world().await?, make: self.make }))
    }
}

struct TwistedWorld {
    world: Box<dyn World>,
    make: Make,
}

#[async_trait]
impl World for TwistedWorld {
    async fn owner(&self, n: usize) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(Wrapped { inner: self.world.owner(n).await?, twist: (self.make)() }))
    }

    async fn inject(&self, fault: Fault) -> Result<()> {
        match (self.make)().fault(fault) {
            Some(fault) => self.world.inject(fault).await,
            None => Ok(()),
        }
    }

    async fn close(&self) {
        self.world.close().await;
    }
}

struct Wrapped {
    inner: Arc<dyn Backend>,
    twist: Arc<dyn Twist>,
}

#[async_trait]
impl Watcher for Wrapped {
    async fn watch(&self, scope: &Scope, after: Option<&Position>) -> Result<WatchStream> {
        self.twist.watch(&self.inner, scope, after).await
    }

    async fn list(&self, scope: &Scope) -> Result<(Vec<Entry>, Position)> {
        self.twist.list(&self.inner, scope).await
    }

    fn coarsen(&self, scope: &Scope) -> Scope {
        self.inner.coarsen(scope)
    }

    async fn barrier(&self, scope: &Scope) -> Result<Option<Position>> {
        self.twist.barrier(&self.inner, scope).await
    }

    fn reached(&self, at: &Position, target: &Position) -> bool {
        self.twist.reached(&*self.inner, at, target)
    }
}

#[async_trait]
impl Registrar for Wrapped {
    async fn open(&self, request: &SessionRequest) -> Result<Box<dyn Session>> {
        let inner = Arc::from(self.twist.open(&self.inner, request).await?);
        Ok(Box::new(WrappedSession { inner, twist: Arc::clone(&self.twist) }))
    }
}

#[async_trait]
impl Backend for Wrapped {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn capabilities(&self) -> Capabilities {
        self.twist.capabilities(self.inner.capabilities())
    }

    fn bounds(&self) -> Bounds {
        self.twist.bounds(self.inner.bounds())
    }

    fn admit(&self, key: &Key, value: usize) -> Result<()> {
        self.twist.admit(&*self.inner, key, value)
    }

    async fn health(&self) -> Result<Health> {
        self.inner.health().await
    }

    fn change_log(&self) -> Option<&dyn ChangeLog> {
        self.inner.change_log().map(|_| self as &dyn ChangeLog)
    }

    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
}

#[async_trait]
impl ChangeLog for Wrapped {
    async fn now(&self) -> Result<Position> {
        self.inner.change_log().expect("a change log").now().await
    }

    async fn changes_since(&self, scope: &Scope, token: &Position) -> Result<LogStream> {
        self.twist.changes_since(self.inner.change_log().expect("a change log"), scope, token).await
    }
}

struct WrappedSession {
    inner: Arc<dyn Session>,
    twist: Arc<dyn Twist>,
}

#[async_trait]
impl Session for WrappedSession {
    fn id(&self) -> InstanceId {
        self.inner.id()
    }

    fn effective_ttl(&self) -> Option<Duration> {
        self.twist.effective_ttl(self.inner.effective_ttl())
    }

    async fn renew(&self) -> Result<Duration> {
        self.twist.renew(&self.inner).await
    }

    async fn publish(&self, batch: &WriteBatch, desired: &Desired) -> Vec<Result<Stamp>> {
        self.twist.publish(&self.inner, batch, desired).await
    }

    async fn verify(&self, desired: &Desired) -> Result<Vec<(Key, Drift)>> {
        self.twist.verify(&self.inner, desired).await
    }

    fn verify_by(&self) -> Option<Instant> {
        self.inner.verify_by()
    }

    async fn lost(&self) -> Error {
        self.twist.lost(&self.inner).await
    }

    async fn close(&self) -> Result<()> {
        self.twist.close(&self.inner).await
    }
}
