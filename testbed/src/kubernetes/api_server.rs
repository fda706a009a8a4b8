//! The API server's process.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::Path;

use rustix::process::Signal;
use tokio::net::TcpStream;

use super::Cluster;
use crate::error::Result;
use crate::port::Port;
use crate::server::Server;

/// The API server of a [`ControlPlane`](super::ControlPlane). To start it and wait until it answers is the plane's.
#[derive(Debug)]
pub struct ApiServer {
    // Dropped in this order: the server ends before its port goes.
    server: Server,
    port: Port,
}

impl ApiServer {
    pub(super) fn new(mut command: Vec<OsString>, home: &Path) -> Result<Self> {
        let port = Port::reserve()?;
        command.push(format!("--secure-port={}", port.number()).into());
        Ok(Self { server: Server::new("kube-apiserver", command, home), port })
    }

    pub(super) async fn wait_as(&self, admin: &Cluster) -> Result<()> {
        let ready = || async {
            // To ask costs a process, so not before somebody listens.
            TcpStream::connect(self.address()).await.is_ok() && admin.is_ready().await
        };
        self.server.wait_until("was ready", ready).await
    }

    /// Where it listens: what a [`Proxy`](crate::Proxy) goes to.
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// What it writes its log to.
    pub fn log(&self) -> &Path {
        self.server.log()
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        self.server.log_tail()
    }

    /// Ends it by SIGKILL. No error where it does not run.
    ///
    /// # Errors
    /// It does not end.
    pub async fn kill(&self) -> Result<()> {
        self.server.kill().await
    }

    /// Ends it by SIGTERM. No error where it does not run.
    ///
    /// # Errors
    /// It does not end.
    pub async fn stop(&self) -> Result<()> {
        self.server.stop().await
    }

    /// Freezes it by SIGSTOP: its connections stay open, and nobody answers.
    ///
    /// # Errors
    /// It does not run.
    pub fn pause(&self) -> Result<()> {
        self.server.freeze()
    }

    /// Lets a frozen one go on.
    ///
    /// # Errors
    /// It does not run.
    pub fn resume(&self) -> Result<()> {
        self.server.signal(Signal::CONT)
    }

    /// Starts one that was ended, without waiting for an answer.
    ///
    /// # Errors
    /// It runs, or cannot be started.
    pub fn launch(&self) -> Result<()> {
        self.server.launch()
    }
}
