//! A registration of any type.

use std::sync::Arc;

use discovery_core::{Key, Registration, RegistrationState, Result};
use discovery_health::Readiness;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

/// A registration without its type.
pub(crate) trait Guard: Send + Sync {
    fn key(&self) -> &Key;
    /// Resolves once the state is another than `known`. Cancel-safe.
    fn changed<'a>(&'a self, known: &'a RegistrationState) -> BoxFuture<'a, RegistrationState>;
    fn deregister(&self) -> BoxFuture<'_, Result<()>>;
    /// Has readiness ask for it.
    fn require(&self, readiness: &Readiness);
}

impl<T: Send + Sync + 'static> Guard for Arc<Registration<T>> {
    fn key(&self) -> &Key {
        Registration::key(self)
    }

    fn changed<'a>(&'a self, known: &'a RegistrationState) -> BoxFuture<'a, RegistrationState> {
        self.wait_for(|state| state.as_str() != known.as_str()).boxed()
    }

    fn deregister(&self) -> BoxFuture<'_, Result<()>> {
        Registration::deregister(self).boxed()
    }

    fn require(&self, readiness: &Readiness) {
        readiness.require(self);
    }
}

pub(crate) fn guard<T: Send + Sync + 'static>(registration: Registration<T>) -> Box<dyn Guard> {
    Box::new(Arc::new(registration))
}
