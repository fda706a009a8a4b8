//! The decoded records of one query, published as immutable versions that any thread can load.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::sync::futures::{Notified, OwnedNotified};

use super::raw::Effective;
use super::step::Step;
use super::tree::Tree;
use crate::backend::Entry;
use crate::changes::{BoundedBase, BoundedBases};
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{Feed, FeedOwner};
use crate::freshness::Freshness;
use crate::key::Key;
use crate::query::Scope;
use crate::record::Registered;

/// How many records are decoded before other work of the executor gets its turn.
const YIELD_EVERY: usize = 512;

/// How a stored value becomes a `T`.
pub(crate) type Decode<T> = fn(&Key, &bytes::Bytes) -> Result<T>;

/// The last entry that decoded, of keys whose newest one does not, by the type that could not read it. Kept by the
/// feed, so that views opened later show it too.
pub(crate) type LastGood = Mutex<KnownGood>;

pub(crate) type KnownGood = HashMap<(TypeId, Key), Arc<Entry>>;

/// A stored record that its type cannot read.
#[derive(Clone, Debug)]
pub struct Undecodable {
    /// Its key.
    pub key: Key,
    /// Why it does not decode.
    pub error: Error,
    /// Whether an earlier value of the same incarnation is still shown.
    pub last_good_shown: bool,
}

/// One state of a slot.
///
/// All slots of a feed move to a new version as one: a version whose number the feed has not published yet stands back
/// for its predecessor. So two views never show the two sides of one transaction, and no reader takes a lock.
pub(crate) struct Version<T> {
    pub(crate) number: u64,
    pub(crate) synced: bool,
    pub(crate) records: Tree<Registered<T>>,
    /// How the records came from those of the version before, where that is one change.
    pub(crate) step: Option<Step<Registered<T>>>,
    published: Arc<AtomicU64>,
    previous: ArcSwapOption<Version<T>>,
}

impl<T> Version<T> {
    /// A version that belongs to no feed: the result of a list.
    pub(crate) fn detached(records: Tree<Registered<T>>) -> Self {
        Self {
            number: 0,
            synced: true,
            records,
            step: None,
            published: Arc::new(AtomicU64::new(u64::MAX)),
            previous: ArcSwapOption::empty(),
        }
    }
}

/// What a slot is told about the feed that publishes it.
pub(crate) struct Source<'a> {
    pub(crate) number: u64,
    pub(crate) published: &'a Arc<AtomicU64>,
    pub(crate) last_good: &'a LastGood,
}

/// What a slot has decoded of a snapshot that is still coming, in the order of keys: records of the slot's type.
#[derive(Default)]
pub(crate) struct Ahead(Option<Box<dyn Any + Send>>);

