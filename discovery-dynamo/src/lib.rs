//! NVIDIA Dynamo's four kinds of records, the rules that they follow, and how they lie on the wire.
//!
//! | kind | what it says | may change in place |
//! |---|---|---|
//! | [`Endpoint`] | an instance serves an endpoint under this address | yes |
//! | [`Model`] | an instance serves this model, or this adapter, at an endpoint | its taints only |
//! | [`EventChannel`] | a publisher's address for one topic of a scope | no |
//! | [`EventSource`] | what a publisher of one topic of a scope is the source of | no |
//!
//! The values are what Dynamo itself writes and reads, byte for byte. Where they are stored is the business of
//! [`layout`], which the backends share and which also places kinds of other crates.
//!
//! The crate depends on `discovery-core` alone and does no I/O.

mod card;
mod endpoint;
mod event;
pub mod layout;
mod model;
mod names;
mod wire;

pub use endpoint::{DeviceType, Endpoint, EndpointName, RequestPlaneCodec, Transport};
pub use event::{EndpointId, EventChannel, EventChannelName, EventScope, EventSource, EventTransport};
pub use model::Model;

/// The example of the project's front page, compiled and run.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct FrontPage;
