//! The backends that a program has linked in.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::backend::Backend;
use crate::environment::Environment;
use crate::error::{Error, ErrorKind, Result};
use crate::executor::TaskScope;

/// What a factory gets to build a backend from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BackendContext {
    /// The settings.
    pub environment: Environment,
    /// Where the backend's background work runs. The core cancels and joins it.
    pub tasks: TaskScope,
    /// How long connecting may take at most, as the handle was configured.
    pub connect_timeout: Duration,
    allowed: Arc<OnceLock<Duration>>,
}

impl BackendContext {
    /// A context of `environment` and `tasks`, with a time-out of ten seconds.
    pub fn new(environment: Environment, tasks: TaskScope) -> Self {
        Self { environment, tasks, connect_timeout: Duration::from_secs(10), allowed: Arc::default() }
    }

    /// The same context with another time-out for connecting.
    pub fn with_connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// For a backend of which a setting of its own says how long connecting waits for the store: that is how long it may take,
    /// where the handle's own time-out is shorter. The first call counts.
    pub fn allow(&self, time: Duration) {
        let _ = self.allowed.set(time);
    }

    pub(crate) fn allowed(&self) -> Option<Duration> {
        self.allowed.get().copied()
    }
}

/// Builds a backend. Runs on the core's own executor, so connections that are made here live there.
pub type Connect = fn(BackendContext) -> BoxFuture<'static, Result<Arc<dyn Backend>>>;

/// A backend that can be picked by name.
///
/// A backend crate submits one with `inventory::submit!`, and a program links it in with `use the_crate as _;`.
/// [`Builder::factory`](crate::Builder::factory) adds one without `inventory`.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct BackendFactory {
    /// The name in `DYN_DISCOVERY_BACKEND`.
    pub name: &'static str,
    /// Other names for the same backend.
    pub aliases: &'static [&'static str],
    /// The crate it comes from, for error messages.
    pub origin: &'static str,
    /// What it is, in one line.
    pub summary: &'static str,
    /// Builds it.
    pub connect: Connect,
}

inventory::collect!(BackendFactory);

impl BackendFactory {
    /// A factory of the backend `name`, which the crate `origin` brings, with one line that says what it is.
    pub const fn new(name: &'static str, origin: &'static str, summary: &'static str, connect: Connect) -> Self {
        Self { name, aliases: &[], origin, summary, connect }
    }

    /// The same factory under other names, too.
    pub const fn with_aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    fn answers_to(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }
}

/// The known factories, by name.
#[derive(Clone, Debug)]
pub struct Registry {
    factories: Vec<BackendFactory>,
}

impl Registry {
    /// The backends that were linked in through `inventory`.
    pub fn linked() -> Self {
        let mut factories: Vec<_> = inventory::iter::<BackendFactory>.into_iter().copied().collect();
        factories.sort_by_key(|factory| (factory.name, factory.origin));
        Self { factories }
    }

    /// No backend at all: for programs that name theirs with [`Registry::with`].
    pub fn empty() -> Self {
        Self { factories: Vec::new() }
    }

    /// The same registry with one more.
    pub fn with(mut self, factory: BackendFactory) -> Self {
        self.factories.push(factory);
        self
    }

    /// The factories, by name.
    pub fn iter(&self) -> impl Iterator<Item = &BackendFactory> {
        self.factories.iter()
    }

    /// The factory of this name.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] where there is none, listing those that there are and what to add, or where two
    /// crates offer the same name, naming both.
    pub fn find(&self, name: &str) -> Result<&BackendFactory> {
        let mut found = self.factories.iter().filter(|factory| factory.answers_to(name));
        let Some(first) = found.next() else {
            return Err(Error::new(ErrorKind::InvalidConfig, self.missing(name)));
        };
        match found.next() {
            None => Ok(first),
            Some(second) => Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "two backends are called {name:?}, of the crates {} and {}: link only one of them",
                    first.origin, second.origin
                ),
            )),
        }
    }

    fn missing(&self, name: &str) -> String {
        let hint = match name {
            "kubernetes" => "; add `use discovery_k8s as _;` to the program".to_owned(),
            "etcd" | "file" | "memory" => format!("; add `use discovery_{name} as _;` to the program"),
            "mem" => "; add `use discovery_memory as _;` to the program".to_owned(),
            _ if self.factories.is_empty() => "; add the crate that brings it and `use that_crate as _;`".to_owned(),
            _ => "; choose one of these, or add the crate that brings it and `use that_crate as _;`".to_owned(),
        };
        if self.factories.is_empty() {
            return format!("no backend {name:?}: this program has none linked in{hint}");
        }
        let known: Vec<_> = self.factories.iter().map(|factory| factory.name).collect();
        format!("no backend {name:?}: this program has {}{hint}", known.join(", "))
    }
}
