//! What one handle stores, by way of compare-and-swap.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::document::{self, Document, Live};
use super::keys::{KeyStore, Stored, Swap, Swapped, Tag};
use super::name::name_of;
use crate::backend::Incarnation;
use crate::error::{Effect, Error, ErrorKind, Result};
use crate::key::Key;

/// What one call of [`KeyStore::swap`] brings at most.
const MOST_SWAPS: usize = 128;
const MOST_BYTES: usize = 1 << 20;

/// How often a swap is tried with what the store said it holds. More than two mean that others write the key too.
const ROUNDS: usize = 5;

/// What is wanted of one key.
#[derive(Clone, Debug)]
pub(super) enum Intent {
    Put(Bytes),
    Delete,
    /// That it goes on living, where it is there.
    Keep,
}

/// What became of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Put, or kept: this handle's record stands there.
    Held,
    /// It is not there, and this handle did not take it away.
    Absent,
    /// This handle took it away.
    Withdrawn,
    /// Another handle's record stands there.
    Taken,
}

/// What stands under a key, as the store last said, and which this handle may replace.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Known {
    tag: Tag,
    /// `None`: a withdrawn record's trace, or what is nobody's.
    live: Option<Live>,
}

/// What this handle may have stored, each with what is known to stand there.
type Keys = BTreeMap<Key, Option<Known>>;

/// A handle as the store sees it. Every key that it may have something stored under is in `keys`, from before the first
/// write is sent; what is said there may be old, since the store has the last word in every swap.
#[derive(Debug)]
pub(super) struct Owner {
    token: u64,
    random: RandomState,
    count: AtomicU64,
    keys: Mutex<Keys>,
}

struct Pending {
    at: usize,
    key: Key,
    intent: Intent,
}

impl Owner {
    pub(super) fn new() -> Self {
        let (random, count) = (RandomState::new(), AtomicU64::new(0));
        Self { token: random.hash_one("token"), random, count, keys: Mutex::default() }
    }

    /// A number that nobody has had before.
    pub(super) fn fresh(&self) -> u64 {
        self.random.hash_one(self.count.fetch_add(1, Ordering::Relaxed))
    }

