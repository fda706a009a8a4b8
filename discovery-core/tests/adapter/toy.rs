//! A store of keys in memory, on tokio's clock, with the faults that a network has.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use discovery_core::adapter::{KeyStore, Listing, Nudges, Stored, Swap, Swapped};
use discovery_core::{Error, ErrorKind, Result};
use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tokio::time::Instant;

/// What becomes of swaps on their way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Road {
    #[default]
    Clear,
    /// Nobody reaches the store.
    Closed,
    /// Swaps are done and their answers get lost.
    AnswersLost,
    /// Swaps are on their way until [`Toy::deliver`]; the caller gets an error meanwhile.
    Slow,
    /// Swaps are on their way until [`Toy::deliver`], and the caller waits for ever.
    Hangs,
}

#[derive(Default)]
struct State {
    documents: BTreeMap<String, (Stored, Instant)>,
    /// Drawn with the first document, and lost with the documents.
    lineage: Option<u64>,
    late: Vec<(Vec<Swap>, Duration)>,
    /// How long a list takes.
    slow: Duration,
    calls: Vec<usize>,
}

impl State {
    fn sweep(&mut self) {
        let now = Instant::now();
        self.documents.retain(|_, (_, until)| *until > now);
    }

    fn carry_out(&mut self, swaps: &[Swap], ttl: Duration) -> Vec<Swapped> {
        self.sweep();
        let until = Instant::now() + ttl;
        let one = |swap: &Swap| {
            let stands = self.documents.get(&swap.name).map(|(stored, _)| stored.clone());
            if stands.as_ref().map(|stored| stored.tag) != swap.expect {
                return Swapped::Differs(stands);
            }
            if let Some(put) = &swap.put {
                self.lineage.get_or_insert(put.tag.0);
            }
            if let Some(stored) = swap.put.clone().or(stands) {
                self.documents.insert(swap.name.clone(), (stored, until));
            }
            Swapped::Done
        };
        swaps.iter().map(one).collect()
    }
}

/// A handle on the store; clones share the store and the handle's road to it, [`Toy::other_road`] shares the store alone.
#[derive(Clone)]
pub(crate) struct Toy {
    documents: Arc<Mutex<State>>,
    road: Arc<Mutex<Road>>,
    moved: watch::Sender<()>,
}

impl Toy {
    pub(crate) fn new() -> Self {
        Self { documents: Arc::default(), road: Arc::default(), moved: watch::Sender::new(()) }
    }

    pub(crate) fn other_road(&self) -> Self {
        Self { road: Arc::default(), ..self.clone() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.documents.lock().expect("no panic under the lock")
    }

    pub(crate) fn set_road(&self, road: Road) {
        *self.road.lock().expect("no panic under the lock") = road;
    }

    fn road(&self) -> Road {
        *self.road.lock().expect("no panic under the lock")
    }

    /// What was on its way arrives.
    pub(crate) fn deliver(&self) -> Vec<Swapped> {
        let mut state = self.state();
        let late = std::mem::take(&mut state.late);
        let swapped = late.into_iter().flat_map(|(swaps, ttl)| state.carry_out(&swaps, ttl)).collect();
        self.moved.send_replace(());
        swapped
    }

    /// How many swaps are on their way.
    pub(crate) fn on_the_way(&self) -> usize {
        self.state().late.iter().map(|(swaps, _)| swaps.len()).sum()
    }

    /// Somebody removes what stands there, without a hint.
    pub(crate) fn remove(&self, name: &str) {
        self.state().documents.remove(name);
    }

    /// The store comes back empty.
    pub(crate) fn lose_data(&self) {
        let mut state = self.state();
        state.documents.clear();
        state.lineage = None;
    }

    /// Somebody stores this, without a hint.
    pub(crate) fn overwrite(&self, name: &str, stored: Stored) {
        let until = Instant::now() + Duration::from_secs(3600);
        self.state().documents.insert(name.to_owned(), (stored, until));
    }

    pub(crate) fn set_slow(&self, slow: Duration) {
        self.state().slow = slow;
    }

    /// How many swaps each call brought.
    pub(crate) fn calls(&self) -> Vec<usize> {
        self.state().calls.clone()
    }
}

fn unreachable() -> Error {
    Error::new(ErrorKind::Unavailable, "the toy cannot be reached")
}

#[async_trait]
impl KeyStore for Toy {
    async fn list(&self, prefix: &str) -> Result<Listing<(String, Stored)>> {
        if self.road() != Road::Clear {
            return Err(unreachable());
        }
        let slow = self.state().slow;
        tokio::time::sleep(slow).await;
        let mut state = self.state();
        state.sweep();
        let below = state.documents.iter().filter(|(name, _)| name.starts_with(prefix));
        let items = below.map(|(name, (stored, _))| (name.clone(), stored.clone())).collect();
        Ok(Listing { items, lineage: state.lineage })
    }

    async fn swap(&self, swaps: &[Swap], ttl: Duration) -> Result<Vec<Swapped>> {
        let road = self.road();
        let swapped = {
            let mut state = self.state();
            state.calls.push(swaps.len());
            match road {
                Road::Closed => return Err(unreachable()),
                Road::Slow | Road::Hangs => {
                    state.late.push((swaps.to_vec(), ttl));
                    Vec::new()
                }
                Road::Clear | Road::AnswersLost => state.carry_out(swaps, ttl),
            }
        };
        match road {
            Road::Clear => {
                self.moved.send_replace(());
                Ok(swapped)
            }
            Road::Hangs => std::future::pending().await,
            _ => Err(unreachable()),
        }
    }

    async fn nudges(&self) -> Result<Nudges> {
        let moved = self.moved.subscribe();
        Ok(stream::unfold(moved, |mut moved| async {
            moved.changed().await.ok()?;
            Some(((), moved))
        })
        .boxed())
    }

    async fn ping(&self) -> Result<String> {
        if self.road() == Road::Clear { Ok("a toy".to_owned()) } else { Err(unreachable()) }
    }
}
