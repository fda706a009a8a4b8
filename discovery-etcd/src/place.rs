//! Where a watch or a write stands: a revision, and how to tell that it belongs to the history it was taken from.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use discovery_core::backend::{Incarnation, Position};
use etcd_client::KeyValue;

/// How many of the newest keys are remembered: the newest that was not deleted proves the history.
const REMEMBERED: usize = 16;

/// A record as it stood at some revision. A store that was wiped and filled again may give the same revisions to the
/// same keys; it does not give out the same leases, whose ids hold the time. Or that there was none: see
/// [`Witness::of_nothing`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Witness {
    pub(crate) stored: Bytes,
    pub(crate) modified: i64,
    pub(crate) created: i64,
    pub(crate) lease: i64,
}

impl Witness {
    pub(crate) fn of(record: &KeyValue) -> Self {
        Self {
            stored: Bytes::copy_from_slice(record.key()),
            modified: record.mod_revision(),
            created: record.create_revision(),
            lease: record.lease(),
        }
    }

    /// That there was nothing below `root` at `revision`: a history of which that is true, too, leads from there to what is
    /// there now.
    pub(crate) fn of_nothing(root: Vec<u8>, revision: i64) -> Self {
        Self { stored: root.into(), modified: revision, created: 0, lease: 0 }
    }

    pub(crate) fn is_of_nothing(&self) -> bool {
        self.created == 0
    }
}

/// A revision of one history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) revision: i64,
    /// Whose place it is: a handle's own number.
    pub(crate) handle: u64,
    /// How many proven losses of data that handle had seen.
    pub(crate) epoch: u64,
    /// The epoch that incarnations are named after: an earlier one where a watch began after a loss and before its proof.
    pub(crate) named: u64,
    /// How many keys a watch knows in its range. `None` where that is not known.
    pub(crate) held: Option<u64>,
    /// A record that was there at that revision. `None` where none was seen.
    pub(crate) witness: Option<Witness>,
}

impl Place {
    pub(crate) fn position(&self) -> Position {
        let stored = self.witness.as_ref().map_or(0, |witness| witness.stored.len());
        let mut bytes = BytesMut::with_capacity(64 + stored);
        bytes.put_i64(self.revision);
        bytes.put_u64(self.handle);
        bytes.put_u64(self.epoch);
        bytes.put_u64(self.named);
        bytes.put_u64(self.held.map_or(0, |held| held + 1));
        if let Some(witness) = &self.witness {
            bytes.put_i64(witness.modified);
            bytes.put_i64(witness.created);
            bytes.put_i64(witness.lease);
            bytes.put_slice(&witness.stored);
        }
        Position(bytes.freeze())
    }

    /// `None` for a position that this crate did not make.
    pub(crate) fn parse(position: &Position) -> Option<Self> {
        let number = |index: usize| {
            let bytes = position.0.get(index * 8..index * 8 + 8)?;
            Some(i64::from_be_bytes(bytes.try_into().ok()?))
        };
        let witness = match position.0.len() {
            40 => None,
            length if length > 64 => Some(Witness {
                stored: position.0.slice(64..),
                modified: number(5)?,
                created: number(6)?,
                lease: number(7)?,
            }),
            _ => return None,
        };
        let unsigned = |index| number(index).map(i64::cast_unsigned);
        let (revision, handle, epoch, named) = (number(0)?, unsigned(1)?, unsigned(2)?, unsigned(3)?);
        Some(Self { revision, handle, epoch, named, held: unsigned(4)?.checked_sub(1), witness })
    }

    /// Whether everything that was there at `target` is known here. Two handles have no name in common for what came
    /// after a loss of data.
    pub(crate) fn reached(&self, target: &Self) -> bool {
        if self.handle == target.handle {
            (self.epoch, self.revision) >= (target.epoch, target.revision)
        } else {
            (self.epoch, target.epoch) == (0, 0) && self.revision >= target.revision
        }
    }
}

