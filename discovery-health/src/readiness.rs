//! Is the process ready, and if not, what keeps it?

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use discovery_core::{Key, Registration, RegistrationState};

/// Whether a process is ready: the application says so, and the records that it requires are stored. Cloning shares it.
#[derive(Clone)]
pub struct Readiness {
    state: Arc<Mutex<State>>,
}

struct State {
    /// Why the application is not ready; `None` where it is.
    application: Option<String>,
    required: Vec<Box<dyn Required>>,
}

/// A registration of any type, which is not kept alive.
trait Required: Send {
    /// Where it stands; `None` once its record is not wanted any more.
    fn state(&self) -> Option<(Key, RegistrationState)>;
}

impl<T: Send + Sync> Required for Weak<Registration<T>> {
    fn state(&self) -> Option<(Key, RegistrationState)> {
        let registration = self.upgrade()?;
        match registration.state() {
            RegistrationState::Withdrawn => None,
            state => Some((registration.key().clone(), state)),
        }
    }
}

impl Readiness {
    /// Not ready, because it is starting.
    pub fn new() -> Self {
        let state = State { application: Some("starting".to_owned()), required: Vec::new() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The application serves.
    pub fn ready(&self) {
        self.lock().application = None;
    }

    /// The application does not serve, or soon will not. `why` is shown to whoever asks.
    pub fn not_ready(&self, why: impl Into<String>) {
        self.lock().application = Some(why.into());
    }

    /// From now on the process is ready only while this record is stored. Ends when the record is withdrawn or its last
    /// guard is dropped: the registration is not kept alive.
    pub fn require<T: Send + Sync + 'static>(&self, registration: &Arc<Registration<T>>) {
        let mut state = self.lock();
        state.required.retain(|required| required.state().is_some());
        state.required.push(Box::new(Arc::downgrade(registration)));
    }

    /// Whether nothing keeps it from being ready.
    pub fn is_ready(&self) -> bool {
        self.obstacles().is_empty()
    }

    /// What keeps it from being ready, a line each: the application's word first, then the records that are not stored.
    pub fn obstacles(&self) -> Vec<String> {
        let mut state = self.lock();
        let mut obstacles: Vec<_> = state.application.iter().cloned().collect();
        state.required.retain(|required| match required.state() {
            Some((key, state)) => {
                obstacles.extend(obstacle(&key, &state));
                true
            }
            None => false,
        });
        obstacles
    }
}

/// Why a record is no ground to be ready. `None` where it is stored.
fn obstacle(key: &Key, state: &RegistrationState) -> Option<String> {
    match state {
        RegistrationState::Registered => None,
        RegistrationState::Lost(cause) | RegistrationState::Failed(cause) => {
            Some(format!("{key} is {}: {cause}", state.as_str()))
        }
        state => Some(format!("{key} is {}", state.as_str())),
    }
}

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").field("obstacles", &self.obstacles()).finish()
    }
}
