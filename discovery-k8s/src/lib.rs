#![doc = include_str!("../README.md")]

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
mod handover;
mod identity;
mod join;
mod late;
mod own;
mod plan;
mod progress;
mod readiness;
mod reflector;
mod resource;
mod seat;
mod session;
mod source;
mod survey;
mod unrecognised;
mod watch;
mod yaml;

pub use backend::KubernetesBackend;
pub use config::{Config, MODE_VARIABLE, Mode, NAMESPACES_VARIABLE, Namespaces, UNKNOWN_READINESS_VARIABLE};
pub use diagnose::{Definition, Diagnosis, Permission, Purpose};
pub use explain::{Explanation, Failure, Link, State, Step};
pub use identity::{Identity, PODINFO_VARIABLE};
pub use resource::{DISCOVERY_LABEL, FIELD_MANAGER, GROUP, KIND, MANAGED_BY, PLURAL, VERSION};
pub use survey::{Cluster, Survey};

/// The name in `DYN_DISCOVERY_BACKEND`.
pub const NAME: &str = "kubernetes";