/// The newest records that a watch has seen and that are still there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Witnesses {
    newest_last: VecDeque<Witness>,
}

impl Witnesses {
    pub(crate) fn with(witness: Option<Witness>) -> Self {
        Self { newest_last: witness.into_iter().collect() }
    }

    /// Takes note of a record. One that is older than the newest is not remembered.
    pub(crate) fn saw(&mut self, record: &KeyValue) {
        if self.newest_last.back().is_some_and(|newest| newest.modified > record.mod_revision()) {
            return;
        }
        // Of one key with one creation there is one record: the texts of the others, which are far apart in memory, need not
        // be read.
        let created = record.create_revision();
        self.newest_last.retain(|known| known.created != created || known.stored != record.key());
        if self.newest_last.len() == REMEMBERED {
            self.newest_last.pop_front();
        }
        self.newest_last.push_back(Witness::of(record));
    }

    /// Takes note of a page of a snapshot: of its newest records, which are few, whatever their keys.
    pub(crate) fn saw_page(&mut self, page: &[KeyValue]) {
        let mut newest: Vec<&KeyValue> = page.iter().collect();
        if let Some(older) = newest.len().checked_sub(REMEMBERED).filter(|older| *older > 0) {
            newest.select_nth_unstable_by_key(older, |record| record.mod_revision());
            newest.drain(..older);
        }
        newest.sort_unstable_by_key(|record| record.mod_revision());
        newest.into_iter().for_each(|record| self.saw(record));
    }

    /// Takes note of a deletion.
    pub(crate) fn gone(&mut self, stored: &[u8]) {
        self.newest_last.retain(|witness| witness.stored != stored);
    }

    pub(crate) fn newest(&self) -> Option<&Witness> {
        self.newest_last.back()
    }
}

/// The token of a record. After a proven loss of data, create revisions are given out again.
pub(crate) fn incarnation(epoch: u64, created: i64) -> Incarnation {
    if epoch == 0 { Incarnation(created.cast_unsigned()) } else { Incarnation::of((epoch, created)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_round_trips() {
        let witness = Witness { stored: Bytes::from_static(b"v1/a/b/1"), modified: 7, created: 5, lease: -1 };
        for witness in [None, Some(witness), Some(Witness::of_nothing(b"v1/".to_vec(), 9))] {
            for held in [None, Some(0), Some(9)] {
                let witness = witness.clone();
                let place = Place { revision: i64::MAX, handle: 7, epoch: u64::MAX, named: 3, held, witness };
                assert_eq!(Place::parse(&place.position()), Some(place));
            }
        }
        for foreign in [&b""[..], b"12345678", b"12345678901234567890123456789012345678901234567890123456"] {
            assert_eq!(Place::parse(&Position(Bytes::from_static(foreign))), None);
        }
    }

    #[test]
    fn revisions_are_compared_within_one_history() {
        let at = |handle, epoch, revision| Place { revision, handle, epoch, named: 0, held: None, witness: None };
        assert!(at(1, 0, 5).reached(&at(1, 0, 5)) && !at(1, 0, 5).reached(&at(1, 0, 6)));
        assert!(!at(1, 0, 5).reached(&at(1, 1, 2)) && at(1, 1, 2).reached(&at(1, 0, 5)));
        assert!(at(1, 0, 5).reached(&at(2, 0, 5)) && !at(1, 0, 5).reached(&at(2, 0, 6)));
        assert!(!at(1, 1, 5).reached(&at(2, 0, 1)) && !at(1, 0, 5).reached(&at(2, 1, 1)));
    }

    #[test]
    fn a_new_epoch_gives_new_tokens() {
        assert_eq!(incarnation(0, 9), Incarnation(9));
        assert_ne!(incarnation(1, 9), incarnation(0, 9));
        assert_ne!(incarnation(1, 9), incarnation(2, 9));
    }
}
