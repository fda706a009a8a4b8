//! Where a watch or a write stands: a revision, and how to tell that it belongs to the history it was taken from.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};
use discovery_core::backend::{Incarnation, Position};
use etcd_client::KeyValue;

/// How many of the newest keys are remembered: the newest that was not deleted proves the history.
const REMEMBERED: usize = 16;

/// A record as it stood at some revision. A store that was wiped and filled again may give the same revisions to the
/// same keys; it does not give out the same leases, whose ids hold the time.
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
}

/// A revision of one history.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) revision: i64,
    /// How many proven losses of data the handle had seen.
    pub(crate) epoch: u64,
    /// A record that was there at that revision. `None` where none was seen.
    pub(crate) witness: Option<Witness>,
}

impl Place {
    /// The place of a write or of a barrier, which nobody resumes from.
    pub(crate) fn at(revision: i64) -> Self {
        Self { revision, ..Self::default() }
    }

    pub(crate) fn position(&self) -> Position {
        let stored = self.witness.as_ref().map_or(0, |witness| witness.stored.len());
        let mut bytes = BytesMut::with_capacity(40 + stored);
        bytes.put_i64(self.revision);
        bytes.put_u64(self.epoch);
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
            16 => None,
            length if length > 40 => Some(Witness {
                stored: position.0.slice(40..),
                modified: number(2)?,
                created: number(3)?,
                lease: number(4)?,
            }),
            _ => return None,
        };
        Some(Self { revision: number(0)?, epoch: number(1)?.cast_unsigned(), witness })
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

    /// Takes note of a record. Records come in any order of age only while a snapshot is read.
    pub(crate) fn saw(&mut self, record: &KeyValue) {
        if self.newest_last.back().is_some_and(|newest| newest.modified > record.mod_revision()) {
            return;
        }
        self.gone(record.key());
        if self.newest_last.len() == REMEMBERED {
            self.newest_last.pop_front();
        }
        self.newest_last.push_back(Witness::of(record));
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
        for witness in [None, Some(witness)] {
            let place = Place { revision: i64::MAX, epoch: u64::MAX, witness };
            assert_eq!(Place::parse(&place.position()), Some(place));
        }
        for foreign in [&b""[..], b"12345678", b"1234567890123456789012345678901234567890"] {
            assert_eq!(Place::parse(&Position(Bytes::from_static(foreign))), None);
        }
    }

    #[test]
    fn a_new_epoch_gives_new_tokens() {
        assert_eq!(incarnation(0, 9), Incarnation(9));
        assert_ne!(incarnation(1, 9), incarnation(0, 9));
        assert_ne!(incarnation(1, 9), incarnation(2, 9));
    }
}
