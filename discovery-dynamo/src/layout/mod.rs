//! Where records lie on the wire: keys of a key-value store, files, entries of a Kubernetes resource.
//!
//! All three name a record by the same text, its *entry*, inside a *bucket* for its kind:
//!
//! | kind | bucket | Kubernetes | entry |
//! |---|---|---|---|
//! | endpoint | `instances` | `endpoints` | `{ns}/{component}/{endpoint}/{id}` |
//! | model | `mdc` | `model_cards` | `{ns}/{component}/{endpoint}/{id}[/{suffix}]` |
//! | event_channel | `event_channels` | `event_channels` | `{scope}/topic/{topic}/{id}` |
//! | event_source | `event_sources` | `event_sources` | `{scope}/topic/{topic}/{id}` |
//! | any other | the kind | the kind | `{segment}/.../{id}[.{suffix}]` |
//!
//! A scope is `namespace/{ns}[/component/{component}[/endpoint/{endpoint}]]`; ids are lower-case hexadecimal. Names of
//! endpoints and models stand there as they are, so they cannot hold a `/`. Everywhere else each byte outside
//! `[A-Za-z0-9_-]` is written as `%XX`.
//!
//! The mappings are injective, and exact both ways: what parses is what would be written, and nothing else. A key that
//! they cannot represent is refused with [`InvalidKey`](discovery_core::ErrorKind::InvalidKey), before any I/O. Kinds
//! of other crates may not be called like a bucket or a Kubernetes map above, on any store, so that a program that
//! works on one store works on all.
//!
//! ```
//! use discovery_core::{InstanceId, Key, Path};
//! use discovery_dynamo::layout;
//!
//! let key = Key::new(Path::new("endpoint", ["dynamo", "backend", "generate"])?, InstanceId(0x2a));
//! assert_eq!(layout::stored_key(&key)?, "v1/instances/dynamo/backend/generate/2a");
//! assert_eq!(layout::parse_stored_key("v1/instances/dynamo/backend/generate/2a")?, key);
//!
//! let (bucket, name) = layout::file_name(&key)?;
//! assert_eq!((bucket.as_str(), name.as_str()), ("instances", "dynamo%2Fbackend%2Fgenerate%2F2a"));
//!
//! let (collection, name) = layout::kubernetes_entry(&key)?;
//! assert_eq!((collection.as_str(), name.as_str()), ("endpoints", "dynamo/backend/generate/2a"));
//!
//! let key = Key::new(Path::new("cache", ["eu west", "a/b"])?, InstanceId(0x2a)).with_suffix("1")?;
//! assert_eq!(layout::stored_key(&key)?, "v1/cache/eu%20west/a%2Fb/2a.1");
//! # Ok::<_, discovery_core::Error>(())
//! ```

mod entry;
mod file;
mod instance;
mod kinds;
mod kubernetes;
mod stored;

pub use file::{MAX_FILE_NAME, file_name, parse_file_name};
pub use instance::{kubernetes_instance_id, kubernetes_resource_name};
pub use kinds::{bucket_of_kind, kind_of_bucket, kind_of_kubernetes_collection, kubernetes_collection};
pub use kubernetes::{
    KUBERNETES_COLLECTIONS, MAX_KUBERNETES_DEPTH, MAX_KUBERNETES_INTEGER, kubernetes_entry, kubernetes_value,
    parse_kubernetes_entry, value_from_kubernetes,
};
pub use stored::{ROOT, parse_stored_key, stored_key, stored_prefix};
