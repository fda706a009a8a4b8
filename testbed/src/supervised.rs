//! One process that never outlives this one.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use crate::error::{Error, Result};
use crate::server::PAUSE;

const SUPERVISE: &str = include_str!("supervise.sh");

/// A process under a shell that kills it when this process has ended, in whatever way. Dropped, it is killed, and gone.
#[derive(Debug)]
pub(crate) struct Supervised {
    pid: Pid,
    shell: Child,
    life: Option<ChildStdin>,
}

impl Supervised {
    /// Starts it. Its output is added to `log`. `home` is removed if this process dies without having ended it.
    ///
    /// # Errors
    /// There is no shell, or no process can be started. A program that is not there is an exit code of the process.
    pub(crate) fn start(name: &str, log: &Path, home: &Path, command: &[OsString]) -> Result<Self> {
        let failed = |cause: &dyn std::fmt::Display| Error::because(format!("starting {name}"), cause);
        let mut shell = Command::new("sh");
        shell.args(["-c", SUPERVISE, "supervise"]).arg(log).arg(home).args(command);
        // A group of its own, so that an interrupt from the terminal reaches the test alone, whose end is the process's.
        shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut shell = shell.spawn().map_err(|error| failed(&error))?;
        let life = shell.stdin.take();
        let mut line = String::new();
        let read = shell.stdout.take().map_or(Ok(0), |stdout| BufReader::new(stdout).read_line(&mut line));
        match (read, line.trim().parse().ok().and_then(Pid::from_raw)) {
            (Ok(_), Some(pid)) => Ok(Self { pid, shell, life }),
            (read, _) => {
                drop(life);
                let _ = shell.wait();
                Err(failed(&read.err().map_or_else(|| "no process id".to_owned(), |error| error.to_string())))
            }
        }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.shell.try_wait(), Ok(None))
    }

    /// Sends a signal. No error where it ends at this moment; `false` where it had ended.
    pub(crate) fn signal(&mut self, signal: Signal) -> io::Result<bool> {
        if !self.runs() {
            return Ok(false);
        }
        // Its process id is its own still: the shell over it, which alone takes it off the kernel's list, then ends.
        match kill_process(self.pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for its end, and answers its exit code: 128 and the signal's number where one ended it. Cancel-safe.
    ///
    /// # Errors
    /// The kernel does not tell.
    pub(crate) async fn ended(&mut self) -> io::Result<i32> {
        while self.runs() {
            sleep(PAUSE).await;
        }
        Ok(self.shell.wait()?.code().unwrap_or(-1))
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        drop(self.life.take());
        // It has nothing to do but to kill; an error says that it is gone.
        let _ = self.shell.wait();
    }
}
