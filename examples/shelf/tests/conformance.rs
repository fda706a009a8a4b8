//! The contract, on shelves of the suite's own.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use discovery_conformance::{Factory, Fault, Hook, World};
use discovery_core::adapter::{KeyStore, Listing, Simple, Stored, Swap, Swapped};
use discovery_core::backend::Backend;
use discovery_core::{Environment, Error, ErrorKind, Result};
use shelf::{SHELF_VARIABLE, Shelf};

struct OnShelves;

#[async_trait]
impl Factory for OnShelves {
    fn name(&self) -> &str {
        "shelf"
    }

    fn hooks(&self) -> Vec<Hook> {
        vec![Hook::Cut]
    }

    async fn world(&self) -> Result<Box<dyn World>> {
        // Random, and not counted: a store that outlives this process has the worlds of earlier runs.
        let name = format!("conformance-{:016x}", fastrand::u64(..));
        let environment: Environment = [(SHELF_VARIABLE, name)].into_iter().collect();
        Ok(Box::new(Place { shelf: Shelf::new(&environment)?, cuts: Mutex::default() }))
    }
}

/// One shelf, and for each owner whether its way there is cut.
struct Place {
    shelf: Shelf,
    cuts: Mutex<BTreeMap<usize, Arc<AtomicBool>>>,
}

impl Place {
    fn cut(&self, n: usize) -> Arc<AtomicBool> {
        Arc::clone(self.cuts.lock().unwrap_or_else(PoisonError::into_inner).entry(n).or_default())
    }
}

#[async_trait]
impl World for Place {
    async fn owner(&self, n: usize) -> Result<Arc<dyn Backend>> {
        Ok(Arc::new(Simple::new("shelf", Gate { shelf: self.shelf.clone(), cut: self.cut(n) })))
    }

    async fn inject(&self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Cut(n) => self.cut(n).store(true, Ordering::Release),
            Fault::Heal(n) => self.cut(n).store(false, Ordering::Release),
            other => return Err(Error::new(ErrorKind::Unsupported, format!("nothing like {}", other.hook()))),
        }
        Ok(())
    }

    async fn close(&self) {
        self.shelf.remove();
    }
}

/// Between one owner and the shelf.
struct Gate {
    shelf: Shelf,
    cut: Arc<AtomicBool>,
}

impl Gate {
    fn pass(&self) -> Result<()> {
        let cut = self.cut.load(Ordering::Acquire);
        if cut { Err(Error::new(ErrorKind::Unavailable, "the gate is shut")) } else { Ok(()) }
    }
}

#[async_trait]
impl KeyStore for Gate {
    async fn list(&self, prefix: &str) -> Result<Listing<(String, Stored)>> {
        self.pass()?;
        self.shelf.list(prefix).await
    }

    async fn swap(&self, swaps: &[Swap], ttl: Duration) -> Result<Vec<Swapped>> {
        self.pass()?;
        self.shelf.swap(swaps, ttl).await
    }

    async fn ping(&self) -> Result<String> {
        self.pass()?;
        self.shelf.ping().await
    }
}

fn main() -> ExitCode {
    discovery_conformance::harness::main(vec![Arc::new(OnShelves)])
}
