//! The backend in a directory: what can be done to its files.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use async_trait::async_trait;
use discovery_conformance::{Factory, Fault, Hook, World};
use discovery_core::backend::Backend;
use discovery_core::{BackendContext, Environment, Error, ErrorKind, Key, Result, TaskScope};
use discovery_dynamo::layout;
use discovery_file::FileBackend;
use tempfile::TempDir;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// Makes directories below one that the whole run owns.
pub(crate) struct File {
    pub(crate) root: PathBuf,
}

#[async_trait]
impl Factory for File {
    fn name(&self) -> &str {
        "file"
    }

    fn hooks(&self) -> Vec<Hook> {
        vec![Hook::Delete, Hook::Write, Hook::Torn]
    }

    // Real files, several cases at once on a busy machine.
    fn patience(&self) -> u32 {
        20
    }

    async fn world(&self) -> Result<Box<dyn World>> {
        let directory = tempfile::tempdir_in(&self.root).map_err(|error| internal("no directory", error))?;
        Ok(Box::new(Place { directory, processes: Processes::start()? }))
    }
}

fn internal(what: &str, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Internal, what.to_owned()).with_source(error)
}

struct Place {
    directory: TempDir,
    processes: Processes,
}

impl Place {
    fn path(&self, key: &Key) -> Result<PathBuf> {
        let (bucket, name) = layout::file_name(key)?;
        let bucket = self.directory.path().join("v1").join(bucket);
        std::fs::create_dir_all(&bucket).map_err(|error| internal("no bucket", error))?;
        Ok(bucket.join(name))
    }
}

#[async_trait]
impl World for Place {
    async fn owner(&self, _: usize) -> Result<Arc<dyn Backend>> {
        let environment = Environment::default().with("DYN_FILE_KV", self.directory.path().to_string_lossy());
        let tasks = self.processes.tasks();
        Ok(Arc::new(FileBackend::connect(&BackendContext::new(environment, tasks)).await?))
    }

    async fn inject(&self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Delete(key) => {
                std::fs::remove_file(self.path(&key)?).map_err(|error| internal("not deleted", error))
            }
            Fault::Write(key, value) => {
                // As a reference process would: beside, then in its place.
                let path = self.path(&key)?;
                let beside = path.with_file_name(".tmp_conformance");
                std::fs::write(&beside, value).map_err(|error| internal("not written", error))?;
                std::fs::rename(beside, path).map_err(|error| internal("not renamed", error))
            }
            Fault::Torn(key) => {
                let path = self.path(&key)?;
                std::fs::write(path.with_file_name(".tmp_torn"), br#"{"place":["to"#)
                    .and_then(|()| std::fs::write(path, br#"{"place":["to"#))
                    .map_err(|error| internal("not torn", error))
            }
            other => Err(Error::new(ErrorKind::Unsupported, format!("nothing like {}", other.hook()))),
        }
    }
}

/// A thread for the owners' own work, which goes on while a case blocks its own.
struct Processes {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Processes {
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

impl Drop for Processes {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
