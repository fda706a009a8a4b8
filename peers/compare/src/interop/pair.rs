//! Who acts, who looks, and on which store.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use discovery_peer_protocol::{Event, Query, name_of};
use serde_json::Value;

use crate::peer::{History, Peer, Watched, Which};
use crate::store::{Place, Store};

/// For what should be seen at once, on a machine that does other things too.
pub(super) const SOON: Duration = Duration::from_secs(10);

/// One direction of a scenario.
pub(super) struct Pair<'a> {
    pub(super) store: &'a Store,
    pub(super) acting: Which,
    pub(super) looking: Which,
    /// Of every side that took part.
    histories: Mutex<Vec<History>>,
}

impl<'a> Pair<'a> {
    pub(super) fn new(store: &'a Store, acting: Which) -> Self {
        let looking = if acting == Which::Ours { Which::Reference } else { Which::Ours };
        Self { store, acting, looking, histories: Mutex::default() }
    }

    /// One that acts and one that looks.
    pub(super) async fn start(&self) -> Result<(Peer, Peer), String> {
        Ok((self.peer(self.acting).await?, self.peer(self.looking).await?))
    }

    pub(super) async fn peer(&self, which: Which) -> Result<Peer, String> {
        let peer = self.store.peer(which).await.map_err(|error| error.to_string())?;
        Ok(self.remembered(peer))
    }

    /// One at this place.
    pub(super) async fn peer_at(&self, which: Which, place: Place) -> Result<Peer, String> {
        let peer = self.store.peer_at(which, place).await.map_err(|error| error.to_string())?;
        Ok(self.remembered(peer))
    }

    fn remembered(&self, peer: Peer) -> Peer {
        self.histories.lock().unwrap_or_else(PoisonError::into_inner).push(peer.history());
        peer
    }

    /// Checks that nothing was told to be gone by any watch of any side that had not been withdrawn or left behind by then.
    pub(super) fn no_false_removals(&self) -> Result<(), String> {
        let histories = self.histories.lock().unwrap_or_else(PoisonError::into_inner);
        let departed: Vec<(u64, String)> = histories.iter().flat_map(History::departed).collect();
        for history in histories.iter() {
            for (watch, watched) in history.watches() {
                if let Some(name) = false_removals(watched.first, &watched.log, &departed).first() {
                    return Err(format!(
                        "{} watching {watch} was told that {name} went, which had not",
                        history.which.name()
                    ));
                }
            }
        }
        Ok(())
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
    let removed = |(_, event): &(u64, Event)| match event {
        Event::Removed { name } => Some(name.clone()),
        _ => None,
    };
    watched.log.iter().filter_map(removed).collect()
}

/// What a watch told to be gone, by an event or by a whole state without it, that had not departed by then.
fn false_removals(first: BTreeSet<String>, log: &[(u64, Event)], departed: &[(u64, String)]) -> Vec<String> {
    let mut known = first;
    let mut gone: Vec<(u64, String)> = Vec::new();
    for (at, event) in log {
        match event {
            Event::Put(record) => {
                known.insert(name_of(record));
            }
            Event::Removed { name } => {
                known.remove(name);
                gone.push((*at, name.clone()));
            }
            Event::State(records) => {
                let there: BTreeSet<String> = records.iter().map(name_of).collect();
                gone.extend(known.difference(&there).map(|name| (*at, name.clone())));
                known = there;
            }
            Event::Taints { .. } => {}
        }
    }
    let had_departed =
        |(at, name): &(u64, String)| departed.iter().any(|(since, departed)| departed == name && since <= at);
    gone.into_iter().filter(|told| !had_departed(told)).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_removal_is_false_unless_its_record_had_departed_by_then() {
        let record = |name: &str| json!({ "type": "Endpoint", "namespace": name, "instance_id": 1 });
        let name = |short: &str| name_of(&record(short));
        let removed = |at: u64, short: &str| (at, Event::Removed { name: name(short) });
        let departed = [(10, name("a"))];
        let judged = |log: &[(u64, Event)]| false_removals([name("a")].into(), log, &departed);

        assert!(judged(&[removed(11, "a")]).is_empty());
        assert_eq!(judged(&[removed(9, "a")]), [name("a")]);
        assert_eq!(judged(&[removed(11, "b")]), [name("b")]);
        // A new whole state tells of removals by what it lacks.
        let states = [(5, Event::Put(record("b"))), (11, Event::State(Vec::new()))];
        assert_eq!(judged(&states), [name("b")]);
    }
}
