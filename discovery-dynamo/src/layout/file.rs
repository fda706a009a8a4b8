//! Names of files.

use discovery_core::{Key, Result};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::entry::{entry, invalid, parse_entry};
use super::kinds::{bucket_of_kind, kind_of_bucket};

/// The longest file name in bytes.
pub const MAX_FILE_NAME: usize = 255;

/// The bucket of `key`, which is a directory inside [`ROOT`](super::ROOT), and the file's name in it: the entry, with
/// every byte that is no ASCII letter or digit written as `%XX`. What is encoded in an entry is so encoded twice.
///
/// # Errors
/// [`InvalidKey`](discovery_core::ErrorKind::InvalidKey) where the key has no place in the layout, or where the name
/// is above [`MAX_FILE_NAME`] bytes, saying how long it is.
pub fn file_name(key: &Key) -> Result<(String, String)> {
    let bucket = bucket_of_kind(key.kind()).map_err(|error| error.with_key(key))?;
    let name = encode(&entry(key)?);
    if name.len() > MAX_FILE_NAME {
        return Err(invalid(format!(
            "as a file name the key takes {} bytes, and {MAX_FILE_NAME} are possible: use shorter names",
            name.len()
        ))
        .with_key(key));
    }
    Ok((bucket.to_owned(), name))
}

/// The key of the file `name` in `bucket`. Reads exactly what [`file_name`] writes, and never panics.
///
/// # Errors
/// [`InvalidKey`](discovery_core::ErrorKind::InvalidKey) for anything else.
pub fn parse_file_name(bucket: &str, name: &str) -> Result<Key> {
    let wrong = || invalid(format!("{name:?} is no name of a record's file"));
    let entry = percent_decode_str(name).decode_utf8().map_err(|error| wrong().with_source(error))?;
    if encode(&entry) != name || name.len() > MAX_FILE_NAME {
        return Err(wrong());
    }
    parse_entry(kind_of_bucket(bucket)?, &entry)
}

fn encode(entry: &str) -> String {
    utf8_percent_encode(entry, NON_ALPHANUMERIC).to_string()
}
