//! The handle on the in-memory backend: what users rely on beyond what every backend promises.

mod choosing;
mod measuring;
mod owning;
mod watching;

use std::sync::Arc;

use discovery_core::backend::Backend;
use discovery_core::{Builder, Discovery, ExecutorKind, Path, Record, Result};
use discovery_memory::MemoryBackend;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Worker {
    pub(crate) pool: String,
    pub(crate) load: u32,
}

impl Record for Worker {
    const KIND: &'static str = "worker";

    fn path(&self) -> Result<Path> {
        Path::new(Self::KIND, [&self.pool])
    }
}

pub(crate) fn worker(pool: &str, load: u32) -> Worker {
    Worker { pool: pool.to_owned(), load }
}

pub(crate) fn builder(backend: &MemoryBackend) -> Builder {
    let backend: Arc<dyn Backend> = Arc::new(backend.clone());
    Discovery::builder().with_backend(backend).executor(ExecutorKind::Current)
}

pub(crate) async fn handle(backend: &MemoryBackend) -> Discovery {
    builder(backend).build().await.expect("a handle")
}
