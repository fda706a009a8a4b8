//! One server process: started, signalled, ended, and never left behind.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::error::{Error, Result};

/// Far beyond what a server takes, for a machine that does other things too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks at a server that is being waited for.
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

const LOG_LINES: usize = 40;
const SUPERVISE: &str = include_str!("supervise.sh");

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
    running: Mutex<Option<Running>>,
}

/// Ends the server, and the shell over it, when it is dropped.
#[derive(Debug)]
struct Running {
    pid: Pid,
    supervisor: Child,
    life: Option<ChildStdin>,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.life.take());
        // It has nothing to do but to kill; an error says that it is gone.
        let _ = self.supervisor.wait();
    }
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
        alive(&mut running).map(|running| running.pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Starts it, and does not wait for more than its process.
    pub(crate) fn launch(&self) -> Result<()> {
        let mut running = self.lock();
        if alive(&mut running).is_some() {
            return Err(Error::new(format!("{} runs already", self.name)));
        }
        let mut shell = Command::new("sh");
        shell.args(["-c", SUPERVISE, "supervise"]).arg(&self.log).arg(&self.home).args(&self.command);
        // A group of its own, so that an interrupt from the terminal reaches the test alone, whose end is the server's.
        shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut supervisor = shell.spawn().map_err(|error| Error::because(format!("starting {}", self.name), error))?;
        let life = supervisor.stdin.take();
        let mut line = String::new();
        let read = supervisor.stdout.take().map_or(Ok(0), |stdout| BufReader::new(stdout).read_line(&mut line));
        let pid = line.trim().parse().ok().and_then(Pid::from_raw);
        match (read, pid) {
            (Ok(_), Some(pid)) => *running = Some(Running { pid, supervisor, life }),
            (read, _) => {
                let cause = read.err().map_or_else(|| "no process id".to_owned(), |error| error.to_string());
                drop(life);
                let _ = supervisor.wait();
                return Err(Error::because(format!("starting {}", self.name), cause));
            }
        }
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
        // Its process id is its own still: the shell over it, which alone takes it off the kernel's list, then ends.
        match kill_process(running.pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(Error::because(format!("signalling {}", self.name), io::Error::from(error))),
        }
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

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The process if it has not ended. One that has is forgotten.
fn alive(running: &mut Option<Running>) -> Option<&mut Running> {
    if running.as_mut().is_some_and(|running| !matches!(running.supervisor.try_wait(), Ok(None))) {
        *running = None;
    }
    running.as_mut()
}
