//! One etcd server of a test's own.

mod cluster;
mod peers;

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

pub use self::cluster::EtcdCluster;
use crate::client;
use crate::error::{Error, Result};
use crate::http;
use crate::port::Port;
use crate::program::Program;
use crate::server::{Server, home};

/// How an etcd server is set up.
#[derive(Clone, Debug, Default)]
pub struct EtcdOptions {
    /// TLS towards clients; none by default.
    pub tls: Option<EtcdTls>,
    /// How large its database may grow, in bytes, before it raises its NOSPACE alarm.
    pub quota: Option<u64>,
    /// How often a leader says that it is there, and how long the others wait for it before they choose a new one.
    pub heartbeat_and_election: Option<(Duration, Duration)>,
    /// Where the directory of its own is made that its files go to; the system's place for temporary files by default.
    pub files: Option<PathBuf>,
    /// Flags of etcd for everything else.
    pub flags: Vec<String>,
}

/// TLS of an etcd server towards its clients.
#[derive(Clone, Debug)]
pub struct EtcdTls {
    /// The authority whose clients are let in, a PEM file, and what its own certificate is signed by.
    pub authority: PathBuf,
    /// The server's certificate, a PEM file.
    pub certificate: PathBuf,
    /// Its private key, a PEM file.
    pub key: PathBuf,
    /// Whether clients must show a certificate.
    pub demands_clients: bool,
}

/// One etcd server on 127.0.0.1, with ports, data and a log of its own. It ends, and its files go, when this is dropped
/// and also when this process dies in whatever way; of one that is down meanwhile the files stay where this process is killed.
///
/// What is done to it is done when the method returns. A method that was cancelled may have been done in part; every
/// method can follow.
#[derive(Debug)]
pub struct Etcd {
    // Dropped in this order: the server ends before its files and its ports go.
    server: Server,
    home: TempDir,
    client: Port,
    health: Port,
    _peer: Port,
    options: EtcdOptions,
    /// The password of the user root, where one is demanded.
    password: Mutex<Option<String>>,
}

/// The ports and the files of a member, known before any member starts.
struct Member {
    name: String,
    home: TempDir,
    client: Port,
    health: Port,
    peer: Port,
    /// Where the others find it.
    advertised: SocketAddr,
}

impl Member {
    fn new(name: &str, options: &EtcdOptions) -> Result<Self> {
        let home = home(options.files.as_deref())?;
        let (client, health, peer) = (Port::reserve()?, Port::reserve()?, Port::reserve()?);
        let advertised = peer.address();
        Ok(Self { name: name.to_owned(), home, client, health, peer, advertised })
    }

    fn peer_url(&self) -> String {
        format!("http://{}", self.advertised)
    }
}

impl Etcd {
    /// A server with the default options, ready to answer.
    ///
    /// # Errors
    /// See [`Etcd::start_with`].
    pub async fn start() -> Result<Self> {
        Self::start_with(EtcdOptions::default()).await
    }

    /// A server, ready to answer. The first of this checkout may take ten minutes to be built.
    ///
    /// # Errors
    /// There is no etcd, and none can be built; or it does not answer, in which case the error shows why.
    pub async fn start_with(options: EtcdOptions) -> Result<Self> {
        let member = Member::new("etcd", &options)?;
        let cluster = format!("etcd={}", member.peer_url());
        let etcd = Self::assemble(member, &cluster, options).await?;
        etcd.server.launch()?;
        etcd.wait().await?;
        Ok(etcd)
    }

    async fn assemble(member: Member, cluster: &str, options: EtcdOptions) -> Result<Self> {
        let peer_url = member.peer_url();
        let Member { name, home, client, health, peer, advertised: _ } = member;
        let client_url = format!("{}://{}", scheme(&options), client.address());
        let mut command = client::command(Program::Etcd).await?;
        let mut flag = |name: &str, value: &str| command.push(format!("--{name}={value}").into());
        flag("name", &name);
        flag("data-dir", &home.path().join("data").to_string_lossy());
        flag("listen-client-urls", &client_url);
        flag("advertise-client-urls", &client_url);
        flag("listen-peer-urls", &format!("http://{}", peer.address()));
        flag("initial-advertise-peer-urls", &peer_url);
        flag("initial-cluster", cluster);
        // Health is asked for here, which needs no certificate.
        flag("listen-metrics-urls", &format!("http://{}", health.address()));
        // What was written outlives the process all the same, and nobody cuts this machine's power to test it.
        flag("unsafe-no-fsync", "true");
        if let Some((heartbeat, election)) = options.heartbeat_and_election {
            flag("heartbeat-interval", &heartbeat.as_millis().to_string());
            flag("election-timeout", &election.as_millis().to_string());
        }
        if let Some(quota) = options.quota {
            flag("quota-backend-bytes", &quota.to_string());
        }
        if let Some(tls) = &options.tls {
            flag("cert-file", &tls.certificate.to_string_lossy());
            flag("key-file", &tls.key.to_string_lossy());
            // An authority to trust makes etcd demand certificates by itself.
            if tls.demands_clients {
                flag("trusted-ca-file", &tls.authority.to_string_lossy());
                flag("client-cert-auth", "true");
            }
        }
        command.extend(options.flags.iter().map(OsString::from));
        let server = Server::new(&name, command, home.path());
        Ok(Self { server, home, client, health, _peer: peer, options, password: Mutex::default() })
    }

