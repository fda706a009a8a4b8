//! One server process: started, signalled, ended, and never left behind.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::error::{Error, Result};
use crate::supervised::Supervised;

/// Far beyond what a server takes, for a machine that does other things too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks at a server that is being waited for.
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

const LOG_LINES: usize = 40;

/// A directory of a server's own, in `files` or else where the system keeps temporary files.
pub(crate) fn home(files: Option<&Path>) -> Result<TempDir> {
    let files = files.map_or_else(env::temp_dir, Path::to_owned);
    TempDir::with_prefix_in("discovery-testbed-", &files).map_err(|error| Error::because(files.display(), error))
}

/// A server's command, and the process where it runs.
#[derive(Debug)]
pub(crate) struct Server {
    name: String,
    command: Vec<OsString>,
    /// Removed if this process dies without ending the server.
    home: PathBuf,
    log: PathBuf,
    running: Mutex<Option<Supervised>>,
}

impl Server {
    /// A server that does not run yet. It may keep files in `home`, where its log goes too.
    pub(crate) fn new(name: &str, command: Vec<OsString>, home: &Path) -> Self {
        let log = home.join(format!("{name}.log"));
        Self { name: name.to_owned(), command, home: home.to_owned(), log, running: Mutex::default() }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    pub(crate) fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// The server's process id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        let mut running = self.lock();
        alive(&mut running).map(|running| running.pid().as_raw_nonzero().get().unsigned_abs())
    }

    /// Starts it, and does not wait for more than its process.
    pub(crate) fn launch(&self) -> Result<()> {
        let mut running = self.lock();
        if alive(&mut running).is_some() {
            return Err(Error::new(format!("{} runs already", self.name)));
        }
        *running = Some(Supervised::start(&self.name, &self.log, &self.home, &self.command)?);
        Ok(())
    }

    /// Waits until `ready` says so.
    pub(crate) async fn wait_until<F: Future<Output = bool>>(
        &self,
        what: &str,
        mut ready: impl FnMut() -> F,
    ) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !ready().await {
            if self.pid().is_none() {
                return Err(Error::new(format!("{} ended before it {what}", self.name)).with_log(self.log_tail()));
            }
            if Instant::now() >= deadline {
                let message = format!("{} has not {what} in {} s", self.name, PATIENCE.as_secs());
                return Err(Error::new(message).with_log(self.log_tail()));
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        let mut running = self.lock();
        let Some(running) = alive(&mut running) else {
            return Err(Error::new(format!("{} does not run", self.name)));
        };
        running.signal(signal).map(drop).map_err(|error| Error::because(format!("signalling {}", self.name), error))
    }

    /// SIGSTOP, and waits until none of its threads goes on: on a busy machine they do for a while.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let deadline = std::time::Instant::now() + PATIENCE;
        while self.pid().is_some_and(goes_on) {
            if std::time::Instant::now() >= deadline {
                return Err(Error::new(format!("{} does not stop", self.name)));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// SIGKILL, and waits until it is gone. No error where it does not run.
    pub(crate) async fn kill(&self) -> Result<()> {
        if self.pid().is_none() {
            return Ok(());
        }
        self.signal(Signal::KILL)?;
        self.gone().await
    }

    /// SIGTERM, also to a stopped one, and waits until it is gone. No error where it does not run.
    pub(crate) async fn stop(&self) -> Result<()> {
        if self.pid().is_none() {
            return Ok(());
        }
        self.signal(Signal::TERM)?;
        self.signal(Signal::CONT)?;
        self.gone().await
    }

    async fn gone(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.pid().is_some() {
            if Instant::now() >= deadline {
                return Err(Error::new(format!("{} does not end", self.name)).with_log(self.log_tail()));
            }
            sleep(PAUSE).await;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Supervised>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a thread of this process is neither stopped nor over.
fn goes_on(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().any(|thread| {
        let stat = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // After the name, which is in brackets.
        let state = stat.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next());
        state.is_some_and(|state| !"TtZX".contains(state))
    })
}

/// The process if it has not ended. One that has is forgotten.
fn alive(running: &mut Option<Supervised>) -> Option<&mut Supervised> {
    if running.as_mut().is_some_and(|running| !running.runs()) {
        *running = None;
    }
    running.as_mut()
}
