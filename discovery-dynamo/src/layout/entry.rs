//! The text that names a record inside its bucket, on every store.

use std::borrow::Cow;

use discovery_core::{Error, ErrorKind, InstanceId, Key, Path, Result};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use super::kinds::{Shape, shape};

const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'_').remove(b'-');

const LEVELS: [&str; 3] = ["namespace", "component", "endpoint"];
const TOPIC: &str = "topic";

/// The entry of `key`.
pub(super) fn entry(key: &Key) -> Result<String> {
    let kind = key.kind();
    let segments: Vec<_> = key.path().segments().collect();
    let shape = shape(kind);
    let is_complete = match (shape, key.suffix()) {
        (Shape::Served { suffix: false } | Shape::Event, Some(_)) => {
            return Err(invalid(format!("a record of kind {kind} has no suffix: leave it out")).with_key(key));
        }
        (Shape::Served { .. }, _) => segments.len() == 3,
        (Shape::Event, _) => event_path(&segments) == EventPath::Complete,
        (Shape::Free, _) => true,
    };
    if !is_complete {
        return Err(invalid(format!("a path of kind {kind} is {}", expected(shape))).with_key(key));
    }
    let mut text = leading(shape, &segments).map_err(|error| error.with_key(key))?;
    text.push_str(&key.instance().to_string());
    if let Some(suffix) = key.suffix() {
        text.push(if shape == Shape::Free { '.' } else { '/' });
        push(shape, &mut text, suffix).map_err(|error| error.with_key(key))?;
    }
    Ok(text)
}

/// What the entries of every key that has these leading segments start with: empty, or ending with a slash.
pub(super) fn entry_prefix(kind: &str, segments: &[Cow<'_, str>]) -> Result<String> {
    let shape = shape(kind);
    let is_possible = match shape {
        Shape::Served { .. } => segments.len() <= 3,
        Shape::Event => event_path(segments) != EventPath::Wrong,
        Shape::Free => true,
    };
    if !is_possible {
        return Err(invalid(format!("a path of kind {kind} is {}", expected(shape))));
    }
    leading(shape, segments)
}

/// The key of an entry. Only what [`entry`] writes is read.
pub(super) fn parse_entry(kind: &str, text: &str) -> Result<Key> {
    let wrong = || invalid(format!("{text:?} does not name a record of kind {kind}"));
    match shape(kind) {
        Shape::Served { suffix } => parse_served(kind, text, suffix)?.ok_or_else(wrong),
        shape @ (Shape::Event | Shape::Free) => {
            let key = parse_encoded(kind, text, shape)?.ok_or_else(wrong)?;
            // Other spellings of an id or an escape would make two texts of one key.
            if entry(&key)? == text { Ok(key) } else { Err(wrong()) }
        }
    }
}

/// Nothing is encoded where endpoints and models lie, so only an id can be spelt in several ways. Fleets are read by the
/// hundred thousand: nothing is written here to be compared.
fn parse_served(kind: &str, text: &str, with_suffix: bool) -> Result<Option<Key>> {
    let mut parts = text.split('/');
    let (Some(namespace), Some(component), Some(endpoint), Some(id)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Ok(None);
    };
    let suffix = if with_suffix { parts.next() } else { None };
    let (Some(id), None) = (canonical_id(id), parts.next()) else { return Ok(None) };
    let key = Key::new(Path::new(kind, [namespace, component, endpoint])?, id);
    match suffix {
        Some(suffix) => key.with_suffix(suffix).map(Some),
        None => Ok(Some(key)),
    }
}

/// An id as it is written.
fn canonical_id(text: &str) -> Option<InstanceId> {
    let digits = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let canonical = digits && (text.len() == 1 || !text.starts_with('0'));
    text.parse().ok().filter(|_| canonical)
}

fn parse_encoded(kind: &str, text: &str, shape: Shape) -> Result<Option<Key>> {
    let mut parts: Vec<&str> = text.split('/').collect();
    let Some(last) = parts.pop() else { return Ok(None) };
    let (id, suffix) = match last.split_once('.') {
        Some((id, suffix)) if shape == Shape::Free => match decode(suffix) {
            Some(suffix) => (id, Some(suffix)),
            None => return Ok(None),
        },
        _ => (last, None),
    };
    let Some(segments) = parts.into_iter().map(decode).collect::<Option<Vec<_>>>() else { return Ok(None) };
    let Some(id) = canonical_id(id) else { return Ok(None) };
    let key = Key::new(Path::new(kind, segments)?, id);
    match suffix {
        Some(suffix) => key.with_suffix(&suffix).map(Some),
        None => Ok(Some(key)),
    }
}

pub(super) fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidKey, message)
}

fn leading(shape: Shape, segments: &[Cow<'_, str>]) -> Result<String> {
    let mut text = String::with_capacity(64);
    for segment in segments {
        push(shape, &mut text, segment)?;
        text.push('/');
    }
    Ok(text)
}

fn push(shape: Shape, text: &mut String, name: &str) -> Result<()> {
    match shape {
        Shape::Served { .. } if name.contains('/') => {
            Err(invalid(format!("{name:?} holds the character '/', which separates names here: use another")))
        }
        Shape::Served { .. } => {
            text.push_str(name);
            Ok(())
        }
        Shape::Event | Shape::Free => {
            text.extend(utf8_percent_encode(name, ENCODED));
            Ok(())
        }
    }
}

fn decode(part: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(part).decode_utf8().ok()
}

fn expected(shape: Shape) -> &'static str {
    match shape {
        Shape::Served { .. } => "namespace/component/endpoint",
        Shape::Event => "namespace/{ns}[/component/{component}[/endpoint/{endpoint}]]/topic/{topic}",
        Shape::Free => "one or more segments",
    }
}

#[derive(PartialEq, Eq)]
enum EventPath {
    Complete,
    Leading,
    Wrong,
}

/// Where these segments stand in the grammar of event paths.
fn event_path(segments: &[Cow<'_, str>]) -> EventPath {
    let mut pairs = segments.chunks(2).enumerate();
    while let Some((depth, pair)) = pairs.next() {
        let Some(literal) = pair.first() else { return EventPath::Wrong };
        if depth > 0 && literal == TOPIC {
            return match (pair.len(), pairs.next()) {
                (2, None) => EventPath::Complete,
                (_, None) => EventPath::Leading,
                (_, Some(_)) => EventPath::Wrong,
            };
        }
        if LEVELS.get(depth) != Some(&literal.as_ref()) {
            return EventPath::Wrong;
        }
    }
    EventPath::Leading
}
