//! The Kubernetes backend of service discovery: each pod's records are one `DynamoWorkerMetadata` resource, shown while
//! the pod is ready.
//!
//! # Settings
//! | variable | meaning | default |
//! |---|---|---|
//! | `POD_NAME`, `POD_UID`, `POD_NAMESPACE` | who registers; the files of `/etc/podinfo` win over them | |
//! | `DYN_KUBE_DISCOVERY_MODE` | `pod`, or `container` for an instance in each container | `pod` |
//! | `CONTAINER_NAME` | the container, in container mode | |
//! | `DYN_DISCOVERY_KUBERNETES_NAMESPACES` | the watched namespaces, with commas between them, or `*` | the own one |
//! | `DYN_DISCOVERY_KUBERNETES_UNKNOWN_READINESS` | how an endpoint without `ready` counts: `not-ready` or `ready` | `not-ready` |
//! | `DYN_DISCOVERY_KUBERNETES_PODINFO` | where the downward API's files are | `/etc/podinfo` |
//! | `KUBECONFIG` | the cluster; else the pod's ServiceAccount, else `~/.kube/config` | |
//!
//! # Positions
//! The join of two resource types has a version for each. A barrier is a linearizable census of both, names and versions
//! alone, and an open watch reaches it once it holds what was counted: it need not wait for a bookmark.
//!
//! # Liveness
//! The cluster decides: a pod that is not ready or that terminates is not shown, and a deleted pod's resource is
//! collected. A process whose pod was deleted finds its session lost.
mod backend;
mod births;
mod bounds;
mod client;
mod config;
mod diagnose;
mod document;
mod doubting;
mod explain;
mod fault;
mod identity;
mod join;
mod own;
mod progress;
mod readiness;
mod reflector;
mod resource;
mod seat;
mod session;
mod source;
mod survey;
mod watch;

pub use backend::KubernetesBackend;
pub use config::{Config, MODE_VARIABLE, Mode, NAMESPACES_VARIABLE, Namespaces, UNKNOWN_READINESS_VARIABLE};
pub use diagnose::{Definition, Diagnosis, Permission, Purpose};
pub use explain::{Explanation, Failure, Link, State, Step};
pub use identity::{Identity, PODINFO_VARIABLE};
pub use resource::{DISCOVERY_LABEL, FIELD_MANAGER, GROUP, KIND, MANAGED_BY, PLURAL, VERSION};
pub use survey::{Cluster, Survey};

/// The name in `DYN_DISCOVERY_BACKEND`.
pub const NAME: &str = "kubernetes";
