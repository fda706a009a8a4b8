//! What the four kinds share in reading and writing their values.

use bytes::Bytes;
use discovery_core::{Error, ErrorKind, Key, Record, Result};
use serde::{Deserialize, Serialize};

/// Writes a value in the field order of its type.
pub(crate) fn write(key: &Key, value: &impl Serialize) -> Result<Bytes> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| {
        Error::new(ErrorKind::InvalidValue, "the record cannot be written as JSON").with_key(key).with_source(error)
    })
}

/// Reads a value.
pub(crate) fn read<'a, T: Deserialize<'a>>(key: &Key, kind: &str, value: &'a [u8]) -> Result<T> {
    serde_json::from_slice(value).map_err(|error| {
        Error::new(ErrorKind::InvalidValue, format!("the value is no {kind}")).with_key(key).with_source(error)
    })
}

/// Checks that a decoded record, which carried the instance `id`, belongs under `key`.
pub(crate) fn check_key<T: Record>(record: &T, id: Option<u64>, key: &Key) -> Result<()> {
    let disagrees = |what: String| {
        Err(Error::new(ErrorKind::InvalidValue, format!("the value does not agree with its key: {what}")).with_key(key))
    };
    let path = match record.path() {
        Ok(path) => path,
        Err(error) => return disagrees(error.message().to_owned()),
    };
    if path != *key.path() {
        return disagrees(format!("it names {path}"));
    }
    if record.suffix() != key.suffix() {
        return disagrees(format!("its suffix is {:?}", record.suffix().unwrap_or_default()));
    }
    match id {
        Some(id) if id == key.instance().0 => Ok(()),
        Some(id) => disagrees(format!("its instance is {id:x}")),
        None => disagrees("it names no instance".to_owned()),
    }
}

/// Refuses a name that cannot be one part of a stored path, which Dynamo writes without any escape.
pub(crate) fn check_plain(what: &str, name: &str) -> Result<()> {
    if name.contains('/') {
        return Err(Error::new(
            ErrorKind::InvalidKey,
            format!("the {what} {name:?} holds the character '/', which separates names here: use another"),
        ));
    }
    Ok(())
}
