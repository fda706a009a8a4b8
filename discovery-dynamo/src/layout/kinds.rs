//! Which kind lies where.

use discovery_core::{Error, ErrorKind, Record, Result};

use crate::{Endpoint, EventChannel, EventSource, Model};

/// How the entries of a kind are built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Three names as they are and an id; with `suffix`, possibly one more name.
    Served { suffix: bool },
    /// A scope, a topic and an id.
    Event,
    /// Any encoded segments, an id, possibly a suffix.
    Free,
}

struct Known {
    kind: &'static str,
    bucket: &'static str,
    collection: &'static str,
    shape: Shape,
}

const KNOWN: [Known; 4] = [
    Known {
        kind: Endpoint::KIND,
        bucket: "instances",
        collection: "endpoints",
        shape: Shape::Served { suffix: false },
    },
    Known { kind: Model::KIND, bucket: "mdc", collection: "model_cards", shape: Shape::Served { suffix: true } },
    Known { kind: EventChannel::KIND, bucket: "event_channels", collection: "event_channels", shape: Shape::Event },
    Known { kind: EventSource::KIND, bucket: "event_sources", collection: "event_sources", shape: Shape::Event },
];

pub(super) fn shape(kind: &str) -> Shape {
    KNOWN.iter().find(|known| known.kind == kind).map_or(Shape::Free, |known| known.shape)
}

/// The bucket that holds the records of `kind`: a directory of files, a part of a key.
///
/// # Errors
/// [`InvalidKey`](ErrorKind::InvalidKey) where `kind` is no name for a kind, or is taken by Dynamo.
pub fn bucket_of_kind(kind: &str) -> Result<&str> {
    match KNOWN.iter().find(|known| known.kind == kind) {
        Some(known) => Ok(known.bucket),
        None => free(kind),
    }
}

/// The kind whose records `bucket` holds.
///
/// # Errors
/// [`InvalidKey`](ErrorKind::InvalidKey) where no kind has this bucket.
pub fn kind_of_bucket(bucket: &str) -> Result<&str> {
    match KNOWN.iter().find(|known| known.bucket == bucket) {
        Some(known) => Ok(known.kind),
        None => unknown(bucket),
    }
}

/// The map inside `spec.data` of a `DynamoWorkerMetadata` that holds the records of `kind`.
///
/// # Errors
/// [`InvalidKey`](ErrorKind::InvalidKey) where `kind` is no name for a kind, or is taken by Dynamo.
pub fn kubernetes_collection(kind: &str) -> Result<&str> {
    match KNOWN.iter().find(|known| known.kind == kind) {
        Some(known) => Ok(known.collection),
        None => free(kind),
    }
}

/// The kind whose records the map `collection` inside `spec.data` holds.
///
/// # Errors
/// [`InvalidKey`](ErrorKind::InvalidKey) where no kind has this map.
pub fn kind_of_kubernetes_collection(collection: &str) -> Result<&str> {
    match KNOWN.iter().find(|known| known.collection == collection) {
        Some(known) => Ok(known.kind),
        None => unknown(collection),
    }
}

/// A kind of another crate, under its own name.
fn free(kind: &str) -> Result<&str> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if kind.is_empty() || !kind.bytes().all(legal) {
        return Err(Error::new(
            ErrorKind::InvalidKey,
            format!("{kind:?} is no name for a kind: use letters, digits, `_` and `-`"),
        ));
    }
    match KNOWN.iter().find(|known| known.bucket == kind || known.collection == kind) {
        None => Ok(kind),
        Some(known) => Err(Error::new(
            ErrorKind::InvalidKey,
            format!("the kind {kind:?} is named like the place where records of kind {:?} lie: rename it", known.kind),
        )),
    }
}

/// The kind of a bucket or map that is none of Dynamo's. One that is named like a kind of Dynamo's is nobody's.
fn unknown(name: &str) -> Result<&str> {
    if KNOWN.iter().any(|known| known.kind == name) {
        return Err(Error::new(ErrorKind::InvalidKey, format!("records of kind {name:?} do not lie under {name:?}")));
    }
    free(name)
}
