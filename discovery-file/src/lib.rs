//! The file backend of service discovery: the processes of one machine share a directory, and there is no server.
//!
//! ```
//! use discovery_core::backend::{Backend, Registrar, SessionRequest, Watcher, Write, WriteBatch};
//! use discovery_core::{BackendContext, Environment, Key, Path, Scope, TaskScope};
//! use discovery_file::FileBackend;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> discovery_core::Result<()> {
//! # let directory = tempfile::tempdir().unwrap();
//! let environment = Environment::default().with("DYN_FILE_KV", directory.path());
//! let backend = FileBackend::connect(&BackendContext::new(environment, TaskScope::current())).await?;
//! let session = backend.open(&SessionRequest::default()).await?;
//! let key = Key::new(Path::new("endpoint", ["dynamo", "backend", "generate"])?, session.id());
//! let mut batch = WriteBatch::default();
//! batch.writes.push(Write::Put { key: key.clone(), value: r#"{"address":"10.0.0.5:9000"}"#.into() });
//! for result in session.publish(&batch, &Default::default()).await {
//!     result?;
//! }
//! let (entries, _) = backend.list(&Scope::all()).await?;
//! assert_eq!(entries[0].key, key);
//! session.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Settings
//! | variable | meaning | default |
//! |---|---|---|
//! | `DYN_FILE_KV` | the directory | `$TMPDIR/dynamo_store_kv`, `TMPDIR` being `/tmp` where unset |
//! | `DYN_DISCOVERY_FILE_TTL` | seconds that a record outlives its owner's last renewal, at least 1 | 10 |
//!
//! # Layout
//! `v1/{bucket}/{name}` is one record, its value being the file's bytes; [`discovery_dynamo::layout`] says which key
//! that is. Names that start with `.tmp_` are being written and are passed over. `.discovery/owners/{id}` is one
//! owner: locked for its life, its modification time being its last renewal, its lines the files that it claims.
//!
//! A record appears by a hard link, changes by a rename and goes by an unlink, each under the exclusive `flock` of its
//! bucket's directory, so that no reader sees half of one. An owner claims a file, by inode and time of birth, before
//! it appears. Nothing of another owner that lives is ever rewritten.
//!
//! # Liveness
//! An owner that dies loses its lock. Watchers hear that its file was closed, ask the kernel whether the lock is still
//! held, without taking it, and remove what it claims: milliseconds after the death. An owner that is stopped keeps its
//! lock; it expires when a watcher has seen no renewal for its time to live and half a second, by the watcher's own
//! monotonic clock, and is removed likewise; time in which the watcher itself was kept from looking for more than a second
//! does not count. When it goes on it finds its session lost. Only a process that watches
//! removes what the dead left, and one that wants the very key of a dead owner.
//!
//! A process that forks without `exec` shares its lock with its children: while one of them lives, their parent's
//! death shows only by its missing renewals.
//!
//! # Bounds
//! Measured on two cores with a local ext4: propagation 50 ms, slack 2 s, recovery 2 s, values of 1 MiB, names of 255
//! bytes. A watch costs one inotify instance for each handle, however many streams there are, and none in a process
//! that only registers. Where the kernel grants none (`max_user_instances` is 128 by default), the directory is read
//! every 250 ms instead; then propagation is 300 ms, and a record that is deleted and made again between two readings
//! shows as an update.
//!
//! # Beside the reference
//! Processes of NVIDIA Dynamo can share the directory. They remove every file that was not renewed for ten seconds, so
//! record files are renewed every three, whatever the time to live, and what they remove all the same is written again.
//! Their files have no owner here: such a file counts as gone when its modification time has not changed for ten and a
//! half seconds, as seen by the watcher's monotonic clock (at first sight, by its age on the wall clock). It is hidden
//! then, and left where it is: looking at a directory removes nothing but what a dead owner's own file claims. A writer
//! that wants its key takes it over.
//!
//! # Limits
//! One kernel: locks and notices do not cross NFS or other network file systems. All processes run as one user, or as
//! users who may write each other's directories; who may only read still sees the right set, and removes nothing.

mod backend;
mod config;
mod diagnose;
mod fault;
mod lock;
mod owner;
mod place;
mod reading;
mod record;
mod session;
mod watch;

pub use backend::FileBackend;
pub use config::{Config, DIRECTORY_VARIABLE, TTL_VARIABLE};
pub use diagnose::{Diagnosis, OwnerFiles, RecordFiles, diagnose};

/// The name in `DYN_DISCOVERY_BACKEND`.
pub const NAME: &str = "file";
/// The longest value in bytes.
pub const MAX_VALUE: usize = 1 << 20;
