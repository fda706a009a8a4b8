//! Ports that stay free for a server while it is down.
//!
//! A server that is started again must find its port free, although nobody listened there meanwhile. So ports are not
//! asked of the kernel, which may give them to the next outgoing connection: they are taken from below its ephemeral
//! range, and a locked file in the temporary directory keeps other tests away. The lock goes with the process.

use std::env;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use crate::error::{Error, Result};

const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port of 127.0.0.1 that no other user of this crate on this machine takes while this lives.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    pub(crate) fn reserve() -> Result<Self> {
        let locks = env::temp_dir().join(format!("discovery-testbed-ports-{}", rustix::process::getuid().as_raw()));
        fs::create_dir_all(&locks).map_err(|error| Error::because(locks.display(), error))?;
        let start = fastrand::u16(..COUNT);
        for offset in 0..COUNT {
            let number = FIRST + (start + offset) % COUNT;
            let file = locks.join(number.to_string());
            let lock = File::create(&file).map_err(|error| Error::because(file.display(), error))?;
            // Bound once to see that nobody else uses it.
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Self { number, _lock: lock });
            }
        }
        Err(Error::new(format!("no free port of 127.0.0.1 from {FIRST} to {}", FIRST + COUNT)))
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }

    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}
