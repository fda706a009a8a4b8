//! Any backend that a program has linked in, as it is configured: a black box in a store that others may use.
//!
//! Each world lies below a path segment of its own, which is put before every path on its way in and taken off on its way
//! out, so that cases see what they wrote and nothing else, and others see their records nowhere among theirs. What the
//! cases wrote is withdrawn by the sessions that wrote it. Between the core and the backend a way can be broken, which
//! asks nothing of the store.

mod place;
mod sessions;
mod tenant;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use discovery_core::backend::Backend;
use discovery_core::{BackendContext, BackendFactory, Environment, Error, ErrorKind, Result, TaskScope};

use self::place::Segment;
use self::sessions::{Sessions, World as Number};
use self::tenant::{Tenant, Way};
use crate::world::{Factory, Fault, Hook, World};

/// Worlds in the store that a linked backend is configured to use.
pub struct Linked {
    factory: BackendFactory,
    environment: Environment,
    sessions: Arc<Sessions>,
}

impl Linked {
    /// Worlds of `factory`, whose settings are those of `environment`.
    pub fn new(factory: BackendFactory, environment: Environment) -> Self {
        Self { factory, environment, sessions: Arc::default() }
    }

    /// Ends all worlds: nothing is written from now on, and what was written is withdrawn. For a run that is stopped.
    ///
    /// Cancelled, it has withdrawn a part, and may be called again.
    ///
    /// # Errors
    /// What could not be withdrawn; it goes when its time to live has passed.
    pub async fn withdraw(&self) -> Result<()> {
        self.sessions.stop();
        self.sessions.close(None).await
    }
}

#[async_trait]
impl Factory for Linked {
    fn name(&self) -> &str {
        self.factory.name
    }

    // Between the core and the backend. What a fault does inside of the store, nobody knows here.
    fn hooks(&self) -> Vec<Hook> {
        vec![Hook::Cut, Hook::Outage, Hook::Deny, Hook::DropAcks]
    }

    async fn world(&self) -> Result<Box<dyn World>> {
        self.sessions.check()?;
        Ok(Box::new(Place {
            factory: self.factory,
            environment: self.environment.clone(),
            segment: Segment::new(),
            number: self.sessions.world(),
            sessions: Arc::clone(&self.sessions),
            ways: Mutex::default(),
        }))
    }
}

/// One world.
struct Place {
    factory: BackendFactory,
    environment: Environment,
    segment: Segment,
    number: Number,
    sessions: Arc<Sessions>,
    ways: Mutex<Ways>,
}

/// The owners, each with its own way, and whether the store is away for all of them, those who come later included.
#[derive(Default)]
struct Ways {
    tenants: Vec<(usize, Arc<Tenant>)>,
    outage: bool,
}

impl Ways {
    fn of(&self, n: usize) -> Result<&Tenant> {
        let found = self.tenants.iter().find(|(number, _)| *number == n);
        let missing = || Error::new(ErrorKind::Internal, format!("there is no owner {n}"));
        found.map(|(_, tenant)| &**tenant).ok_or_else(missing)
    }
}

impl Place {
    fn ways(&self) -> MutexGuard<'_, Ways> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl World for Place {
    async fn owner(&self, n: usize) -> Result<Arc<dyn Backend>> {
        let context = BackendContext::new(self.environment.clone(), TaskScope::current());
        let inner = (self.factory.connect)(context).await?;
        let tenant = Arc::new(Tenant::new(inner, self.segment.clone(), self.number, Arc::clone(&self.sessions)));
        let mut ways = self.ways();
        tenant.set_outage(ways.outage);
        ways.tenants.push((n, Arc::clone(&tenant)));
        Ok(tenant)
    }

    async fn inject(&self, fault: Fault) -> Result<()> {
        let mut ways = self.ways();
        match fault {
            Fault::Cut(n) => ways.of(n)?.set(Way::Fails(ErrorKind::Unavailable)),
            Fault::Deny(n) => ways.of(n)?.set(Way::Fails(ErrorKind::PermissionDenied)),
            Fault::Heal(n) | Fault::Allow(n) | Fault::DropAcks(n, false) => ways.of(n)?.set(Way::Whole),
            Fault::DropAcks(n, true) => ways.of(n)?.set(Way::LosesAnswers),
            Fault::Outage | Fault::Restore => {
                ways.outage = matches!(fault, Fault::Outage);
                let outage = ways.outage;
                ways.tenants.iter().for_each(|(_, tenant)| tenant.set_outage(outage));
            }
            other => {
                let text = format!("nothing like {} can be done to a store that others may use", other.hook());
                return Err(Error::new(ErrorKind::Unsupported, text));
            }
        }
        Ok(())
    }

    async fn close(&self) {
        // What is left then is found by whoever ends the run.
        if let Err(error) = self.sessions.close(Some(self.number)).await {
            tracing::warn!(%error, "records of a case are left");
        }
    }
}
