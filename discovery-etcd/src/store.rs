//! What everything of one handle shares: names, connections, and what is known of the store's history.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use discovery_core::backend::{Change, Entry};
use etcd_client::KeyValue;

use crate::awaited::Awaited;
use crate::backlog::Backlogs;
use crate::config::Config;
use crate::epoch::{Epochs, Known};
use crate::fault::Fault;
use crate::link::{Link, Wire};
use crate::names::Names;
use crate::place::{Place, incarnation};
use crate::snapshot::Cap;

/// How long one small call may take.
pub(crate) const CALL: Duration = Duration::from_millis(2_000);

/// One handle on one store.
pub(crate) struct Store {
    pub(crate) config: Arc<Config>,
    pub(crate) names: Names,
    /// For leases, writes and small reads.
    pub(crate) control: Link,
    /// For snapshots.
    pub(crate) bulk: Link,
    /// For watches.
    pub(crate) watching: Arc<Link>,
    /// What is waited for: open watches ask the server how far they are.
    pub(crate) awaited: Awaited,
    /// What no watch could follow.
    pub(crate) backlogs: Backlogs,
    /// Tells places of this handle from those of every other one.
    handle: u64,
    epochs: Epochs,
    /// How many records a page of a read has at most.
    pub(crate) cap: Cap,
    /// How many stored keys were passed over because they are no records.
    pub(crate) skipped: AtomicU64,
}

impl Store {
    pub(crate) fn new(config: Config) -> Self {
        let names = Names::new(&config.prefix);
        let config = Arc::new(config);
        // The handles of a fleet spread over the members.
        let first = fastrand::usize(..config.endpoints.len().max(1));
        let control = Link::new(&config, first);
        Self {
            names,
            bulk: control.beside(),
            watching: Arc::new(control.beside()),
            control,
            config,
            awaited: Awaited::default(),
            backlogs: Backlogs::default(),
            handle: fastrand::u64(..),
            epochs: Epochs::default(),
            cap: Cap::default(),
            skipped: AtomicU64::new(0),
        }
    }

    /// How many losses of data were proven.
    pub(crate) fn epoch(&self) -> u64 {
        self.known().epoch
    }

    /// What is known of the store, to be taken note of before it is asked for something.
    pub(crate) fn known(&self) -> Known {
        self.epochs.known()
    }

    /// The place of an answer that holds everything which was committed before it was asked for.
    pub(crate) fn answered(&self, before: Known, revision: i64) -> Place {
        let (epoch, lost) = self.epochs.answered(before, revision);
        if lost {
            self.begin_anew();
        }
        self.place(epoch, revision)
    }

    /// A place of this handle's.
    pub(crate) fn place(&self, epoch: u64, revision: i64) -> Place {
        Place { revision, handle: self.handle, epoch, named: epoch, held: None, witness: None }
    }

    /// Whether a place is one of this handle's, before a loss of data that was proven since.
    pub(crate) fn is_of_lost_history(&self, place: &Place) -> bool {
        place.handle == self.handle && place.epoch < self.epoch()
    }

    /// Takes note of how far a watch was told everything.
    pub(crate) fn told(&self, epoch: u64, revision: i64) {
        self.epochs.told(epoch, revision);
    }

    /// A watch that was in `epoch` has proven that the store lost data. Answers the epoch that it is in now.
    pub(crate) fn lost_data(&self, epoch: u64) -> u64 {
        let (epoch, lost) = self.epochs.lost(epoch);
        if lost {
            self.begin_anew();
        }
        epoch
    }

    fn begin_anew(&self) {
        self.awaited.forget();
        // What users had signed in to is gone as well: etcd lets a token of a longer history wait until it has caught up with it.
        for link in [&self.control, &self.bulk, &self.watching] {
            link.renew();
        }
    }

    /// The place of everything that was acknowledged before this call. Reads `key`, whatever is there.
    pub(crate) async fn now(&self, key: Vec<u8>) -> Result<Place, Fault> {
        let before = self.known();
        let revision = self.control.read(CALL, move |wire| revision(wire, key.clone())).await?;
        Ok(self.answered(before, revision))
    }

    /// The record in an answer; `None` for a stored key that is no record.
    pub(crate) fn entry(&self, epoch: u64, record: KeyValue) -> Option<Entry> {
        let Some(key) = self.names.parse(record.key()) else {
            self.pass_over(record.key());
            return None;
        };
        let incarnation = incarnation(epoch, record.create_revision());
        let (_, value) = record.into_key_value();
        Some(Entry { key, value: Bytes::from(value), incarnation })
    }

    /// The change in an event; `None` for a stored key that is no record.
    pub(crate) fn change(&self, epoch: u64, record: &KeyValue) -> Option<Change> {
        let Some(key) = self.names.parse(record.key()) else {
            self.pass_over(record.key());
            return None;
        };
        // A deletion carries the key and its revision, and nothing else.
        if record.create_revision() == 0 {
            return Some(Change::Delete(key));
        }
        let value = Bytes::copy_from_slice(record.value());
        Some(Change::Put(Entry { key, value, incarnation: incarnation(epoch, record.create_revision()) }))
    }

    fn pass_over(&self, stored: &[u8]) {
        if !self.names.is_fence(stored) {
            self.skipped.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(key = %String::from_utf8_lossy(stored), "passed over: no key of a record");
        }
    }

    pub(crate) fn close(&self) {
        self.control.close();
        self.bulk.close();
        self.watching.close();
    }
}

/// A read of one key that nobody writes: the cheapest call that only a member in touch with its leader answers.
pub(crate) async fn revision(mut wire: Wire, key: Vec<u8>) -> Result<i64, etcd_client::Error> {
    let answer = wire.kv.get(key, None).await?;
    Ok(answer.header().map_or(0, etcd_client::ResponseHeader::revision))
}
