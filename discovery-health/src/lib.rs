#![doc = include_str!("../README.md")]

mod readiness;
mod server;
mod settings;

pub use readiness::Readiness;
pub use server::HealthServer;
pub use settings::HealthSettings;
