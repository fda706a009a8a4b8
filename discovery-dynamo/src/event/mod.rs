//! Events: who publishes what, and where.

mod channel;
mod scope;
mod source;

pub use channel::{EventChannel, EventChannelName, EventTransport};
pub use scope::{EndpointId, EventScope};
pub use source::EventSource;

use discovery_core::{Error, ErrorKind, InstanceId};

/// Why an event record does not change in place.
fn refused(what: &str, publisher: InstanceId) -> Error {
    Error::new(
        ErrorKind::Refused,
        format!("{what} {publisher} is registered and may not change: deregister it and register the new one"),
    )
}
