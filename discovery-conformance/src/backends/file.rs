//! The backend in a directory: what can be done to its files, and between it and its users.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use async_trait::async_trait;
use discovery_core::backend::Backend;
use discovery_core::{BackendContext, Environment, Error, ErrorKind, Key, Result, TaskScope};
use discovery_dynamo::layout;
use discovery_file::FileBackend;
use tempfile::TempDir;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::disk::Disk;
use super::process::{Process, Way};
use crate::world::{Factory, Fault, Hook, World};

/// Worlds in temporary directories of their own.
#[derive(Clone, Debug, Default)]
pub struct File {
    root: Option<PathBuf>,
}

impl File {
    /// Their directories are where the system's temporary ones are.
    pub fn new() -> Self {
        Self::default()
    }

    /// Their directories are in this one.
    pub fn within(root: impl Into<PathBuf>) -> Self {
        Self { root: Some(root.into()) }
    }
}

#[async_trait]
impl Factory for File {
    fn name(&self) -> &str {
        "file"
    }

    fn hooks(&self) -> Vec<Hook> {
        let mut hooks = vec![
            Hook::Cut,
            Hook::Outage,
            Hook::Crash,
            Hook::Pause,
            Hook::Delete,
            Hook::Write,
            Hook::DropAcks,
            Hook::Deny,
            Hook::Torn,
        ];
        if Disk::available() {
            hooks.extend(DISK);
        }
        hooks
    }

    // Real files, several cases at once on a busy machine.
    fn patience(&self) -> u32 {
        20
    }

    async fn world(&self) -> Result<Box<dyn World>> {
        self.world_for(&[]).await
    }

    async fn world_for(&self, faults: &[Hook]) -> Result<Box<dyn World>> {
        let directory = match &self.root {
            Some(root) => tempfile::tempdir_in(root),
            None => tempfile::tempdir(),
        };
        let directory = directory.map_err(|error| internal("no directory", error))?;
        let mount = || Disk::mount(directory.path()).map_err(|error| internal("no disk", error));
        let disk = faults.iter().any(|fault| DISK.contains(fault)).then(mount).transpose()?;
        Ok(Box::new(Place { owners: Mutex::default(), threads: Threads::start()?, disk, directory }))
    }
}

/// The faults that need a disk of their own.
const DISK: [Hook; 2] = [Hook::ReadOnly, Hook::DiskFull];

fn internal(what: &str, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Internal, what.to_owned()).with_source(error)
}

struct Place {
    owners: Mutex<BTreeMap<usize, Arc<Process>>>,
    threads: Threads,
    /// In the place of the directory, where there is one.
    disk: Option<Disk>,
    directory: TempDir,
}

impl Place {
    fn root(&self) -> &Path {
        self.disk.as_ref().map_or_else(|| self.directory.path(), Disk::path)
    }

    fn disk(&self, hook: Hook) -> Result<&Disk> {
        let missing = || Error::new(ErrorKind::Unsupported, format!("this world has no disk of its own for {hook}"));
        self.disk.as_ref().ok_or_else(missing)
    }

    fn all(&self, way: Way) {
        let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        owners.values().for_each(|owner| owner.set(way));
    }

    fn process(&self, n: usize) -> Result<Arc<Process>> {
        let owners = self.owners.lock().unwrap_or_else(PoisonError::into_inner);
        owners.get(&n).cloned().ok_or_else(|| Error::new(ErrorKind::Internal, format!("there is no owner {n}")))
    }

    fn path(&self, key: &Key) -> Result<PathBuf> {
        let (bucket, name) = layout::file_name(key)?;
        let bucket = self.root().join("v1").join(bucket);
        std::fs::create_dir_all(&bucket).map_err(|error| internal("no bucket", error))?;
        Ok(bucket.join(name))
    }
}

#[async_trait]
impl World for Place {
    async fn owner(&self, n: usize) -> Result<Arc<dyn Backend>> {
        let environment = Environment::default().with("DYN_FILE_KV", self.root().to_string_lossy());
        let context = BackendContext::new(environment, self.threads.tasks());
        let process = Process::new(Arc::new(FileBackend::connect(&context).await?));
        self.owners.lock().unwrap_or_else(PoisonError::into_inner).insert(n, Arc::clone(&process));
        Ok(process)
    }

    async fn inject(&self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Cut(n) => self.process(n)?.set(Way::Fails(ErrorKind::Unavailable)),
            Fault::Pause(n) => self.process(n)?.set(Way::Hangs),
            Fault::Deny(n) => self.process(n)?.set(Way::Fails(ErrorKind::PermissionDenied)),
            Fault::Heal(n) | Fault::Resume(n) | Fault::Allow(n) => self.process(n)?.set(Way::Whole),
            Fault::Outage => self.all(Way::Fails(ErrorKind::Unavailable)),
            Fault::Restore => self.all(Way::Whole),
            Fault::Crash(n) => self.process(n)?.kill(),
            Fault::DropAcks(n, on) => self.process(n)?.drop_acks(on),
            Fault::Delete(key) => {
                std::fs::remove_file(self.path(&key)?).map_err(|error| internal("not deleted", error))?;
            }
            Fault::Write(key, value) => {
                // As a reference process would: beside, then in its place.
                let path = self.path(&key)?;
                let beside = path.with_file_name(".tmp_conformance");
                std::fs::write(&beside, value).map_err(|error| internal("not written", error))?;
                std::fs::rename(beside, path).map_err(|error| internal("not renamed", error))?;
            }
            Fault::Torn(key) => {
                let path = self.path(&key)?;
                std::fs::write(path.with_file_name(".tmp_torn"), br#"{"place":["to"#)
                    .and_then(|()| std::fs::write(path, br#"{"place":["to"#))
                    .map_err(|error| internal("not torn", error))?;
            }
            Fault::ReadOnly(on) => {
                let done = self.disk(Hook::ReadOnly)?.set_read_only(on);
                done.map_err(|error| internal("not remounted", error))?;
            }
            Fault::DiskFull(on) => {
                let done = self.disk(Hook::DiskFull)?.set_full(on);
                done.map_err(|error| internal("not filled", error))?;
            }
            other => return Err(Error::new(ErrorKind::Unsupported, format!("nothing like {}", other.hook()))),
        }
        Ok(())
    }
}

/// A thread for the owners' own work, which goes on while a case blocks its own.
struct Threads {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Threads {
    fn start() -> Result<Self> {
        let runtime =
            Builder::new_current_thread().enable_all().build().map_err(|error| internal("no runtime", error))?;
        let (stop, stopped) = oneshot::channel();
        let (started, handle) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let _ = started.send(runtime.handle().clone());
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        });
        let handle = handle.recv().map_err(|_| Error::new(ErrorKind::Internal, "the thread did not start"))?;
        Ok(Self { handle, stop: Some(stop), thread: Some(thread) })
    }

    fn tasks(&self) -> TaskScope {
        let _inside = self.handle.enter();
        TaskScope::current()
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
