//! The servers of one kind, held by their keeper.

use std::path::Path;

use super::{Kind, Report, ServerReport};
use crate::error::{Error, Result};
use crate::etcd::{Etcd, EtcdCluster, EtcdOptions};
use crate::kubernetes::{ControlPlane, ControlPlaneOptions, Node, NodeOptions};

/// What discovery stores its records in.
const CRD: &str = include_str!("../../../deploy/crd.yaml");
/// A pod to register for, and what makes it visible.
const POD: &str = include_str!("pod.yaml");
const NAMESPACE: &str = "default";
const POD_NAME: &str = "testbed";
/// The node whose pods run.
const NODE: &str = "local";
/// The image of `deploy/example`, which is the program `discovery`.
const IMAGE: &str = concat!("discovery:", env!("CARGO_PKG_VERSION"));

#[derive(Debug)]
pub(super) enum Servers {
    Etcd(Box<Etcd>),
    EtcdCluster(EtcdCluster),
    Kubernetes(Box<Kubernetes>),
}

#[derive(Debug)]
pub(super) struct Kubernetes {
    // Dropped before those that it speaks to.
    node: std::result::Result<Node, String>,
    plane: ControlPlane,
    pod_uid: String,
}

impl Servers {
    /// Starts them, with their files below `files`, and waits until they answer.
    pub(super) async fn start(kind: Kind, files: &Path) -> Result<Self> {
        let options = EtcdOptions { files: Some(files.to_owned()), ..EtcdOptions::default() };
        Ok(match kind {
            Kind::Etcd => Self::Etcd(Box::new(Etcd::start_with(options).await?)),
            Kind::EtcdCluster => Self::EtcdCluster(EtcdCluster::start_with(options).await?),
            Kind::Kubernetes => Self::Kubernetes(Box::new(Kubernetes::start(files).await?)),
        })
    }

    /// Starts those that have ended, on their ports and their data, and waits until they answer.
    pub(super) async fn start_again(&self) -> Result<()> {
        let ended: Vec<_> = self.etcds().iter().filter(|etcd| etcd.pid().is_none()).collect();
        ended.iter().try_for_each(|etcd| etcd.launch())?;
        for etcd in ended {
            etcd.wait().await?;
        }
        match self {
            Self::Kubernetes(kubernetes) => kubernetes.start_again().await,
            _ => Ok(()),
        }
    }

    /// Ends what does not end at once when it is dropped. Not cancel-safe: the rest ends in the background.
    pub(super) async fn stop(self) -> Result<()> {
        match self {
            Self::Kubernetes(kubernetes) => match kubernetes.node {
                Ok(node) => node.stop().await,
                Err(_) => Ok(()),
            },
            _ => Ok(()),
        }
    }

    fn etcds(&self) -> &[Etcd] {
        match self {
            Self::Etcd(etcd) => std::slice::from_ref(&**etcd),
            Self::EtcdCluster(cluster) => cluster.members(),
            Self::Kubernetes(kubernetes) => std::slice::from_ref(kubernetes.plane.etcd()),
        }
    }

    /// How they are. Takes five seconds at most for each that does not answer.
    pub(super) async fn report(&self) -> Report {
        let mut servers = Vec::new();
        for etcd in self.etcds() {
            servers.push(ServerReport {
                name: etcd.name().to_owned(),
                address: etcd.endpoint(),
                pid: etcd.pid(),
                well: etcd.is_well().await,
                log: etcd.log().display().to_string(),
            });
        }
        let (environment, pods) = match self {
            Self::Kubernetes(kubernetes) => {
                servers.extend(kubernetes.report().await);
                (kubernetes.environment(), Some(kubernetes.pods()))
            }
            _ => {
                let endpoints = self.etcds().iter().map(Etcd::endpoint).collect::<Vec<_>>().join(",");
                let endpoints = endpoints.as_str();
                // The third is what etcdctl goes by.
                let environment = [
                    ("ETCD_ENDPOINTS", endpoints),
                    ("DYN_DISCOVERY_BACKEND", "etcd"),
                    ("ETCDCTL_ENDPOINTS", endpoints),
                ];
                (named(environment), None)
            }
        };
        Report { servers, environment, pods }
    }
}

fn named<const N: usize>(variables: [(&str, &str); N]) -> Vec<(String, String)> {
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

/// The program is looked for when a container starts: it may be built after this.
async fn start_node(plane: &ControlPlane, files: &Path) -> Result<Node> {
    let own = std::env::current_exe().map_err(|error| Error::because("this program", error))?;
    let images = [(IMAGE.to_owned(), own.with_file_name("discovery"))].into();
    let files = Some(files.to_owned());
    Node::start(plane, NodeOptions { name: NODE.to_owned(), namespace: None, images, files }).await
}

impl Kubernetes {
    async fn start(files: &Path) -> Result<Self> {
        let manifests = CRD.to_owned();
        let options =
            ControlPlaneOptions { manifests, files: Some(files.to_owned()), ..ControlPlaneOptions::default() };
        let plane = ControlPlane::start_with(options).await?;
        plane.apply(POD).await?;
        plane.report(NAMESPACE, POD_NAME, true).await?;
        let pod_uid = plane.pod_uid(NAMESPACE, POD_NAME).await?;
        // Without it there is still all that watching and registering from outside takes.
        let node = start_node(&plane, files).await.map_err(|error| error.to_string());
        Ok(Self { node, plane, pod_uid })
    }

    fn pods(&self) -> std::result::Result<String, String> {
        match &self.node {
            Ok(node) => Ok(node.logs().display().to_string()),
            Err(cause) => Err(cause.clone()),
        }
    }

    async fn start_again(&self) -> Result<()> {
        if self.plane.api().pid().is_none() {
            self.plane.api().launch()?;
            self.plane.wait().await?;
        }
        match self.plane.controllers().pid() {
            Some(_) => Ok(()),
            None => self.plane.controllers().launch(),
        }
    }

    async fn report(&self) -> [ServerReport; 2] {
        let (api, controllers) = (self.plane.api(), self.plane.controllers());
        let runs = api.pid().is_some();
        [
            ServerReport {
                name: "kube-apiserver".to_owned(),
                address: format!("https://{}", api.address()),
                pid: api.pid(),
                well: runs && self.plane.is_ready().await,
                log: api.log().display().to_string(),
            },
            // It listens nowhere: to run is all that can be said of it.
            ServerReport {
                name: controllers.name().to_owned(),
                address: String::new(),
                pid: controllers.pid(),
                well: controllers.pid().is_some(),
                log: controllers.log().display().to_string(),
            },
        ]
    }

    /// For whoever watches, and for one process that registers.
    fn environment(&self) -> Vec<(String, String)> {
        named([
            ("KUBECONFIG", &self.plane.kubeconfig_path().to_string_lossy()),
            ("DYN_DISCOVERY_BACKEND", "kubernetes"),
            ("POD_NAMESPACE", NAMESPACE),
            ("POD_NAME", POD_NAME),
            ("POD_UID", &self.pod_uid),
        ])
    }
}
