//! What every stream of a cluster shares: its registration, its connection, how it waits.

use std::sync::Arc;

use discovery_core::Scope;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::cluster::{Weather, sleep_until};
use crate::handle::{Breaks, Shared, changed, weather_changed};
use crate::link::{Condition, Passage};
use crate::state::{Purpose, Slot, State};

/// Registered from when it is made until it is dropped.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) handle: Shared,
    pub(crate) scope: Scope,
    id: u64,
    wake: Arc<Notify>,
    link: watch::Receiver<Condition>,
    weather: watch::Receiver<Weather>,
    breaks: Breaks,
}

impl Reader {
    pub(crate) fn open(
        handle: &Shared,
        scope: &Scope,
        purpose: Purpose,
        pending: Option<u64>,
        state: &mut State,
    ) -> Self {
        let wake = Arc::new(Notify::new());
        let id = state.new_id();
        let slot = Slot { reader: handle.owner, purpose, pending, nudge: None, wake: Arc::clone(&wake) };
        state.watchers.add(scope, id, slot);
        state.noticed();
        Self {
            handle: Arc::clone(handle),
            scope: scope.clone(),
            id,
            wake,
            link: handle.link.subscribe(),
            weather: handle.cluster.subscribe_weather(),
            breaks: handle.breaks(),
        }
    }

    pub(crate) fn passage(&mut self) -> Passage {
        self.link.mark_unchanged();
        self.weather.mark_unchanged();
        self.handle.stream_passage(self.breaks)
    }

    /// The first revision of the scope that may not have been read.
    pub(crate) fn pending(&self, state: &mut State) -> Option<u64> {
        state.watchers.get_mut(&self.scope, self.id).and_then(|slot| slot.pending)
    }

    pub(crate) fn set_pending(&self, state: &mut State, revision: Option<u64>) {
        if let Some(slot) = state.watchers.get_mut(&self.scope, self.id) {
            slot.pending = revision;
        }
    }

    pub(crate) fn take_nudge(&self, state: &mut State) -> Option<u64> {
        state.watchers.get_mut(&self.scope, self.id).and_then(|slot| slot.nudge.take())
    }

    /// Waits for the link, ignoring the cluster.
    pub(crate) async fn link_changed(&mut self) {
        tokio::select! {
            biased;
            () = changed(&mut self.link) => {}
            () = weather_changed(&mut self.weather) => {}
        }
    }

    /// Waits until there may be something to read, until `at`, or until the link changes.
    pub(crate) async fn news(&mut self, at: Option<Instant>) {
        tokio::select! {
            biased;
            () = self.wake.notified() => {}
            () = sleep_until(at) => {}
            () = changed(&mut self.link) => {}
            () = weather_changed(&mut self.weather) => {}
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.handle.cluster.state();
        state.watchers.remove(&self.scope, self.id);
        state.noticed();
    }
}
