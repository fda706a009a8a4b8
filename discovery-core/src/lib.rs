#![doc = include_str!("../README.md")]

pub mod adapter;
pub mod backend;
mod backoff;
mod capability;
mod changes;
mod deadline;
#[cfg(feature = "tower")]
mod discover;
mod discovery;
mod environment;
mod error;
mod executor;
mod feed;
mod freshness;
mod key;
mod query;
mod reader;
mod reconcile;
mod record;
mod registration;
mod registry;
mod select;
mod store;
pub mod telemetry;
mod view;

pub use backoff::Backoff;
pub use capability::{Bounds, Capabilities};
pub use changes::{Batch, Changes, ViewChange};
#[cfg(feature = "tower")]
pub use discover::Discover;
pub use discovery::{Builder, ChangeToken, Committed, Discovery, Draft, ShutdownReport};
pub use environment::Environment;
pub use error::{Effect, Error, ErrorKind, Result};
pub use executor::{ExecutorKind, TaskScope};
pub use freshness::Freshness;
pub use key::{InstanceId, Key, Path};
pub use query::{Query, Scope};
pub use reader::Reader;
pub use record::{Record, Registered};
pub use registration::{Registration, RegistrationState};
pub use registry::{BackendContext, BackendFactory, Connect, Registry};
pub use select::{BACKEND_VARIABLE, Selection, select};
pub use store::Undecodable;
pub use view::{Snapshot, View, ViewOptions};