/// A slot of any type, as the feed sees it. `stage` or `rebase`, then the feed publishes the number, then `commit`.
#[async_trait]
pub(crate) trait AnySlot: Send + Sync {
    fn scope(&self) -> &Scope;
    fn number(&self) -> u64;
    /// Prepares the version after some changes, all of this slot's scope. Where the feed has published the number already,
    /// the version shows at once.
    fn stage(&self, changes: &[&Effective], source: &Source<'_>);
    /// Decodes what this slot will show of a part of a snapshot, whose keys ascend and stand behind those of the parts
    /// before. Nothing of it shows, and what does not decode is left to `rebase`, which says so.
    async fn decode_ahead(&self, part: &[Arc<Entry>], ahead: &mut Ahead);
    /// Prepares the version that shows `raw`, keeping the records that did not change and those that are decoded already.
    async fn rebase(&self, raw: &Tree<Arc<Entry>>, source: &Source<'_>, ahead: Ahead);
    /// Lets go of the predecessor.
    fn commit(&self);
    /// Wakes the streams, for a new version or for news of freshness.
    fn wake(&self);
    /// Ends the slot's streams for good.
    fn end(&self, cause: Error);
    /// Ties the slot to the feed that publishes it from now on.
    fn attach(&self, feed: Arc<FeedOwner>);
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// The decoded records of one (type, scope), shared by every view that asks for both.
pub(crate) struct Slot<T> {
    scope: Scope,
    decode: Decode<T>,
    current: ArcSwap<Version<T>>,
    /// The number of `current`, or of the version about to be: tells those who look again and again that nothing is new.
    announced: AtomicU64,
    feed: ArcSwapOption<FeedOwner>,
    /// One list of those who wait, and not the eight of a watch channel: most slots have few streams, and each list is
    /// looked at on every change.
    wake: Arc<Notify>,
    undecodable: Mutex<BTreeMap<Key, Undecodable>>,
    ended: OnceLock<Error>,
    bounded: BoundedBases<T>,
}

impl<T> Slot<T> {
    /// The newest published version. No I/O and no lock: two atomic loads and a reference count. One that is staged and not
    /// yet published gives way to its predecessor.
    pub(crate) fn load(&self) -> Arc<Version<T>> {
        let newest = self.current.load_full();
        if newest.number <= newest.published.load(Ordering::Acquire) {
            return newest;
        }
        // None: it was published just now.
        newest.previous.load_full().unwrap_or(newest)
    }

    /// No version is newer than this number, published or not.
    #[inline]
    pub(super) fn announced(&self) -> u64 {
        self.announced.load(Ordering::Acquire)
    }
}

impl<T: Send + Sync + 'static> Slot<T> {
    pub(crate) fn new(scope: Scope, decode: Decode<T>) -> Self {
        let unsynced = Version {
            number: 0,
            synced: false,
            records: Tree::new(),
            step: None,
            published: Arc::new(AtomicU64::new(u64::MAX)),
            previous: ArcSwapOption::empty(),
        };
        Self {
            scope,
            decode,
            current: ArcSwap::from_pointee(unsynced),
            announced: AtomicU64::new(0),
            feed: ArcSwapOption::empty(),
            wake: Arc::default(),
            undecodable: Mutex::new(BTreeMap::new()),
            ended: OnceLock::new(),
            bounded: Mutex::default(),
        }
    }

    /// Lets a stream's base go once too much has changed since.
    pub(crate) fn add_bounded(&self, base: &Arc<BoundedBase<T>>) {
        let mut bounded = self.bounded.lock().unwrap_or_else(PoisonError::into_inner);
        // On a quiet view nothing else forgets the streams that are gone.
        if bounded.len() == bounded.capacity() {
            bounded.retain(|base| base.strong_count() > 0);
        }
        bounded.push(Arc::downgrade(base));
    }

    fn count_changes(&self, changes: usize) {
        let mut dropped = Vec::new();
        self.bounded.lock().unwrap_or_else(PoisonError::into_inner).retain(|base| match base.upgrade() {
            Some(base) => {
                dropped.extend(base.count(changes));
                true
            }
            None => false,
        });
    }

    /// Ready with the first news after this call: a version, a freshness, another feed or the end.
    pub(crate) fn news(&self) -> Notified<'_> {
        self.wake.notified()
    }

    /// The same, for a stream to keep.
    pub(crate) fn news_owned(&self) -> OwnedNotified {
        Arc::clone(&self.wake).notified_owned()
    }

    pub(crate) fn feed(&self) -> Option<Arc<Feed>> {
        self.feed.load().as_ref().map(|owner| owner.feed())
    }

    /// Waits until the slot belongs to another feed than this one. Cancel-safe.
    ///
    /// # Errors
    /// Why the slot ended, where it has.
    pub(crate) async fn moved_from(&self, feed: &Arc<Feed>) -> Result<()> {
        loop {
            // Before the state is read, so that a change in between wakes.
            let news = self.news();
            if let Some(error) = self.ended() {
                return Err(error.clone());
            }
            if !self.feed().is_some_and(|now| Arc::ptr_eq(&now, feed)) {
                return Ok(());
            }
            news.await;
        }
    }

    pub(crate) fn freshness(&self) -> Freshness {
        self.feed.load().as_ref().map_or(Freshness::Syncing, |owner| owner.feed_ref().freshness())
    }

    pub(crate) fn ended(&self) -> Option<&Error> {
        self.ended.get()
    }

    pub(crate) fn undecodable(&self) -> Vec<Undecodable> {
        self.undecodable.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn publish(&self, records: Tree<Registered<T>>, step: Option<Step<Registered<T>>>, source: &Source<'_>) {
        // A number that is published already needs none to stand back for.
        let staged = source.published.load(Ordering::Relaxed) < source.number;
        // First: whoever has seen the version by other ways finds that it is new.
        self.announced.store(source.number, Ordering::Release);
        self.current.store(Arc::new(Version {
            number: source.number,
            synced: true,
            records,
            step,
            published: Arc::clone(source.published),
            previous: ArcSwapOption::new(staged.then(|| self.load())),
        }));
    }

    /// What to show for `entry`: itself decoded, or the last good record of the same incarnation, or nothing.
    fn decoded(&self, entry: &Arc<Entry>, held: Option<&Registered<T>>, source: &Source<'_>) -> Option<Registered<T>> {
        if let Some(held) = held
            && Arc::ptr_eq(held.entry(), entry)
        {
            return Some(held.clone());
        }
        let error = match decode_caught(self.decode, entry) {
            Ok(value) => {
                self.forget(&entry.key, source);
                return Some(Registered::new(Arc::clone(entry), value));
            }
            Err(error) => error,
        };
        let mut last_good = source.last_good.lock().unwrap_or_else(PoisonError::into_inner);
        let mut undecodable = self.undecodable.lock().unwrap_or_else(PoisonError::into_inner);
        let id = (TypeId::of::<T>(), entry.key.clone());
        let held = held.filter(|held| held.entry().incarnation == entry.incarnation).cloned();
        let kept = held.or_else(|| {
            let good = last_good.get(&id).filter(|good| good.incarnation == entry.incarnation)?;
            let value = decode_caught(self.decode, good).ok()?;
            Some(Registered::new(Arc::clone(good), value))
        });
        match &kept {
            Some(record) => last_good.insert(id, Arc::clone(record.entry())),
            None => last_good.remove(&id),
        };
        let told = undecodable.get(&entry.key).is_some_and(|known| known.error.to_string() == error.to_string());
        if !told {
            crate::telemetry::undecodable(&entry.key, &error);
        }
        let report = Undecodable { key: entry.key.clone(), error, last_good_shown: kept.is_some() };
        undecodable.insert(entry.key.clone(), report);
        kept
    }

    /// Forgets that the entry of a key did not decode.
    fn forget(&self, key: &Key, source: &Source<'_>) {
        let mut last_good = source.last_good.lock().unwrap_or_else(PoisonError::into_inner);
        if !last_good.is_empty() {
            last_good.remove(&(TypeId::of::<T>(), key.clone()));
        }
        let mut undecodable = self.undecodable.lock().unwrap_or_else(PoisonError::into_inner);
        if !undecodable.is_empty() {
            undecodable.remove(key);
        }
    }
}

#[async_trait]
impl<T: Send + Sync + 'static> AnySlot for Slot<T> {
    fn scope(&self) -> &Scope {
        &self.scope
    }

    fn number(&self) -> u64 {
        self.load().number
    }

    fn stage(&self, changes: &[&Effective], source: &Source<'_>) {
        let before = self.load().records.clone();
        let mut records = before.clone();
        let mut apply = |change: &Effective| match change {
            Effective::Put(entry) => match self.decoded(entry, records.get(&entry.key), source) {
                Some(record) => (records.insert(record.clone()), Some(record)),
                None => (records.remove(&entry.key), None),
            },
            Effective::Delete(key) => {
                self.forget(key, source);
                (records.remove(key), None)
            }
        };
        let step = if let [change] = changes {
            let (old, new) = apply(change);
            Some(Step::new(before, old, new))
        } else {
            for change in changes {
                apply(change);
            }
            None
        };
        // First: a stream that has seen the version has seen these changes.
        self.count_changes(changes.len());
        self.publish(records, step, source);
    }

    async fn decode_ahead(&self, part: &[Arc<Entry>], ahead: &mut Ahead) {
        let prefix = self.scope.as_str();
        let against = |entry: &Arc<Entry>| entry.key.path().order_against_prefix(prefix);
        let start = part.partition_point(|entry| against(entry).is_lt());
        let len = part[start..].partition_point(|entry| against(entry).is_eq());
        if len == 0 {
            return;
        }
        let records = ahead.0.get_or_insert_with(|| Box::new(Vec::<Registered<T>>::new()));
        let Some(records) = records.downcast_mut::<Vec<Registered<T>>>() else { return };
        for some in part[start..start + len].chunks(YIELD_EVERY) {
            let decoded = some.iter().filter_map(|entry| {
                let value = decode_caught(self.decode, entry).ok()?;
                Some(Registered::new(Arc::clone(entry), value))
            });
            records.extend(decoded);
            if some.len() == YIELD_EVERY {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn rebase(&self, raw: &Tree<Arc<Entry>>, source: &Source<'_>, ahead: Ahead) {
        let held = self.load().records.clone();
        let prefix = self.scope.as_str();
        let mut records = Vec::new();
        let ahead = ahead.0.and_then(|records| records.downcast::<Vec<Registered<T>>>().ok()).unwrap_or_default();
        let mut ahead = ahead.into_iter().peekable();
        for (count, entry) in raw.range_where(|key| key.path().order_against_prefix(prefix)).enumerate() {
            if count % YIELD_EVERY == YIELD_EVERY - 1 {
                tokio::task::yield_now().await;
            }
            let is_it = |record: &Registered<T>| Arc::ptr_eq(record.entry(), entry);
            // Both ascend. What comes before this entry was replaced meanwhile.
            while ahead.next_if(|record| !is_it(record) && *record.key() <= entry.key).is_some() {}
            let record = match ahead.next_if(is_it) {
                Some(record) => {
                    self.forget(&entry.key, source);
                    Some(record)
                }
                None => self.decoded(entry, held.get(&entry.key), source),
            };
            records.extend(record);
        }
        self.undecodable.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| raw.get(key).is_some());
        let changes = records.len().max(held.len());
        self.publish(Tree::from_sorted(records), None, source);
        self.count_changes(changes);
    }

    fn commit(&self) {
        self.current.load().previous.store(None);
    }

    fn wake(&self) {
        self.wake.notify_waiters();
    }

    fn end(&self, cause: Error) {
        // The first cause stands.
        let _ = self.ended.set(cause);
        self.wake();
    }

    fn attach(&self, feed: Arc<FeedOwner>) {
        self.feed.store(Some(feed));
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        if let Some(owner) = self.feed.load().as_ref() {
            owner.feed_ref().slot_dropped();
        }
    }
}

/// Decodes user-defined types: a panic of theirs is an undecodable record.
pub(crate) fn decode_caught<T>(decode: Decode<T>, entry: &Entry) -> Result<T> {
    catch_unwind(AssertUnwindSafe(|| decode(&entry.key, &entry.value))).unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::InvalidValue, "decoding the value panicked: mend the record type")
            .with_key(&entry.key))
    })
}
