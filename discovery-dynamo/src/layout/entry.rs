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
    let shape = shape(kind);
    let mut parts: Vec<&str> = text.split('/').collect();
    let suffix = match shape {
        Shape::Served { suffix: true } if parts.len() == 5 => parts.pop().map(Cow::Borrowed),
        _ => None,
    };
    let last = parts.pop().ok_or_else(wrong)?;
    let (id, suffix) = match last.split_once('.') {
        Some((id, suffix)) if shape == Shape::Free => (id, Some(decode(suffix).ok_or_else(wrong)?)),
        _ => (last, suffix),
    };
    let id: InstanceId = id.parse().map_err(|error| wrong().with_source(error))?;
    let segments = match shape {
        Shape::Served { .. } => parts.into_iter().map(Cow::Borrowed).collect(),
        Shape::Event | Shape::Free => parts.into_iter().map(decode).collect::<Option<Vec<_>>>().ok_or_else(wrong)?,
    };
    let mut key = Key::new(Path::new(kind, segments)?, id);
    if let Some(suffix) = suffix {
        key = key.with_suffix(&suffix)?;
    }
    // Other spellings of an id or an escape would make two texts of one key.
    if entry(&key)? == text { Ok(key) } else { Err(wrong()) }
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
