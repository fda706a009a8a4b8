//! An in-memory backend: a whole cluster inside one process.
//!
//! It is the reference for the contract in `docs/contract.md`, and the backend for tests and demonstrations: sessions,
//! revisions and history as a real store has them, without a server, and with a switch for every fault that a real
//! store can have ([`faults`]).
//!
//! A [`Cluster`] is the store; [`Cluster::connect`] gives a handle, which stands for one process. Linked into a program
//! with `use discovery_memory as _;`, the crate offers itself as the backend `memory` (`mem` is the same).
//! `DYN_DISCOVERY_MEMORY_CLUSTER` names the cluster, `default` where it is unset; `DYN_DISCOVERY_MEMORY_TTL` is the time
//! to live of sessions in seconds, 10 where it is unset.
//!
//! ```
//! use bytes::Bytes;
//! use discovery_core::backend::{Desired, Registrar, SessionRequest, Watcher, Write, WriteBatch};
//! use discovery_core::{Key, Path, Result, Scope};
//! use discovery_memory::Cluster;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<()> {
//! let cluster = Cluster::new();
//! let (server, client) = (cluster.connect(), cluster.connect());
//!
//! let session = server.open(&SessionRequest::default()).await?;
//! let key = Key::new(Path::new("endpoint", ["dynamo", "backend", "generate"])?, session.id());
//! let value = Bytes::from_static(br#"{"address":"10.0.0.5:9000"}"#);
//! let put = Write::Put { key: key.clone(), value: value.clone() };
//! let batch = WriteBatch { writes: vec![put], atomic: false };
//! for result in session.publish(&batch, &Desired::from([(key.clone(), value)])).await {
//!     result?;
//! }
//!
//! let (entries, _) = client.list(&Scope::new("endpoint", ["dynamo"])?).await?;
//! assert_eq!(entries[0].key, key);
//!
//! client.link().cut();
//! assert!(client.list(&Scope::all()).await.is_err());
//! # Ok(())
//! # }
//! ```

mod backend;
mod bounds;
mod cluster;
pub mod faults;
mod handle;
mod link;
mod log;
mod members;
mod place;
mod reader;
mod session;
mod state;
mod watch;

use std::sync::Arc;

use discovery_core::backend::Backend;
use discovery_core::{BackendContext, BackendFactory, Result};

pub use backend::MemoryBackend;
pub use cluster::{Cluster, ClusterBuilder, Counters, Operation};
pub use state::OwnerId;

pub(crate) const NAME: &str = "memory";

/// The variable that names the cluster.
pub const CLUSTER_VARIABLE: &str = "DYN_DISCOVERY_MEMORY_CLUSTER";

/// The variable for the time to live of sessions, in seconds.
pub const TTL_VARIABLE: &str = "DYN_DISCOVERY_MEMORY_TTL";

/// The backend `memory`, for programs that name their backends themselves.
pub const FACTORY: BackendFactory = BackendFactory::new(
    NAME,
    env!("CARGO_PKG_NAME"),
    "a cluster inside this process, for tests and demonstrations",
    |context| Box::pin(async move { connect(&context) }),
)
.with_aliases(&["mem"]);

inventory::submit!(FACTORY);

fn connect(context: &BackendContext) -> Result<Arc<dyn Backend>> {
    let environment = &context.environment;
    let ttl = environment.seconds(TTL_VARIABLE).map_err(|error| error.with_backend(NAME))?;
    let cluster = environment.get(CLUSTER_VARIABLE).map_err(|error| error.with_backend(NAME))?;
    let cluster = Cluster::named(cluster.unwrap_or("default"));
    tracing::debug!(cluster = cluster.name(), "connected to a cluster in memory");
    let backend = match ttl {
        Some(ttl) => cluster.connect_with_ttl(ttl),
        None => cluster.connect(),
    };
    Ok(Arc::new(backend))
}