    /// What it is called among the members of its cluster.
    pub fn name(&self) -> &str {
        self.server.name()
    }

    /// The URL for clients.
    pub fn endpoint(&self) -> String {
        format!("{}://{}", scheme(&self.options), self.client.address())
    }

    /// The port for clients, on 127.0.0.1: what a [`Proxy`](crate::Proxy) goes to.
    pub fn port(&self) -> u16 {
        self.client.number()
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

    /// Where its data is.
    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
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

    /// Starts it on its ports and its data, having ended it by SIGTERM where it runs, and waits until it answers. A
    /// member of a cluster answers only when enough members run: see [`Etcd::launch`].
    ///
    /// # Errors
    /// It does not end, or does not answer.
    pub async fn restart(&self) -> Result<()> {
        self.server.stop().await?;
        self.server.launch()?;
        self.wait().await
    }

    /// Starts one that was ended, without waiting for an answer.
    ///
    /// # Errors
    /// It runs, or cannot be started.
    pub fn launch(&self) -> Result<()> {
        self.server.launch()
    }

    /// Waits until it answers, knowing of a leader.
    ///
    /// # Errors
    /// It ended, or does not answer in two minutes; the error shows its log.
    pub async fn wait(&self) -> Result<()> {
        // An alarm for lack of space is for the test to see, and no reason to wait.
        let well = || http::is_well(self.health.address(), "/health?exclude=NOSPACE");
        self.server.wait_until("answered", well).await
    }

    /// Whether it runs and answers, knowing of a leader and with no alarm raised. Takes five seconds at most.
    pub async fn is_well(&self) -> bool {
        self.pid().is_some() && http::is_well(self.health.address(), "/health").await
    }

    /// Loses all data, users included, as if its disk had been replaced, and starts it again on the same ports: another
    /// cluster with a history of its own.
    ///
    /// # Errors
    /// See [`Etcd::restart`].
    pub async fn wipe(&self) -> Result<()> {
        self.erase().await?;
        self.restart().await
    }

    async fn erase(&self) -> Result<()> {
        self.server.kill().await?;
        *self.password.lock().unwrap_or_else(PoisonError::into_inner) = None;
        match fs::remove_dir_all(self.data()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::because(self.data().display(), error))
            }
            _ => Ok(()),
        }
    }

    /// Demands a user and a password from now on. The user `root` with this password, a word without blanks, may do
    /// everything; [`Etcd::ctl`] uses it, and can make more users.
    ///
    /// # Errors
    /// etcd refuses, for example because it demands one already.
    pub async fn demand_password(&self, password: &str) -> Result<()> {
        let add = ["user", "add", "root", "--interactive=false"];
        self.ctl_with(add, &format!("{password}\n")).await?;
        self.ctl(["user", "grant-role", "root", "root"]).await?;
        self.ctl(["auth", "enable"]).await?;
        *self.password.lock().unwrap_or_else(PoisonError::into_inner) = Some(password.to_owned());
        Ok(())
    }

    /// Compacts the history up to the present revision, which it answers.
    ///
    /// # Errors
    /// etcd refuses, for example because nothing was written since the last compaction.
    pub async fn compact(&self) -> Result<i64> {
        let revision = self.status().await?["Status"]["header"]["revision"].as_i64();
        let revision = revision.ok_or_else(|| Error::new("etcdctl endpoint status tells no revision"))?;
        self.ctl(["compaction", &revision.to_string()]).await?;
        Ok(revision)
    }

    /// Runs etcdctl against this server, signed in where that is demanded, and answers what it printed.
    ///
    /// # Errors
    /// There is no etcdctl, or it failed: the error says with which arguments, and what it printed as its errors.
    pub async fn ctl(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<String> {
        self.ctl_with(arguments, "").await
    }

    /// [`Etcd::ctl`] with something to read.
    ///
    /// # Errors
    /// See [`Etcd::ctl`].
    pub async fn ctl_with(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        input: &str,
    ) -> Result<String> {
        let mut environment: Vec<(&str, OsString)> = vec![("ETCDCTL_ENDPOINTS", self.endpoint().into())];
        if let Some(tls) = &self.options.tls {
            environment.push(("ETCDCTL_CACERT", tls.authority.clone().into()));
            if tls.demands_clients {
                environment.push(("ETCDCTL_CERT", tls.certificate.clone().into()));
                environment.push(("ETCDCTL_KEY", tls.key.clone().into()));
            }
        }
        if let Some(password) = &*self.password.lock().unwrap_or_else(PoisonError::into_inner) {
            environment.push(("ETCDCTL_USER", "root".into()));
            environment.push(("ETCDCTL_PASSWORD", password.into()));
        }
        client::run(Program::Etcdctl, &environment, arguments, input).await
    }

    /// What it says of itself.
    async fn status(&self) -> Result<Value> {
        let said = self.ctl(["endpoint", "status", "--write-out=json"]).await?;
        let mut said: Vec<Value> =
            serde_json::from_str(&said).map_err(|error| Error::because("etcdctl endpoint status", error))?;
        said.pop().ok_or_else(|| Error::new("etcdctl endpoint status tells nothing"))
    }
}

fn scheme(options: &EtcdOptions) -> &'static str {
    if options.tls.is_some() { "https" } else { "http" }
}
