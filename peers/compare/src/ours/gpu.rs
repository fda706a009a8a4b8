//! A kind of a user's own, which the reference does not know.

use discovery_core::{Path, Record, Result};
use serde::{Deserialize, Serialize};

/// A GPU that a process offers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Gpu {
    r#type: String,
    pool: String,
    memory: u64,
}

impl Record for Gpu {
    const KIND: &'static str = "gpu";

    fn path(&self) -> Result<Path> {
        Path::new(Self::KIND, [&self.pool])
    }
}
