//! Where the servers and their clients come from: installed ones first, else what the Go module builds.

use std::env;
use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::go;

/// A program that tests run against or with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The store.
    Etcd,
    /// Its client.
    Etcdctl,
    /// The Kubernetes API.
    KubeApiserver,
    /// The controllers: EndpointSlices, garbage collection, namespaces and so on.
    KubeControllerManager,
    /// The Kubernetes client.
    Kubectl,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Etcd, Self::Etcdctl, Self::KubeApiserver, Self::KubeControllerManager, Self::Kubectl];

    /// The name of its file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::Etcdctl => "etcdctl",
            Self::KubeApiserver => "kube-apiserver",
            Self::KubeControllerManager => "kube-controller-manager",
            Self::Kubectl => "kubectl",
        }
    }

    /// The file of this name in the directory that `KUBEBUILDER_ASSETS` names, or else on `PATH`.
    pub fn installed(self) -> Option<PathBuf> {
        let assets = env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
        let path = env::var_os("PATH").unwrap_or_default();
        let mut candidates = assets.into_iter().chain(env::split_paths(&path)).map(|place| place.join(self.name()));
        candidates.find(|file| is_executable(file))
    }

    /// The words that start it: those of [`Program::installed`], or those of the program that the Go module builds,
    /// which is built now unless it has been. Blocks for as long as that takes: about ten minutes on two cores when
    /// nothing is cached, and seconds otherwise.
    ///
    /// # Errors
    /// It is not installed, and cannot be built: there is no Go, or the build failed. The line says what to install.
    pub fn command(self) -> Result<Vec<OsString>> {
        match self.installed() {
            Some(file) => Ok(vec![file.into()]),
            None => Ok(vec![go::built(self)?.into(), self.name().into()]),
        }
    }
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
