//! A Kubernetes control plane of a test's own: etcd, the API server and the controllers. A [`Node`] besides, where pods are
//! to run: it plays the scheduler and the kubelet.

mod api_server;
mod cluster;
mod kubeconfig;
mod node;
mod pods;

use std::ffi::OsString;
use std::fs;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::api_server::ApiServer;
pub use self::cluster::Cluster;
pub use self::kubeconfig::Kubeconfig;
pub use self::node::{Node, NodeOptions};
use crate::client;
use crate::error::{Error, Result};
use crate::etcd::{Etcd, EtcdOptions};
use crate::program::Program;
use crate::server::{Server, home};
use crate::tls::Authority;

/// What pods, Services and their owners need. The scheduler's and the kubelet's work is done by whoever tests.
const CONTROLLERS: &str = "deployment-controller,endpointslice-controller,garbage-collector-controller,\
    namespace-controller,replicaset-controller,root-ca-certificate-publisher-controller,serviceaccount-controller,\
    statefulset-controller";

/// How a control plane is set up.
#[derive(Clone, Debug)]
pub struct ControlPlaneOptions {
    /// Applied before the controllers start: they know of a CRD that is installed now at once, and of a later one
    /// after up to half a minute.
    pub manifests: String,
    /// Whether a pod gets the ServiceAccount `default` where it names none, and a token mounted, as in any real
    /// cluster. A pod can then be created only once its namespace has that account.
    pub service_accounts: bool,
    /// Where the directories of its own are made that its files go to; the system's place for temporary files by default.
    pub files: Option<PathBuf>,
    /// Flags of the API server for everything else.
    pub api_server_flags: Vec<String>,
}

impl Default for ControlPlaneOptions {
    fn default() -> Self {
        Self { manifests: String::new(), service_accounts: true, files: None, api_server_flags: Vec::new() }
    }
}

/// A control plane on 127.0.0.1, with ports, data and logs of its own. It ends, and its files go, when this is dropped
/// and also when this process dies in whatever way. It takes four seconds to start and 500 MB, so that tests which break
/// no server share one: see [`Cluster::shared`].
///
/// What is done to it is done when the method returns. A method that was cancelled may have been done in part; every
/// method can follow.
#[derive(Debug)]
pub struct ControlPlane {
    // Dropped in this order: who asks ends before who answers.
    controllers: Server,
    api: ApiServer,
    etcd: Etcd,
    authority: PathBuf,
    token: String,
    cluster: Cluster,
}

impl ControlPlane {
    /// A control plane with the default options, ready to be used.
    ///
    /// # Errors
    /// See [`ControlPlane::start_with`].
    pub async fn start() -> Result<Self> {
        Self::start_with(ControlPlaneOptions::default()).await
    }

    /// A control plane, ready to be used: the API answers, the manifests are applied, and the controllers have given
    /// the namespace `default` its ServiceAccount. The first of this checkout may take ten minutes to be built.
    ///
    /// # Errors
    /// There are no servers, and none can be built; or one does not come up, in which case the error shows why; or a
    /// manifest is refused.
    pub async fn start_with(options: ControlPlaneOptions) -> Result<Self> {
        let home = home(options.files.as_deref())?;
        let etcd = Etcd::start_with(EtcdOptions { files: options.files.clone(), ..EtcdOptions::default() }).await?;
        let files = Files::write(home.path())?;
        let token = format!("{:032x}", fastrand::u128(..));
        let users = home.path().join("tokens.csv");
        write(&users, &format!("{token},admin,admin,\"system:masters\"\n"))?;

        let command = api_server(&options, &files, &users, &etcd).await?;
        let api = ApiServer::new(command, home.path())?;
        let kubeconfig = Kubeconfig::of_server(&format!("https://{}", api.address()), &files.authority, &token);
        let home = Arc::new(home);
        let cluster = Cluster::new(kubeconfig, home.clone())?;
        api.launch()?;
        api.wait_as(&cluster).await?;
        if !options.manifests.is_empty() {
            cluster.apply(&options.manifests).await?;
        }
        let controllers = controllers(&files, &cluster, home.path()).await?;
        let plane = Self { controllers, api, etcd, authority: files.authority, token, cluster };
        plane.controllers.launch()?;
        plane.controllers.wait_until("served the namespace default", || plane.is_served("default")).await?;
        Ok(plane)
    }

    /// The store behind the API.
    pub fn etcd(&self) -> &Etcd {
        &self.etcd
    }

    /// The API server, to be killed, paused and so on.
    pub fn api(&self) -> &ApiServer {
        &self.api
    }

    /// The controllers' process.
    pub(crate) fn controllers(&self) -> &Server {
        &self.controllers
    }

