//! Which visible records came to be while somebody looked: those that were absent just before.
//!
//! The API has no token for it. An entry that is taken out of a resource and put back in, or a pod that is not ready and
//! then is, leaves the uids as they were; yet whoever reads both changes at a time has to tell them from an update.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use discovery_core::Key;
use discovery_core::backend::Incarnation;

/// Shared by all watches of a handle, so that a record is the same one to the next of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Births(Arc<Mutex<Born>>);

#[derive(Debug, Default)]
struct Born {
    last: u64,
    /// Of the visible records alone.
    numbers: HashMap<Key, u64>,
}

impl Births {
    fn lock(&self) -> MutexGuard<'_, Born> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The record was absent, and is not any more.
    pub(crate) fn born(&self, key: &Key) {
        let mut born = self.lock();
        born.last += 1;
        let number = born.last;
        born.numbers.insert(key.clone(), number);
    }

    pub(crate) fn gone(&self, key: &Key) {
        self.lock().numbers.remove(key);
    }

    /// Forgets all but these.
    pub(crate) fn keep(&self, is_visible: impl Fn(&Key) -> bool) {
        self.lock().numbers.retain(|key, _| is_visible(key));
    }

    /// The token of a record that is `incarnation` by its uids.
    pub(crate) fn incarnation(&self, key: &Key, incarnation: Incarnation) -> Incarnation {
        match self.lock().numbers.get(key) {
            Some(number) => Incarnation::of((incarnation, number)),
            None => incarnation,
        }
    }
}
