//! What a watch delivers.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;

use crate::error::Error;
use crate::key::Key;

/// How far a watch has come. Only the backend that made two positions can compare them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Position(pub Bytes);

impl Position {
    /// A position that is one number, as big-endian bytes.
    pub fn from_u64(number: u64) -> Self {
        Self(Bytes::copy_from_slice(&number.to_be_bytes()))
    }

    /// The number of a position made by [`Position::from_u64`].
    pub fn as_u64(&self) -> Option<u64> {
        self.0.as_ref().try_into().ok().map(u64::from_be_bytes)
    }
}

/// A token that changes whenever the key was absent in a committed state: etcd's create revision, for example.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// A token from several parts: an owner's uid with a generation, for example.
    pub fn of(parts: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        parts.hash(&mut hasher);
        Self(hasher.finish())
    }
}

/// One stored record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: Key,
    /// Its value, a JSON document unless something foreign wrote it.
    pub value: Bytes,
    /// Tells this record from an earlier one under the same key.
    pub incarnation: Incarnation,
}

/// One change of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The key now holds this entry.
    Put(Entry),
    /// The key is gone.
    Delete(Key),
}

impl Change {
    /// The key that changed.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put(entry) => &entry.key,
            Self::Delete(key) => key,
        }
    }
}

/// How a snapshot's history relates to what the watcher had seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lineage {
    /// The same history, further on.
    Same,
    /// Another history: the store was proven to have lost data.
    Reset,
    /// Cannot be told.
    Unknown,
}

/// One item of a watch.
///
/// A stream is `SnapshotStart`, chunks, `SnapshotEnd`, or else `Resumed`, and then any number of the others. It may
/// begin another snapshot at any time. Before its first snapshot is complete, only `Interrupted` and `Recovered` may
/// come in between; a `Batch` or a `Progress` makes the core open the watch anew.
///
/// A `Batch` inside a later snapshot is shown at once, and the snapshot must hold it: what comes last counts.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    /// A snapshot begins. Nothing of it shows until `SnapshotEnd`. One that is under way is given up: a store that takes long
    /// to read and cannot show parts begins again now and then, as a sign of life, before the core gives up the watch.
    SnapshotStart {
        /// How its history relates to the one before.
        lineage: Lineage,
    },
    /// A part of the snapshot, in any order; no key twice in one snapshot.
    SnapshotChunk(Vec<Entry>),
    /// The snapshot is complete and stands for this position.
    SnapshotEnd(Position),
    /// Instead of a snapshot: the watch goes on from the position that it was opened after. Only where there was one.
    /// Views are live once it is at a position that [`Watcher::barrier`](super::Watcher::barrier) answered since; where
    /// that is `None`, at once, so what was missed follows without a pause.
    Resumed,
    /// A transaction of the store, or several that came one right after the other and are shown as one version: never a
    /// part of one. Putting what is already there is harmless.
    Batch {
        /// The changes, in order.
        changes: Vec<Change>,
        /// Where the watch is after them.
        position: Position,
    },
    /// Nothing changed, and the watch is at this position. Counts as a sign of life.
    Progress(Position),
    /// The watch lost touch with the store, or with a part of it, and is mending that by itself: views are stale from
    /// now on, whatever else the watch tells, until `Recovered` or the end of a snapshot that began since.
    Interrupted(Error),
    /// The watch is in touch again and has missed nothing. Says nothing before the first snapshot.
    Recovered,
}

impl WatchEvent {
    /// A whole snapshot at once, for stores whose sets are small.
    pub fn snapshot(lineage: Lineage, entries: Vec<Entry>, position: Position) -> [WatchEvent; 3] {
        [Self::SnapshotStart { lineage }, Self::SnapshotChunk(entries), Self::SnapshotEnd(position)]
    }
}
