//! What silent watches count.

use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde_json::Value;

use crate::usage::now;

/// What silent watches have seen: `puts`, `removals`, and `delays`, from the moment that a record tells to the moment that
/// the watch told of it, in nanoseconds.
#[derive(Debug, Default)]
pub struct Tally {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default, Serialize)]
struct Seen {
    puts: u64,
    removals: u64,
    delays: Vec<u64>,
}

impl Tally {
    /// A record came whose transport has this address; one that ends with `/{nanoseconds}` tells when it was written.
    pub fn put(&self, address: &str) {
        let at = now();
        let told = address.rsplit('/').next().and_then(|text| text.parse::<u64>().ok());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.puts += 1;
        seen.delays.extend(told.filter(|&told| told > 0).map(|told| at.saturating_sub(told)));
    }

    /// A record went.
    pub fn removed(&self) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).removals += 1;
    }

    /// What was seen since the last time.
    pub fn take(&self) -> Value {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        serde_json::to_value(seen).unwrap_or_default()
    }
}