    /// The certificate of the authority that signed the API server's, a PEM file.
    pub fn authority(&self) -> &Path {
        &self.authority
    }

    /// The token of the user `admin`, who may do everything.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Waits until the API server answers, as after [`ApiServer::launch`].
    ///
    /// # Errors
    /// It ended, or does not answer in two minutes; the error shows its log.
    pub async fn wait(&self) -> Result<()> {
        self.api.wait_as(&self.cluster).await
    }

    /// Starts the API server on its port and its data, having ended it by SIGTERM where it runs, and waits until it
    /// answers. Its cache is new: a watch from a version before this is answered 410, if anything was written since.
    ///
    /// # Errors
    /// It does not end, or does not answer.
    pub async fn restart_api(&self) -> Result<()> {
        self.api.stop().await?;
        self.api.launch()?;
        self.wait().await
    }

    /// Forgets every version but the newest, in etcd and in the API server, which is started again for it: a watch from
    /// an older one, and the rest of a list that was begun before, are answered 410.
    ///
    /// # Errors
    /// etcd refuses, or the API server does not come back.
    pub async fn forget(&self) -> Result<()> {
        // So that even what is newest now is old.
        self.etcd.ctl(["put", "/testbed/forgotten", "x"]).await?;
        self.api.stop().await?;
        self.etcd.compact().await?;
        self.restart_api().await
    }
}

/// What is done as the user `admin`, and does not depend on whose servers these are.
impl Deref for ControlPlane {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

/// What servers know each other by.
struct Files {
    authority: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
    accounts_public: PathBuf,
    accounts_private: PathBuf,
}

impl Files {
    fn write(home: &Path) -> Result<Self> {
        let authority = Authority::within("testbed", home)?;
        let server = authority.server()?;
        let accounts = rcgen::KeyPair::generate().map_err(|error| Error::because("a key", error))?;
        let files = Self {
            authority: authority.certificate(),
            certificate: server.certificate,
            key: server.key,
            accounts_public: home.join("accounts.pub"),
            accounts_private: home.join("accounts.key"),
        };
        write(&files.accounts_public, &accounts.public_key_pem())?;
        write(&files.accounts_private, &accounts.serialize_pem())?;
        Ok(files)
    }
}

async fn api_server(options: &ControlPlaneOptions, files: &Files, users: &Path, etcd: &Etcd) -> Result<Vec<OsString>> {
    let mut command = client::command(Program::KubeApiserver).await?;
    let mut flag = |name: &str, value: &str| command.push(format!("--{name}={value}").into());
    flag("etcd-servers", &etcd.endpoint());
    flag("bind-address", "127.0.0.1");
    // It refuses to be advertised at a loopback address, which nobody needs here.
    flag("endpoint-reconciler-type", "none");
    flag("service-cluster-ip-range", "10.96.0.0/16");
    flag("tls-cert-file", &files.certificate.to_string_lossy());
    flag("tls-private-key-file", &files.key.to_string_lossy());
    flag("token-auth-file", &users.to_string_lossy());
    flag("authorization-mode", "RBAC");
    flag("service-account-issuer", "https://kubernetes.default.svc");
    flag("service-account-key-file", &files.accounts_public.to_string_lossy());
    flag("service-account-signing-key-file", &files.accounts_private.to_string_lossy());
    // Else its end waits a minute for watches to end by themselves.
    flag("shutdown-watch-termination-grace-period", "2s");
    if !options.service_accounts {
        flag("disable-admission-plugins", "ServiceAccount");
    }
    command.extend(options.api_server_flags.iter().map(OsString::from));
    Ok(command)
}

async fn controllers(files: &Files, cluster: &Cluster, home: &Path) -> Result<Server> {
    let mut command = client::command(Program::KubeControllerManager).await?;
    let kubeconfig = cluster.kubeconfig_path().to_string_lossy().into_owned();
    let mut flag = |name: &str, value: &str| command.push(format!("--{name}={value}").into());
    for name in ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
        flag(name, &kubeconfig);
    }
    flag("secure-port", "0");
    flag("leader-elect", "false");
    flag("use-service-account-credentials", "false");
    flag("root-ca-file", &files.authority.to_string_lossy());
    // Its default of 20 requests a second makes many tests at a time wait for each other.
    flag("kube-api-qps", "1000");
    flag("kube-api-burst", "2000");
    flag("controllers", CONTROLLERS);
    Ok(Server::new("kube-controller-manager", command, home))
}

fn write(file: &Path, text: &str) -> Result<()> {
    fs::write(file, text).map_err(|error| Error::because(file.display(), error))
}
