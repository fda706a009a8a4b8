//! A snapshot on its way: what can be done with a part of it is done while the store sends the rest.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use super::run::Task;
use crate::backend::{Entry, Lineage};
use crate::store::{Ahead, AnySlot, Staged};

/// What slots have decoded already. Each is found by where it is, which is nobody else's as long as it is held.
#[derive(Default)]
pub(super) struct DecodedAhead(HashMap<usize, (Weak<dyn AnySlot>, Ahead)>);

impl DecodedAhead {
    pub(super) fn take(&mut self, slot: &Arc<dyn AnySlot>) -> Ahead {
        self.0.remove(&place(slot)).map(|(_, ahead)| ahead).unwrap_or_default()
    }

    fn of(&mut self, slot: &Arc<dyn AnySlot>) -> &mut Ahead {
        &mut self.0.entry(place(slot)).or_insert_with(|| (Arc::downgrade(slot), Ahead::default())).1
    }
}

fn place(slot: &Arc<dyn AnySlot>) -> usize {
    Arc::as_ptr(slot).cast::<()>().addr()
}

/// What there is of a snapshot.
pub(super) struct Staging {
    pub(super) lineage: Lineage,
    pub(super) staged: Staged,
    pub(super) ahead: DecodedAhead,
}

impl Staging {
    pub(super) fn new(lineage: Lineage) -> Self {
        Self { lineage, staged: Staged::default(), ahead: DecodedAhead::default() }
    }
}

impl Task {
    /// Takes a part of a snapshot in. Of a first one its records are decoded at once; of a later one most are known, and
    /// which are not is found out with the whole.
    pub(super) async fn stage(&self, staging: &mut Staging, part: Vec<Entry>) {
        let Staging { staged, ahead, .. } = staging;
        let known = staged.len();
        staged.take(part);
        if self.holds_records() {
            return;
        }
        if !staged.ascends() {
            // Where keys are in no order, nothing is found again among what was decoded.
            *ahead = DecodedAhead::default();
            return;
        }
        for (_, slot) in self.slots.all() {
            slot.decode_ahead(staged.after(known), ahead.of(&slot)).await;
        }
    }
}
