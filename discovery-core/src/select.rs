//! Which backend a process uses, and why.

use crate::environment::Environment;
use crate::error::Result;

/// The variable that names the backend.
pub const BACKEND_VARIABLE: &str = "DYN_DISCOVERY_BACKEND";

/// A backend's name and the reason it was chosen for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Selection {
    /// The name.
    pub backend: String,
    /// Why, in words for a log line.
    pub reason: String,
}

/// Chooses from the environment: `DYN_DISCOVERY_BACKEND` where it is set and not empty, else etcd where `ETCD_ENDPOINTS`
/// is set, else kubernetes inside a pod (`KUBERNETES_SERVICE_HOST` is set), else file.
///
/// # Errors
/// [`ErrorKind::InvalidConfig`](crate::ErrorKind::InvalidConfig) where `DYN_DISCOVERY_BACKEND` is not Unicode.
pub fn select(environment: &Environment) -> Result<Selection> {
    let because = |backend: &str, reason: &str| Selection { backend: backend.to_owned(), reason: reason.to_owned() };
    Ok(if let Some(name) = environment.get(BACKEND_VARIABLE)? {
        because(name.trim(), "DYN_DISCOVERY_BACKEND names it")
    } else if environment.is_set("ETCD_ENDPOINTS") {
        because("etcd", "DYN_DISCOVERY_BACKEND is unset and ETCD_ENDPOINTS is set")
    } else if environment.is_set("KUBERNETES_SERVICE_HOST") {
        because("kubernetes", "DYN_DISCOVERY_BACKEND and ETCD_ENDPOINTS are unset, and this is a pod")
    } else {
        because("file", "DYN_DISCOVERY_BACKEND and ETCD_ENDPOINTS are unset, and this is no pod")
    })
}
