//! Service discovery: processes register what they serve, others find it and hear of changes at once.
//!
//! This crate knows records, sessions, views and faults; a backend knows one store.

pub mod backend;
mod capability;
mod environment;
mod error;
mod executor;
mod key;
mod query;
mod record;
mod registry;
mod select;

pub use capability::{Bounds, Capabilities};
pub use environment::Environment;
pub use error::{Effect, Error, ErrorKind, Result};
pub use executor::{ExecutorKind, TaskScope};
pub use key::{InstanceId, Key, Path};
pub use query::{Query, Scope};
pub use record::{Record, Registered};
pub use registry::{BackendContext, BackendFactory, Connect, Registry};
pub use select::{BACKEND_VARIABLE, Selection, select};
