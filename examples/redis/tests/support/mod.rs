//! What the tests share: a server of their own, a gate before it, and worlds of the conformance suite.

pub(crate) mod gate;
pub(crate) mod server;
pub(crate) mod world;
