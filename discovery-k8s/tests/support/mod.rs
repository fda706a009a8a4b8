//! A cluster for tests, namespaces in it, and pods that exist in the API alone.

pub(crate) mod client;
pub(crate) mod cluster;