    fn keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reckons with something of this handle's under these keys.
    pub(super) fn suspect<'a>(&self, keys: impl Iterator<Item = &'a Key>) {
        let mut known = self.keys();
        for key in keys {
            known.entry(key.clone()).or_default();
        }
    }

    /// Every key that something may be stored under.
    pub(super) fn all(&self) -> Vec<Key> {
        self.keys().keys().cloned().collect()
    }

    /// The keys that were stored when the store last said.
    pub(super) fn stored(&self) -> Vec<Key> {
        let keys = self.keys();
        let stored = keys.iter().filter(|(_, known)| known.as_ref().is_some_and(|known| known.live.is_some()));
        stored.map(|(key, _)| key.clone()).collect()
    }

    /// Whether something of this handle's may be stored under the key.
    pub(super) fn may_hold(&self, key: &Key) -> bool {
        self.keys().contains_key(key)
    }

    /// Whether this is what is stored under the key, as far as is known.
    pub(super) fn holds(&self, key: &Key, value: &Bytes) -> bool {
        let keys = self.keys();
        let live = keys.get(key).and_then(|known| known.as_ref()?.live.as_ref());
        live.is_some_and(|live| live.value == *value)
    }

    /// Carries out what is wanted and answers what became of each, in order.
    ///
    /// Cancel-safe: what was sent is in `keys`, and the next call finds out what became of it.
    pub(super) async fn carry_out<S: KeyStore>(
        &self,
        store: &S,
        ttl: Duration,
        wanted: Vec<(Key, Intent)>,
    ) -> Vec<Result<Fate>> {
        let mut fates: Vec<Option<Result<Fate>>> = wanted.iter().map(|_| None).collect();
        let numbered = wanted.into_iter().enumerate();
        let mut pending: Vec<_> = numbered.map(|(at, (key, intent))| Pending { at, key, intent }).collect();
        for _ in 0..ROUNDS {
            let mut planned = Vec::with_capacity(pending.len());
            for item in pending {
                match self.plan(&item) {
                    Some(swap) => planned.push((item, swap)),
                    None => fates[item.at] = Some(Ok(Fate::Withdrawn)),
                }
            }
            pending = Vec::new();
            let mut failure = None;
            while !planned.is_empty() {
                let rest = planned.split_off(portion(&planned));
                let (items, swaps): (Vec<_>, Vec<_>) = std::mem::replace(&mut planned, rest).into_iter().unzip();
                let answered = match &failure {
                    None => answers(store.swap(&swaps, ttl).await, swaps.len()),
                    Some(failure) => Err(Error::clone(failure)),
                };
                match answered {
                    Ok(answers) => {
                        for ((item, swap), swapped) in items.into_iter().zip(swaps).zip(answers) {
                            match self.learn(&item, swap, swapped) {
                                Some(fate) => fates[item.at] = Some(Ok(fate)),
                                None => pending.push(item),
                            }
                        }
                    }
                    Err(error) => {
                        // The rest is not sent: a store that does not answer once would let each portion wait.
                        failure.get_or_insert_with(|| error.clone().with_effect(Effect::None));
                        for item in items {
                            fates[item.at] = Some(Err(error.clone()));
                        }
                    }
                }
            }
        }
        let contended = || Err(Error::new(ErrorKind::Unavailable, "others keep writing this key: trying again"));
        fates.into_iter().map(|fate| fate.unwrap_or_else(contended)).collect()
    }

    /// What to send. `None`: there is nothing of this handle's to take away or to keep.
    fn plan(&self, item: &Pending) -> Option<Swap> {
        let mut keys = self.keys();
        let known = match &item.intent {
            Intent::Put(_) => keys.entry(item.key.clone()).or_default().clone(),
            Intent::Delete | Intent::Keep => keys.get(&item.key)?.clone(),
        };
        let live = match &item.intent {
            Intent::Keep => None,
            Intent::Delete => Some(None),
            Intent::Put(value) => {
                let incarnation = known.as_ref().and_then(|known| Some(known.live.as_ref()?.incarnation));
                let incarnation = incarnation.unwrap_or_else(|| Incarnation(self.fresh()));
                Some(Some(Live { incarnation, value: value.clone() }))
            }
        };
        let put =
            live.map(|live| Stored { tag: Tag(self.fresh()), document: document::write(self.token, live.as_ref()) });
        Some(Swap { name: name_of(&item.key), expect: known.map(|known| known.tag), put })
    }

    /// What the store's answer means. `None`: to be tried again with what it says.
    fn learn(&self, item: &Pending, sent: Swap, swapped: Swapped) -> Option<Fate> {
        let mut keys = self.keys();
        match (swapped, sent.put) {
            (Swapped::Differs(stands), _) => self.differs(&mut keys, item, sent.expect, stands),
            (Swapped::Done, None) => Some(kept(&keys, &item.key)),
            (Swapped::Done, Some(stored)) => {
                let Document { live, .. } = document::read(&stored.document);
                if live.is_none() {
                    keys.remove(&item.key);
                    return Some(Fate::Withdrawn);
                }
                keys.insert(item.key.clone(), Some(Known { tag: stored.tag, live }));
                Some(Fate::Held)
            }
        }
    }

    /// What to do about something else than was expected. `None`: to be tried again.
    fn differs(&self, keys: &mut Keys, item: &Pending, expected: Option<Tag>, stands: Option<Stored>) -> Option<Fate> {
        let found = stands.map(|stored| (stored.tag, document::read(&stored.document)));
        let owner = found.as_ref().and_then(|(_, document)| document.owner);
        let foreign = owner.is_some_and(|owner| owner != self.token);
        let live = found.as_ref().is_some_and(|(_, document)| document.live.is_some());
        if foreign && (live || matches!(item.intent, Intent::Delete)) {
            keys.remove(&item.key);
            return Some(if live { Fate::Taken } else { Fate::Absent });
        }
        // What is nobody's can be replaced, and is no record of this handle's.
        let mine = owner == Some(self.token);
        let known = found.map(|(tag, document)| Known { tag, live: document.live.filter(|_| mine) });
        // What another call has learned since this one was sent is newer.
        if let Some(held) = keys.get_mut(&item.key)
            && held.as_ref().map(|known| known.tag) == expected
        {
            *held = known;
        }
        match item.intent {
            Intent::Put(_) | Intent::Delete => None,
            Intent::Keep if mine && live => None,
            Intent::Keep => Some(if mine { Fate::Withdrawn } else { Fate::Absent }),
        }
    }
}

/// After the store said that what is known stands there still.
fn kept(keys: &Keys, key: &Key) -> Fate {
    match keys.get(key) {
        Some(Some(Known { live: Some(_), .. })) => Fate::Held,
        Some(_) => Fate::Absent,
        None => Fate::Withdrawn,
    }
}

/// How many of these go into one call.
fn portion(planned: &[(Pending, Swap)]) -> usize {
    let mut bytes = 0;
    let fits = planned.iter().take(MOST_SWAPS).take_while(|(_, swap)| {
        bytes += swap.put.as_ref().map_or(0, |stored| stored.document.len());
        bytes <= MOST_BYTES
    });
    fits.count().max(1)
}

/// A failure may have had an effect, whatever the store's author says: the answer may have been lost on the way.
fn answers(swapped: Result<Vec<Swapped>>, count: usize) -> Result<Vec<Swapped>> {
    match swapped {
        Ok(answers) if answers.len() == count => Ok(answers),
        Ok(answers) => {
            let text = format!("the store answered {} swaps of {count}: please report it", answers.len());
            Err(Error::new(ErrorKind::Internal, text).with_effect(Effect::Unknown))
        }
        Err(error) => Err(error.with_effect(Effect::Unknown)),
    }
}
