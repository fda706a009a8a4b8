//! The backend in a directory: what can be done to its files, and between it and its users.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use discovery_core::backend::Backend;
use discovery_core::{BackendContext, Environment, Error, ErrorKind, Key, Result, TaskScope};
use discovery_dynamo::layout;
use discovery_file::FileBackend;
use tempfile::TempDir;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::disk::Disk;
use super::process::{Process, Way, Witness};
use crate::report::Verdict;
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
            Hook::Revoke,
            Hook::Compact,
            Hook::DelayWrites,
            Hook::LoseData,
            Hook::RollBack,
            Hook::Duplicate,
            Hook::WallClock,
        ];
        if Disk::available() {
            hooks.extend(DISK);
        }
        hooks
    }

    fn impossible(&self, fault: Hook) -> Option<&'static str> {
        match fault {
            Hook::HalfOpen => Some("a directory of the same machine has no connection to it"),
            Hook::Reorder => Some("a look at the directory tells one state, and no row of transactions"),
            _ => None,
        }
    }

    // What needs a disk of a world's own goes where users may have namespaces of their own.
    fn expects(&self) -> Verdict {
        if Disk::available() { Verdict::Passed } else { Verdict::PassedBlackBox }
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
        // Below a directory of the world's own, so that it can be moved away whole.
        let root = disk.as_ref().map_or_else(|| directory.path().join("shared"), |disk| disk.path().to_owned());
        std::fs::create_dir_all(&root).map_err(|error| internal("no directory", error))?;
        let (owners, weather) = (Mutex::default(), Mutex::default());
        let threads = Threads::start()?;
        Ok(Box::new(Place { owners, weather, past: Arc::default(), root, threads, disk, directory }))
    }
}

/// The faults that need a disk of their own.
const DISK: [Hook; 2] = [Hook::ReadOnly, Hook::DiskFull];

fn internal(what: &str, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Internal, what.to_owned()).with_source(error)
}

struct Place {
    owners: Mutex<BTreeMap<usize, Arc<Process>>>,
    weather: Mutex<Weather>,
    past: Arc<Past>,
    /// The shared directory.
    root: PathBuf,
    threads: Threads,
    /// In the place of the directory, where there is one.
    disk: Option<Disk>,
    directory: TempDir,
}

/// What is wrong for everybody, those who come later too.
#[derive(Clone, Copy, Default)]
struct Weather {
    outage: bool,
    twice: bool,
}

/// Each write, by the file that it was of and what that held before.
type Past = Mutex<Vec<(PathBuf, Option<Vec<u8>>)>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn record(root: &Path, key: &Key) -> Result<PathBuf> {
    let (bucket, name) = layout::file_name(key)?;
    Ok(root.join("v1").join(bucket).join(name))
}

