//! Keys of a key-value store.

use discovery_core::{Error, ErrorKind, Key, Result, Scope};

use super::entry::{entry, entry_prefix, invalid, parse_entry};
use super::kinds::{bucket_of_kind, kind_of_bucket};

/// What every stored key starts with, up to its slash; also the directory that holds the buckets of files.
pub const ROOT: &str = "v1";

/// The stored key of `key`: `v1/{bucket}/{entry}`.
///
/// # Errors
/// [`InvalidKey`](ErrorKind::InvalidKey) where the key has no place in the layout, saying why.
pub fn stored_key(key: &Key) -> Result<String> {
    let bucket = bucket_of_kind(key.kind()).map_err(|error| error.with_key(key))?;
    Ok(format!("{ROOT}/{bucket}/{}", entry(key)?))
}

/// The key of a stored key. Reads exactly what [`stored_key`] writes, and never panics.
///
/// # Errors
/// [`InvalidKey`](ErrorKind::InvalidKey) for anything else.
pub fn parse_stored_key(stored: &str) -> Result<Key> {
    let (bucket, entry) = stored
        .strip_prefix(ROOT)
        .and_then(|rest| rest.strip_prefix('/'))
        .and_then(|rest| rest.split_once('/'))
        .ok_or_else(|| invalid(format!("{stored:?} is no key of a record")))?;
    parse_entry(kind_of_bucket(bucket)?, entry)
}

/// What the stored keys of all records in `scope`, and of no others, start with. Ends with a slash.
///
/// # Errors
/// [`InvalidQuery`](ErrorKind::InvalidQuery) where no key in `scope` has a place in the layout, saying why.
pub fn stored_prefix(scope: &Scope) -> Result<String> {
    let Some(kind) = scope.kind() else { return Ok(format!("{ROOT}/")) };
    let as_query = |error: Error| Error::new(ErrorKind::InvalidQuery, error.message().to_owned());
    let bucket = bucket_of_kind(kind).map_err(as_query)?;
    let segments: Vec<_> = scope.segments().collect();
    let prefix = entry_prefix(kind, &segments).map_err(as_query)?;
    Ok(format!("{ROOT}/{bucket}/{prefix}"))
}
