//! A small disk of a world's own, to be filled and to be made read-only: what no permission bits do to a test that runs as
//! root.
//!
//! It is a file system in memory that is mounted in namespaces of a child process, which needs no privileges, and reached
//! through that child's root in `/proc`.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};

/// Mounts the disk, then does what it is told, line by line, until nobody is left to tell it anything.
const SCRIPT: &str = r#"
cd / && mount -t tmpfs -o size=256k tmpfs "$1" && echo done || exit
while read -r command; do
    case "$command" in
        read-only) mount --bind "$1/v1" "$1/v1" && mount -o remount,bind,ro "$1/v1" ;;
        writable) umount -l "$1/v1" ;;
    esac && echo done || echo failed
done
"#;

/// What takes the space.
const FILLER: &str = ".filler";

static AVAILABLE: LazyLock<bool> = LazyLock::new(|| {
    let mut probe = Command::new("unshare");
    probe.args(["--user", "--map-root-user", "--mount", "true"]).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| status.success())
});

pub(super) struct Disk {
    child: Child,
    commands: Mutex<Option<(ChildStdin, BufReader<ChildStdout>)>>,
    path: PathBuf,
}

impl Disk {
    /// Whether this machine lets its users have namespaces of their own.
    pub(super) fn available() -> bool {
        *AVAILABLE
    }

    /// An empty disk in the place of this directory, for whoever looks through [`Disk::path`].
    pub(super) fn mount(directory: &Path) -> io::Result<Self> {
        let directory = directory.canonicalize()?;
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", SCRIPT, "disk"]).arg(&directory);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take().map(BufReader::new));
        let below = directory.strip_prefix("/").unwrap_or(&directory);
        let path = PathBuf::from(format!("/proc/{}/root", child.id())).join(below);
        let disk = Self { child, commands: Mutex::new(pipes), path };
        disk.done()?;
        Ok(disk)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether records can be written.
    pub(super) fn set_read_only(&self, on: bool) -> io::Result<()> {
        if let Some((commands, _)) = &mut *self.commands.lock().unwrap_or_else(PoisonError::into_inner) {
            writeln!(commands, "{}", if on { "read-only" } else { "writable" })?;
        }
        self.done()
    }

    /// Whether there is no space left.
    pub(super) fn set_full(&self, on: bool) -> io::Result<()> {
        let path = self.path.join(FILLER);
        if !on {
            return fs::remove_file(path);
        }
        let mut filler = File::create(path)?;
        loop {
            match filler.write_all(&[0; 4096]) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    fn done(&self) -> io::Result<()> {
        let mut answer = String::new();
        if let Some((_, answers)) = &mut *self.commands.lock().unwrap_or_else(PoisonError::into_inner) {
            answers.read_line(&mut answer)?;
        }
        if answer == "done\n" { Ok(()) } else { Err(io::Error::other("the mount failed")) }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Nobody to tell it anything any more: it ends, and the disk with it.
        self.commands.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let _ = self.child.wait();
    }
}
