//! Runs the real program on a directory of the test's own. Everything it starts ends with the test.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Far more than anything here takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A shared directory and the programs that use it.
pub(crate) struct Place {
    pub(crate) directory: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn kv(&self) -> std::path::PathBuf {
        self.directory.path().join("kv")
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_discovery"));
        for name in [
            "DYN_DISCOVERY_BACKEND",
            "ETCD_ENDPOINTS",
            "KUBECONFIG",
            "KUBERNETES_SERVICE_HOST",
            "DYN_DISCOVERY_KUBERNETES_NAMESPACES",
            "DYN_KUBE_DISCOVERY_MODE",
            "POD_NAME",
            "POD_NAMESPACE",
            "POD_UID",
            "CONTAINER_NAME",
            "DYN_SYSTEM_PORT",
            "RUST_LOG",
            "RUST_BACKTRACE",
        ] {
            command.env_remove(name);
        }
        command.env("DYN_FILE_KV", self.kv()).env("TMPDIR", self.directory.path()).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts a program that goes on.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(arguments))
    }

    /// Runs a program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).ended()
    }

    /// Runs a program to its end, with this on its standard input.
    pub(crate) fn start_with_input(&self, arguments: &[&str], input: &str) -> Running {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped());
        let mut running = Running::start(command);
        running.child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        running
    }

    /// What `list --output json` shows.
    pub(crate) fn list(&self, query: &str) -> Vec<Value> {
        let ended = self.run(&["list", query, "--output", "json"]);
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
        serde_json::from_str(&ended.stdout).unwrap()
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> String {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

/// What a program came to.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// A failure as it should be: nothing on standard output, one line on standard error.
    pub(crate) fn assert_fails(&self, code: i32, told: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.starts_with("discovery: ") && self.stderr.contains(told), "{self:?}");
        assert_eq!(self.stderr.matches('\n').count(), 1, "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
    }
}

/// A program under way. Killed when dropped.
pub(crate) struct Running {
    pub(crate) child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    /// What it says of a store that it waits for, which depends on how busy the machine is, and is not in `stderr`.
    waits: Receiver<String>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (stdout, _) = lines(child.stdout.take());
        let (stderr, waits) = lines(child.stderr.take());
        Self { child, stdout, stderr, waits }
    }

    /// The next line on standard output.
    pub(crate) fn line(&self) -> String {
        self.stdout.recv_timeout(DEADLINE).expect("a line on standard output in time")
    }

    /// The next line on standard output, if it is there already.
    pub(crate) fn line_if_any(&self) -> Option<String> {
        self.stdout.try_recv().ok()
    }

    pub(crate) fn json(&self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
    }

    /// The next line on standard error.
    pub(crate) fn told(&self) -> String {
        self.stderr.recv_timeout(DEADLINE).expect("a line on standard error in time")
    }

    /// What it says once it has waited for the store for some time.
    pub(crate) fn waits(&self) -> String {
        self.waits.recv_timeout(DEADLINE).expect("a word on the store in time")
    }

    /// What is on standard error by now and was not read yet.
    pub(crate) fn told_so_far(&self) -> Vec<String> {
        self.stderr.try_iter().collect()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(id, signal).unwrap();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the program ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Waits for the end; what was not read yet of the output comes along.
    pub(crate) fn ended(mut self) -> Ended {
        let status = self.wait();
        let rest = |receiver: &Receiver<String>| receiver.iter().map(|line| line + "\n").collect();
        Ended { code: status.code(), stdout: rest(&self.stdout), stderr: rest(&self.stderr) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What comes line by line, and apart from it what is said of waiting for a store.
fn lines(pipe: Option<impl Read + Send + 'static>) -> (Receiver<String>, Receiver<String>) {
    let ((sender, receiver), (waits, waited)) = (channel(), channel());
    if let Some(pipe) = pipe {
        thread::spawn(move || {
            for line in BufReader::new(pipe).lines() {
                let Ok(line) = line else { return };
                let to = if line.starts_with("discovery: no answer from ") { &waits } else { &sender };
                if to.send(line).is_err() {
                    return;
                }
            }
        });
    }
    (receiver, waited)
}

/// Waits until a condition holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "in vain within {DEADLINE:?}: {what}");
        // A pause between two looks, not a wait for something to have happened.
        thread::park_timeout(Duration::from_millis(5));
    }
}
