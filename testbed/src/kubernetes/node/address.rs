//! Which address has a pod? One of its own, at which other processes of this machine reach it and nobody else does.
//!
//! It is on the loopback interface, and no loopback address, which an EndpointSlice refuses. A locked file keeps others
//! away from it, as with ports; what a killed test has left, the next node takes off.

use std::env;
use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::error::{Error, Result};

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
        let locks = locks()?;
        for _ in 0..TRIES {
            let address = Ipv4Addr::new(10, fastrand::u8(64..128), fastrand::u8(..), fastrand::u8(1..255));
            let file = locks.join(address.to_string());
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
        }
    }
}

fn locks() -> Result<PathBuf> {
    let locks = env::temp_dir().join("discovery-testbed-addresses");
    fs::create_dir_all(&locks).map_err(|error| Error::because(locks.display(), error))?;
    Ok(locks)
}

/// A lock on this file, which goes with the process; `None` where another has it.
fn lock(file: &PathBuf) -> Result<Option<File>> {
    let failed = |error: io::Error| Error::because(file.display(), error);
    let lock = File::create(file).map_err(failed)?;
    match lock.try_lock() {
        // Whoever had it may have removed the file since: a lock on that keeps nobody away.
        Ok(()) => Ok(file.exists().then_some(lock)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

fn ip(what: &str, address: Ipv4Addr) -> Result<bool> {
    let mut ip = Command::new("ip");
    ip.args(["address", what, &format!("{address}/32"), "dev", "lo"]);
    ip.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = ip.status().map_err(|error| Error::because("ip, which is in the package iproute2", error))?;
    Ok(status.success())
}
