//! Which address has a pod? One of its own, at which other processes of this machine reach it and nobody else does.
//!
//! It is on the loopback interface, and no loopback address, which an EndpointSlice refuses. A locked file keeps others
//! away from it, as with ports; what a killed test has left, the next node takes off.

use std::env;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::error::{Error, Result};

/// Where all of them lie.
const RANGE: &str = "10.64.0.0/10";

/// How many are tried before it is given up.
const TRIES: u32 = 100;

/// An address on `lo`. Taken off again when this is dropped.
#[derive(Debug)]
pub(super) struct Address {
    address: Ipv4Addr,
    file: PathBuf,
    _lock: File,
}

impl Address {
    /// Blocks for as long as a small program takes.
    ///
    /// # Errors
    /// There is no `ip`, or it is not allowed to add an address.
    pub(super) fn take() -> Result<Self> {
        keep_on_the_machine()?;
        for _ in 0..TRIES {
            let address = Ipv4Addr::new(10, fastrand::u8(64..128), fastrand::u8(..), fastrand::u8(1..255));
            let file = locks()?.join(address.to_string());
            let Some(lock) = lock(&file)? else { continue };
            // Fails where it is there already.
            if ip("add", address)? {
                return Ok(Self { address, file, _lock: lock });
            }
            let _ = fs::remove_file(&file);
        }
        Err(Error::new("no address can be added to lo: run it as root, with the right to change the network"))
    }

    pub(super) fn ip(&self) -> Ipv4Addr {
        self.address
    }

    /// Takes off those that killed processes have left.
    ///
    /// # Errors
    /// There is no `ip`.
    pub(super) fn clear() -> Result<()> {
        let locks = locks()?;
        let entries = fs::read_dir(&locks).map_err(|error| Error::because(locks.display(), error))?;
        for file in entries.flatten().map(|entry| entry.path()) {
            let address = file.file_name().and_then(|name| name.to_str()?.parse().ok());
            let Some(address) = address else { continue };
            // Held by nobody, and held by this one now, so that nobody takes it meanwhile.
            if let Some(_lock) = lock(&file)? {
                ip("del", address)?;
                let _ = fs::remove_file(&file);
            }
        }
        Ok(())
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        // Where that fails the next node does it: the file stays, and tells.
        if matches!(ip("del", self.address), Ok(true)) {
            let _ = fs::remove_file(&self.file);
            // Removed only where it is empty: the last one takes the route along.
            if self.file.parent().is_some_and(|locks| fs::remove_dir(locks).is_ok()) {
                let _ = route("del");
            }
        }
    }
}

/// One directory for each network namespace, which has a `lo` of its own.
fn locks() -> Result<PathBuf> {
    let namespace = fs::metadata("/proc/self/ns/net").map_err(|error| Error::because("/proc/self/ns/net", error))?;
    let locks = env::temp_dir().join("discovery-testbed-addresses").join(namespace.ino().to_string());
    fs::create_dir_all(&locks).map_err(|error| Error::because(locks.display(), error))?;
    Ok(locks)
}

/// A lock on this file, which goes with the process; `None` where another has it.
fn lock(file: &PathBuf) -> Result<Option<File>> {
    let failed = |error: io::Error| Error::because(file.display(), error);
    let lock = match File::create(file) {
        // The directory went with the last address of another node.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        created => created.map_err(failed)?,
    };
    match lock.try_lock() {
        // Whoever had it may have removed the file since: a lock on that keeps nobody away.
        Ok(()) => Ok(file.exists().then_some(lock)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// Where an address has gone, what is still sent to it shall not take the way out that other addresses take. An address
/// that is there comes before any route.
fn keep_on_the_machine() -> Result<()> {
    if route("replace")? {
        return Ok(());
    }
    Err(Error::new("no route can be set: run it as root, with the right to change the network"))
}

fn route(what: &str) -> Result<bool> {
    run(&["route", what, "unreachable", RANGE])
}

fn ip(what: &str, address: Ipv4Addr) -> Result<bool> {
    run(&["address", what, &format!("{address}/32"), "dev", "lo"])
}

fn run(arguments: &[&str]) -> Result<bool> {
    let mut ip = Command::new("ip");
    ip.args(arguments);
    ip.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = ip.status().map_err(|error| Error::because("ip, which is in the package iproute2", error))?;
    Ok(status.success())
}
