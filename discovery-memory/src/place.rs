//! Where a watch or a write stands: the cluster's epoch and a revision in it.

use bytes::Bytes;
use discovery_core::backend::Position;

/// An epoch and a revision. The epoch changes when data is lost; the revision only grows, over epochs too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) epoch: u64,
    pub(crate) revision: u64,
}

impl Place {
    pub(crate) fn position(self) -> Position {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[8..].copy_from_slice(&self.revision.to_be_bytes());
        Position(Bytes::copy_from_slice(&bytes))
    }

    /// `None` for a position that no cluster of this crate made.
    pub(crate) fn parse(position: &Position) -> Option<Self> {
        let bytes: [u8; 16] = position.0.as_ref().try_into().ok()?;
        let number = u128::from_be_bytes(bytes);
        Some(Self { epoch: (number >> 64) as u64, revision: number as u64 })
    }

    pub(crate) fn reached(self, target: Place) -> bool {
        self.epoch > target.epoch || (self.epoch == target.epoch && self.revision >= target.revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_round_trips_and_compares() {
        let place = Place { epoch: 7, revision: u64::MAX - 1 };
        assert_eq!(Place::parse(&place.position()), Some(place));
        assert_eq!(Place::parse(&Position::from_u64(1)), None);
        assert!(place.reached(place));
        assert!(!place.reached(Place { revision: u64::MAX, ..place }));
        assert!(Place { epoch: 8, revision: 0 }.reached(place));
        assert!(!Place { epoch: 6, revision: u64::MAX }.reached(place));
    }
}
