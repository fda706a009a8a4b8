//! The administrator's own client.

use std::path::Path;

use discovery_core::{Error, ErrorKind, Result};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// Something that the test wanted, and did not get.
pub(crate) fn failed(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Internal, format!("{what}: {error}")).with_source(error)
}

/// A client of whoever a kubeconfig is for.
pub(crate) async fn connect(kubeconfig: &Path) -> Result<Client> {
    let read = Kubeconfig::read_from(kubeconfig).map_err(|error| failed("kubeconfig", error))?;
    let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await;
    Client::try_from(config.map_err(|error| failed("kubeconfig", error))?).map_err(|error| failed("client", error))
}
