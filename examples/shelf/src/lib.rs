//! Service discovery on a shelf.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use discovery_core::adapter::{KeyStore, Listing, Simple, Stored, Swap, Swapped};
use discovery_core::{BackendFactory, Environment, Error, ErrorKind, Result};

/// The variable that names the shelf, `discovery` where it is unset.
pub const SHELF_VARIABLE: &str = "DYN_DISCOVERY_SHELF";

/// What stands on a shelf, and until when.
type Documents = BTreeMap<String, (Stored, Instant)>;

/// In the place of your server: every shelf of this process, by name.
static SHELVES: Mutex<BTreeMap<String, Documents>> = Mutex::new(BTreeMap::new());

/// A handle on one shelf.
#[derive(Clone, Debug)]
pub struct Shelf {
    name: String,
}

impl Shelf {
    /// The shelf that the environment names. Does no I/O: a service can start before its store does.
    ///
    /// # Errors
    /// Where the name is none.
    pub fn new(environment: &Environment) -> Result<Self> {
        let name = environment.get(SHELF_VARIABLE)?.unwrap_or("discovery");
        if name.contains(char::is_whitespace) {
            let text = format!("{SHELF_VARIABLE}={name:?} is no name of a shelf: leave out the spaces");
            return Err(Error::new(ErrorKind::InvalidConfig, text));
        }
        Ok(Self { name: name.to_owned() })
    }

    /// Takes the shelf away, with all that stands on it.
    pub fn remove(&self) {
        SHELVES.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.name);
    }

    fn with<T>(&self, work: impl FnOnce(&mut Documents) -> T) -> T {
        let mut shelves = SHELVES.lock().unwrap_or_else(PoisonError::into_inner);
        let documents = shelves.entry(self.name.clone()).or_default();
        documents.retain(|_, (_, until)| *until > Instant::now());
        work(documents)
    }
}

#[async_trait]
impl KeyStore for Shelf {
    async fn list(&self, prefix: &str) -> Result<Listing<(String, Stored)>> {
        let below = |documents: &mut Documents| {
            let below = documents.range(prefix.to_owned()..).take_while(|(name, _)| name.starts_with(prefix));
            below.map(|(name, (stored, _))| (name.clone(), stored.clone())).collect::<Vec<_>>()
        };
        Ok(self.with(below).into())
    }

    async fn swap(&self, swaps: &[Swap], ttl: Duration) -> Result<Vec<Swapped>> {
        let until = Instant::now() + ttl;
        Ok(self.with(|documents| {
            let swap = |swap: &Swap| {
                let stands = documents.get(&swap.name).map(|(stored, _)| stored.clone());
                if stands.as_ref().map(|stored| stored.tag) != swap.expect {
                    return Swapped::Differs(stands);
                }
                // With nothing to put, what stands there stays and lives for another `ttl`.
                if let Some(stored) = swap.put.clone().or(stands) {
                    documents.insert(swap.name.clone(), (stored, until));
                }
                Swapped::Done
            };
            swaps.iter().map(swap).collect()
        }))
    }

    async fn ping(&self) -> Result<String> {
        Ok(format!("the shelf {}", self.name))
    }
}

/// The backend `shelf`.
pub const FACTORY: BackendFactory =
    BackendFactory::new("shelf", env!("CARGO_PKG_NAME"), "a shelf in this process", |context| {
        Box::pin(async move { Ok(Arc::new(Simple::new("shelf", Shelf::new(&context.environment)?)) as _) })
    });

// Whoever says `use shelf as _;` has it linked in.
inventory::submit!(FACTORY);

/// The examples of the page that this crate is.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/writing-a-backend.md")]
struct Page;
