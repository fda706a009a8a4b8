//! What is done through an API server as its administrator, whoever's servers these are.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::{ControlPlane, ControlPlaneOptions, Kubeconfig, write};
use crate::client;
use crate::error::{Error, Result};
use crate::once;
use crate::program::Program;
use crate::proxy::Proxy;

/// A Kubernetes cluster, and the right to do everything there.
#[derive(Debug)]
pub struct Cluster {
    kubeconfig: Kubeconfig,
    path: PathBuf,
    /// Where kubeconfigs and what kubectl remembers are kept.
    home: Arc<TempDir>,
    files: AtomicU64,
}

/// What [`Cluster::shared`] lends.
enum Shared {
    Real(Cluster),
    Own(Box<ControlPlane>),
}

static SHARED: OnceCell<Shared> = OnceCell::const_new();

impl Cluster {
    /// The cluster of all tests of this process that break no server: the one that `KUBECONFIG` names, on which the
    /// manifests are applied, or else a control plane, which ends with the process. The options of the first call hold.
    ///
    /// # Errors
    /// `KUBECONFIG` cannot be used, or see [`ControlPlane::start_with`].
    pub async fn shared(options: impl FnOnce() -> ControlPlaneOptions) -> Result<&'static Self> {
        let shared = SHARED.get_or_try_init(async || match env::var_os("KUBECONFIG").filter(|path| !path.is_empty()) {
            Some(path) => Self::real(&path, &options().manifests).await.map(Shared::Real),
            None => ControlPlane::start_with(options()).await.map(|plane| Shared::Own(Box::new(plane))),
        });
        Ok(match shared.await? {
            Shared::Real(cluster) => cluster,
            Shared::Own(plane) => plane,
        })
    }

    async fn real(path: &OsStr, manifests: &str) -> Result<Self> {
        let view = ["config", "view", "--raw", "--minify", "--flatten", "--output=json"];
        let view = client::run(Program::Kubectl, &[("KUBECONFIG", path.to_owned())], view, "").await?;
        // Not among temporary files: nobody drops what is shared, and no server's end takes it along.
        let home = TempDir::with_prefix_in("kubeconfig-", once::target_directory()?);
        let home = home.map_err(|error| Error::because("a directory", error))?;
        let cluster = Self::new(Kubeconfig::of_view(&view)?, Arc::new(home))?;
        if !manifests.is_empty() {
            cluster.apply(manifests).await?;
        }
        Ok(cluster)
    }

    pub(super) fn new(kubeconfig: Kubeconfig, home: Arc<TempDir>) -> Result<Self> {
        let path = home.path().join("kubeconfig");
        write(&path, &kubeconfig.text())?;
        Ok(Self { kubeconfig, path, home, files: AtomicU64::new(0) })
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Kubeconfig {
        &self.kubeconfig
    }

    /// A file with the administrator's kubeconfig, for `KUBECONFIG`.
    pub fn kubeconfig_path(&self) -> &Path {
        &self.path
    }

    /// A file with this kubeconfig, for `KUBECONFIG`. It stays for as long as the cluster.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, kubeconfig: &Kubeconfig) -> Result<PathBuf> {
        let number = self.files.fetch_add(1, Ordering::Relaxed);
        let file = self.home.path().join(format!("kubeconfig-{number}"));
        write(&file, &kubeconfig.text())?;
        Ok(file)
    }

    /// A network to the API server that can fail, and the administrator's kubeconfig through it.
    ///
    /// # Errors
    /// See [`Proxy::to`] and [`Kubeconfig::address`].
    pub async fn proxy(&self) -> Result<(Proxy, Kubeconfig)> {
        let proxy = Proxy::to(self.kubeconfig.address().await?)?;
        let through = self.kubeconfig.through(&proxy)?;
        Ok((proxy, through))
    }

    /// Runs kubectl, and answers what it printed.
    ///
    /// # Errors
    /// There is no kubectl, or it failed: the error says with which arguments, and what it printed as its errors.
    pub async fn kubectl(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<String> {
        self.kubectl_with(arguments, "").await
    }

    /// [`Cluster::kubectl`] with something to read.
    ///
    /// # Errors
    /// See [`Cluster::kubectl`].
    pub async fn kubectl_with(
        &self,
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        input: &str,
    ) -> Result<String> {
        let environment: [(&str, OsString); 2] =
            [("KUBECONFIG", self.path.clone().into()), ("KUBECACHEDIR", self.home.path().join("cache").into())];
        client::run(Program::Kubectl, &environment, arguments, input).await
    }

    /// [`Cluster::kubectl`] for what prints JSON when asked for it, which it is.
    ///
    /// # Errors
    /// See [`Cluster::kubectl`], or what it prints is no JSON.
    pub async fn kubectl_json(&self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Value> {
        let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned());
        let said = self.kubectl(arguments.chain(["--output=json".into()])).await?;
        serde_json::from_str(&said).map_err(|error| Error::because("kubectl", error))
    }

    /// Applies manifests, server-side, and waits until the CRDs among them are served.
    ///
    /// # Errors
    /// One is refused.
    pub async fn apply(&self, manifests: &str) -> Result<()> {
        let apply = ["apply", "--server-side", "--force-conflicts", "--output=name", "--filename=-"];
        let applied = self.kubectl_with(apply, manifests).await?;
        let crds: Vec<&str> = applied.lines().filter(|name| name.starts_with("customresourcedefinition.")).collect();
        if !crds.is_empty() {
            let wait = ["wait", "--for=condition=Established", "--timeout=60s"];
            self.kubectl(wait.into_iter().chain(crds)).await?;
        }
        Ok(())
    }

    /// Makes a namespace whose name begins so, and waits until pods can be created in it. Answers its name.
    ///
    /// # Errors
    /// The API refuses, or no controller gives the namespace its ServiceAccount in two minutes.
    pub async fn namespace(&self, prefix: &str) -> Result<String> {
        let name = format!("{prefix}-{:08x}", fastrand::u32(..));
        self.kubectl(["create", "namespace", &name]).await?;
        self.kubectl(["wait", "--for=create", "--timeout=120s", "--namespace", &name, "serviceaccount/default"])
            .await?;
        Ok(name)
    }

    /// Makes a node, or leaves the one of this name. An EndpointSlice holds only pods whose `spec.nodeName` names one.
    ///
    /// # Errors
    /// The API refuses.
    pub async fn node(&self, name: &str) -> Result<()> {
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name } });
        self.apply(&node.to_string()).await
    }

    /// A token of a ServiceAccount, such as one of its pods has, bound to the pod of this name and uid: it is worth
    /// nothing any more soon after that pod is gone.
    ///
    /// # Errors
    /// There is no such account or pod.
    pub async fn token_of_pod(&self, namespace: &str, account: &str, pod: &str, uid: &str) -> Result<String> {
        let (pod, uid) = (format!("--bound-object-name={pod}"), format!("--bound-object-uid={uid}"));
        let create = ["create", "token", account, "--namespace", namespace, "--bound-object-kind=Pod", &pod, &uid];
        Ok(self.kubectl(create).await?.trim().to_owned())
    }

    pub(crate) async fn is_ready(&self) -> bool {
        self.kubectl(["get", "--raw=/readyz", "--request-timeout=5s"]).await.is_ok()
    }

    /// Whether controllers have done what pods of this namespace need.
    pub(super) async fn is_served(&self, namespace: &str) -> bool {
        let get = ["get", "--namespace", namespace, "serviceaccount/default", "configmap/kube-root-ca.crt"];
        self.kubectl(get).await.is_ok()
    }
}