/// Of what was to go, that it is gone already is no error.
fn absent(removed: std::io::Result<()>) -> std::io::Result<()> {
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A line of an owner's file.
#[derive(serde::Deserialize)]
struct Claim {
    bucket: String,
    name: String,
    nonce: Nonce,
}

#[derive(serde::Deserialize)]
struct Nonce {
    inode: u64,
}

/// As a reference process would: beside, then in its place.
fn put(path: &Path, value: &[u8]) -> std::io::Result<()> {
    let beside = path.with_file_name(".tmp_conformance");
    std::fs::write(&beside, value)?;
    std::fs::rename(beside, path)
}

impl Place {
    /// Who writes what from now on.
    fn witness(&self) -> Witness {
        let (past, root) = (Arc::clone(&self.past), self.root.clone());
        Arc::new(move |batch| {
            let mut past = lock(&past);
            for write in &batch.writes {
                if let Ok(path) = record(&root, write.key()) {
                    let before = std::fs::read(&path).ok();
                    past.push((path, before));
                }
            }
        })
    }

    /// As somebody who restores a copy of the directory.
    fn roll_back(&self, writes: usize) -> std::io::Result<()> {
        let mut past = lock(&self.past);
        let from = past.len().saturating_sub(writes);
        for (path, before) in past.drain(from..).rev() {
            match before {
                Some(value) => put(&path, &value)?,
                None => absent(std::fs::remove_file(path))?,
            }
        }
        Ok(())
    }

    /// All that is there at once goes out of the way, and then for good.
    fn lose(&self) -> std::io::Result<()> {
        lock(&self.past).clear();
        let lost = self.directory.path().join(format!("lost-{:016x}", fastrand::u64(..)));
        std::fs::rename(&self.root, &lost)?;
        std::fs::remove_dir_all(lost)
    }

    /// As a process does that takes the owner for dead: its file goes, and what it claims there.
    fn revoke(&self, n: usize) -> Result<()> {
        let owners = self.root.join(".discovery").join("owners");
        for instance in self.process(n)?.instances() {
            // A name that is taken gets an ending.
            let of = |name: &str| name.split('.').next() == Some(&instance.to_string());
            let listing = std::fs::read_dir(&owners).map_err(|error| internal("no owners", error))?;
            for entry in listing.flatten().filter(|entry| entry.file_name().to_str().is_some_and(of)) {
                self.reap(&entry.path()).map_err(|error| internal("not revoked", error))?;
            }
        }
        Ok(())
    }

    fn reap(&self, owner: &Path) -> std::io::Result<()> {
        let claims = std::fs::read_to_string(owner).unwrap_or_default();
        absent(std::fs::remove_file(owner))?;
        for claim in claims.lines().filter_map(|line| serde_json::from_str::<Claim>(line).ok()) {
            let path = self.root.join("v1").join(claim.bucket).join(claim.name);
            if path.symlink_metadata().is_ok_and(|metadata| metadata.ino() == claim.nonce.inode) {
                absent(std::fs::remove_file(path))?;
            }
        }
        Ok(())
    }

    /// Files seem older by as much as the clock is put forward.
    fn shift(&self, directory: &Path, seconds: i64) -> std::io::Result<()> {
        let by = Duration::from_secs(seconds.unsigned_abs());
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            // Files may go meanwhile.
            let Ok(metadata) = path.symlink_metadata() else { continue };
            if metadata.is_dir() {
                self.shift(&path, seconds)?;
            } else if let Ok(file) = std::fs::File::options().append(true).open(&path) {
                let modified = metadata.modified()?;
                file.set_modified(if seconds > 0 { modified - by } else { modified + by })?;
            }
        }
        Ok(())
    }

    fn disk(&self, hook: Hook) -> Result<&Disk> {
        let missing = || Error::new(ErrorKind::Unsupported, format!("this world has no disk of its own for {hook}"));
        self.disk.as_ref().ok_or_else(missing)
    }

    /// For everybody, and whoever comes later.
    fn everywhere(&self, change: impl FnOnce(&mut Weather), done: impl Fn(&Process)) {
        let owners = lock(&self.owners);
        change(&mut lock(&self.weather));
        owners.values().for_each(|owner| done(owner));
    }

    fn process(&self, n: usize) -> Result<Arc<Process>> {
        let owners = lock(&self.owners);
        owners.get(&n).cloned().ok_or_else(|| Error::new(ErrorKind::Internal, format!("there is no owner {n}")))
    }

    fn path(&self, key: &Key) -> Result<PathBuf> {
        let path = record(&self.root, key)?;
        let bucket = path.parent().unwrap_or(&self.root);
        std::fs::create_dir_all(bucket).map_err(|error| internal("no bucket", error))?;
        Ok(path)
    }
}

#[async_trait]
impl World for Place {
    async fn owner(&self, n: usize) -> Result<Arc<dyn Backend>> {
        let environment = Environment::default().with("DYN_FILE_KV", &self.root);
        let context = BackendContext::new(environment, self.threads.tasks());
        let process = Process::new(Arc::new(FileBackend::connect(&context).await?), self.witness());
        let mut owners = lock(&self.owners);
        let Weather { outage, twice } = *lock(&self.weather);
        if outage {
            process.set(OUT);
        }
        process.tell_twice(twice);
        owners.insert(n, Arc::clone(&process));
        Ok(process)
    }

    async fn inject(&self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Cut(n) => self.process(n)?.set(Way::Fails(ErrorKind::Unavailable)),
            Fault::Pause(n) => self.process(n)?.set(Way::Stands),
            Fault::Deny(n) => self.process(n)?.set(Way::Fails(ErrorKind::PermissionDenied)),
            Fault::Heal(n) | Fault::Resume(n) | Fault::Allow(n) => self.process(n)?.set(Way::Whole),
            Fault::Outage => self.everywhere(|weather| weather.outage = true, |owner| owner.set(OUT)),
            Fault::Restore => self.everywhere(|weather| weather.outage = false, |owner| owner.set(Way::Whole)),
            Fault::Duplicate(on) => self.everywhere(|weather| weather.twice = on, |owner| owner.tell_twice(on)),
            Fault::Revoke(n) => self.revoke(n)?,
            // A directory remembers nothing to begin with: every watch begins with what there is.
            Fault::Compact => {}
            Fault::DelayWrites(n, by) => self.process(n)?.delay(by),
            Fault::LoseData => self.lose().map_err(|error| internal("not lost", error))?,
            Fault::RollBack(writes) => self.roll_back(writes).map_err(|error| internal("not rolled back", error))?,
            Fault::WallClock(seconds) => {
                self.shift(&self.root, seconds).map_err(|error| internal("not shifted", error))?;
            }
            Fault::Crash(n) => self.process(n)?.kill(),
            Fault::DropAcks(n, on) => self.process(n)?.drop_acks(on),
            Fault::Delete(key) => {
                std::fs::remove_file(self.path(&key)?).map_err(|error| internal("not deleted", error))?;
            }
            Fault::Write(key, value) => {
                put(&self.path(&key)?, &value).map_err(|error| internal("not written", error))?;
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

    fn tasks(&self) -> usize {
        self.threads.handle.metrics().num_alive_tasks()
    }
}

/// The way to a store that nobody reaches.
const OUT: Way = Way::Fails(ErrorKind::Unavailable);

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
