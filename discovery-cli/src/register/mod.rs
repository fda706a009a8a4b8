//! `discovery register`: holds a record until told to stop.

mod guard;
pub(crate) mod probe;
mod record;

use std::time::Duration;

use discovery_core::{Discovery, RegistrationState};
use discovery_health::{HealthServer, HealthSettings, Readiness};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::arguments::{Hold, KnownKind, Register};
use crate::backends::{close, connect, patiently};
use crate::failure::{Failure, Outcome, tell};
use crate::output::line;
use crate::signals::StopSignals;
use guard::Guard;
use probe::{Health, probe};
use record::Registrant;

/// How long after a failure that may pass the record is registered again.
const AGAIN: Duration = Duration::from_secs(1);

pub(crate) async fn register(backend: Option<&str>, arguments: Register) -> Outcome {
    let (registrant, hold) = match arguments {
        Register { known: Some(known), .. } => {
            let hold = hold_of(&known).clone();
            (Registrant::of_known_kind(known)?, hold)
        }
        Register { any: Some(any), hold, .. } => (Registrant::of_any_kind(any)?, hold),
        Register { .. } => return Err(Failure::usage("what to register is missing: see `discovery register --help`")),
    };
    let mut stop = StopSignals::listen()?;
    let readiness = Readiness::new();
    // Before anything is connected, so that a probe hears that it lives.
    let server = match hold.health.clone() {
        Some(address) => Some(HealthServer::start(HealthSettings::new(address), readiness.clone()).await?),
        None => HealthServer::from_env(readiness.clone()).await?,
    };
    let discovery = tokio::select! {
        _ = stop.stop() => return Ok(()),
        discovery = connect(backend) => discovery?,
    };
    let mut holder = Holder {
        discovery: &discovery,
        registrant,
        readiness: &readiness,
        guard: None,
        state: RegistrationState::Pending,
        announced: false,
    };
    let held = tokio::select! {
        _ = stop.stop() => Ok(()),
        held = holder.hold(hold) => held,
    };
    readiness.not_ready("ending");
    // What is held is withdrawn by the shutdown, which also says what it could not withdraw.
    let closed = close(&discovery).await;
    if let Some(server) = server {
        server.shutdown().await;
    }
    held.and(closed)
}

fn hold_of(known: &KnownKind) -> &Hold {
    match known {
        KnownKind::Endpoint { hold, .. }
        | KnownKind::Model { hold, .. }
        | KnownKind::EventChannel { hold, .. }
        | KnownKind::EventSource { hold, .. } => hold,
    }
}

struct Holder<'a> {
    discovery: &'a Discovery,
    registrant: Registrant,
    readiness: &'a Readiness,
    guard: Option<Box<dyn Guard>>,
    state: RegistrationState,
    /// Whether the instance id was printed.
    announced: bool,
}

impl Holder<'_> {
    /// Holds the record for as long as it is healthy. Ends with a failure only.
    async fn hold(&mut self, hold: Hold) -> Outcome {
        let (sender, mut health) = watch::channel(Health::Unknown);
        let mut tasks = JoinSet::new();
        let probed = hold.probe.is_some();
        match hold.probe {
            Some(url) => drop(tasks.spawn(probe(url, hold.probe_interval.0, sender))),
            None => drop(sender.send_replace(Health::Good)),
        }
        loop {
            let wanted = health.borrow_and_update().clone();
            let again = match (wanted, self.guard.is_some()) {
                (Health::Good, false) => self.register(probed).await?,
                (Health::Bad(cause), true) => {
                    self.readiness.not_ready(cause.as_str());
                    self.withdraw(&cause).await;
                    false
                }
                (Health::Bad(cause), false) => {
                    self.readiness.not_ready(cause.as_str());
                    tell(format!("not healthy, not registered: {cause}"));
                    false
                }
                _ => false,
            };
            tokio::select! {
                Ok(()) = health.changed() => {}
                state = changed(self.guard.as_deref(), &self.state) => self.follow(state)?,
                () = sleep(AGAIN), if again => {}
            }
        }
    }

    /// Registers; answers whether to try again.
    async fn register(&mut self, probed: bool) -> Outcome<bool> {
        let guard = match patiently(self.discovery, self.registrant.register(self.discovery)).await {
            Ok(guard) => guard,
            // The first failure is told by the exit code; a server that was registered before is not given up.
            Err(error) if self.announced && error.is_temporary() => {
                tell(format!("not registered: {error}: trying again"));
                return Ok(true);
            }
            Err(error) => return Err(error.into()),
        };
        let key = guard.key().clone();
        if probed {
            tell(format!("healthy: {key} is registered"));
        }
        self.state = RegistrationState::Registered;
        guard.require(self.readiness);
        self.readiness.ready();
        self.guard = Some(guard);
        if !std::mem::replace(&mut self.announced, true) {
            line(&mut std::io::stdout().lock(), key.instance())?;
        }
        Ok(false)
    }

    async fn withdraw(&mut self, cause: &str) {
        let Some(guard) = self.guard.take() else { return };
        match guard.deregister().await {
            Ok(()) => tell(format!("not healthy: {} is withdrawn: {cause}", guard.key())),
            Err(error) => tell(format!("not healthy: {} is being withdrawn: {cause}: {error}", guard.key())),
        }
    }

    /// Tells what becomes of the registration.
    fn follow(&mut self, state: RegistrationState) -> Outcome {
        match &state {
            RegistrationState::Lost(cause) => tell(format!("registration lost, being put back: {cause}")),
            RegistrationState::Registered => tell("registration is back"),
            RegistrationState::Failed(cause) => return Err(cause.clone().into()),
            _ => {}
        }
        self.state = state;
        Ok(())
    }
}

async fn changed(guard: Option<&dyn Guard>, known: &RegistrationState) -> RegistrationState {
    match guard {
        Some(guard) => guard.changed(known).await,
        None => std::future::pending().await,
    }
}
