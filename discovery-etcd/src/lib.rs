#![doc = include_str!("../README.md")]

mod alive;
mod awaited;
mod backend;
mod backlog;
mod bounds;
mod config;
mod diagnose;
mod epoch;
mod erase;
mod fault;
mod fence;
mod follow;
mod history;
mod keeper;
mod leases;
mod link;
mod log;
mod names;
mod owner;
mod place;
mod publish;
mod session;
mod snapshot;
mod store;
mod verify;
mod watch;
mod write;

pub use backend::EtcdBackend;
pub use config::{
    CA_VARIABLE, CERTIFICATE_VARIABLE, Config, Credentials, ENDPOINTS_VARIABLE, KEEPALIVE_INTERVAL_VARIABLE,
    KEEPALIVE_TIMEOUT_VARIABLE, KEY_VARIABLE, MIN_TTL_VARIABLE, PASSWORD_VARIABLE, PREFIX_VARIABLE, Pem,
    STARTUP_VARIABLE, TTL_VARIABLE, Tls, USERNAME_VARIABLE,
};
pub use diagnose::{Finding, Member, diagnose};
pub use erase::erase;
pub use leases::{Leases, SilentLease, leases};

/// The name in `DYN_DISCOVERY_BACKEND`.
pub const NAME: &str = "etcd";
