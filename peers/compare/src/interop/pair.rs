//! Who acts, who looks, and on which store.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use discovery_peer_protocol::{Query, name_of};
use serde_json::Value;

use crate::peer::{Peer, Watched, Which};
use crate::store::Store;

/// For what should be seen at once, on a machine that does other things too.
pub(super) const SOON: Duration = Duration::from_secs(10);

/// One direction of a scenario.
pub(super) struct Pair<'a> {
    pub(super) store: &'a Store,
    pub(super) acting: Which,
    pub(super) looking: Which,
}

impl<'a> Pair<'a> {
    pub(super) fn new(store: &'a Store, acting: Which) -> Self {
        let looking = if acting == Which::Ours { Which::Reference } else { Which::Ours };
        Self { store, acting, looking }
    }

    /// One that acts and one that looks.
    pub(super) async fn start(&self) -> Result<(Peer, Peer), String> {
        Ok((self.peer(self.acting).await?, self.peer(self.looking).await?))
    }

    pub(super) async fn peer(&self, which: Which) -> Result<Peer, String> {
        self.store.peer(which).await.map_err(|error| error.to_string())
    }
}

/// Waits until a watch shows this record as it is; says what it shows if it does not.
pub(super) async fn shown(peer: &Peer, watch: &str, record: &Value) -> Result<(), String> {
    let name = name_of(record);
    if peer.sees(watch, SOON, |watched| watched.state.get(&name) == Some(record)).await {
        return Ok(());
    }
    let seen = peer.watched(watch).state;
    Err(format!("{} watching {watch} has {:?} in the place of {record}", peer.which.name(), seen.get(&name)))
}

/// Waits until a watch does not show the record of this name.
pub(super) async fn gone(peer: &Peer, watch: &str, name: &str, within: Duration) -> Result<(), String> {
    if peer.sees(watch, within, |watched| !watched.state.contains_key(name)).await {
        return Ok(());
    }
    Err(format!("{} watching {watch} still has {name} after {} s", peer.which.name(), within.as_secs()))
}

/// Checks that a fresh list holds exactly these records. On Kubernetes the reference answers from what it has seen, and is
/// given time to see.
pub(super) async fn lists(peer: &Peer, query: Query, records: &[Value]) -> Result<(), String> {
    let wanted: BTreeMap<String, Value> = records.iter().map(|record| (name_of(record), record.clone())).collect();
    let patience = if peer.which == Which::Reference && peer.pod.is_some() { SOON } else { Duration::ZERO };
    let deadline = Instant::now() + patience;
    loop {
        let found = peer.list(query.clone()).await?;
        if found == wanted {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(format!("{} lists {found:?} for {query:?} in the place of {wanted:?}", peer.which.name()));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The names that were told to be gone since the first state.
pub(super) fn removals(watched: &Watched) -> Vec<String> {
    use discovery_peer_protocol::Event;
    let removed = |(_, event): &(u64, Event)| match event {
        Event::Removed { name } => Some(name.clone()),
        _ => None,
    };
    watched.log.iter().filter_map(removed).collect()
}
