//! Entries of the `DynamoWorkerMetadata` resource.

use bytes::Bytes;
use discovery_core::{Error, ErrorKind, InstanceId, Key, Path, Record, Result};
use serde_json::Value;

use super::entry::{entry, invalid, parse_entry};
use super::kinds::{kind_of_kubernetes_collection, kubernetes_collection};
use crate::EventChannel;

/// The maps inside `spec.data` that Dynamo reads, all of which a writer applies, also while they are empty.
pub const KUBERNETES_COLLECTIONS: [&str; 4] = ["endpoints", "model_cards", "event_channels", "event_sources"];

/// The largest integer that passes through the API unchanged, 2^53 - 1; ids and numbers in values are no larger.
pub const MAX_KUBERNETES_INTEGER: u64 = (1 << 53) - 1;

/// How many arrays and objects may stand in each other in a value. Whoever reads with `serde_json`, NVIDIA Dynamo among
/// them, reads no more than 127 in one answer (`remaining_depth` in its `src/de.rs`); a list has 6 of them around a value,
/// and up to 11 around the names of its fields where each of them is managed.
pub const MAX_KUBERNETES_DEPTH: usize = 100;

/// The map inside `spec.data` that `key` lies in, and its entry there.
///
/// # Errors
/// [`InvalidKey`](ErrorKind::InvalidKey) where the key has no place in the layout, or an instance id above
/// [`MAX_KUBERNETES_INTEGER`].
pub fn kubernetes_entry(key: &Key) -> Result<(String, String)> {
    let collection = kubernetes_collection(key.kind()).map_err(|error| error.with_key(key))?;
    check_instance(key)?;
    Ok((collection.to_owned(), entry(key)?))
}

/// The key of an entry. Reads what [`kubernetes_entry`] writes, and never panics. For event channels it reads besides
/// the older `{ns}/{component}/{topic}/{id}`, with an empty component for a namespace.
///
/// # Errors
/// [`InvalidKey`](ErrorKind::InvalidKey) for anything else.
pub fn parse_kubernetes_entry(collection: &str, name: &str) -> Result<Key> {
    let kind = kind_of_kubernetes_collection(collection)?;
    let key = match older_channel(kind, name) {
        Some(key) => key?,
        None => parse_entry(kind, name)?,
    };
    check_instance(&key)?;
    Ok(key)
}

/// The value of `key` as it stands in the resource: parsed, and for event channels with the older fields `namespace`
/// and `component` too.
///
/// # Errors
/// [`InvalidValue`](ErrorKind::InvalidValue) where the value is no JSON, is deeper than [`MAX_KUBERNETES_DEPTH`], or holds
/// an integer beyond [`MAX_KUBERNETES_INTEGER`] either way, which would not come back as it was.
pub fn kubernetes_value(key: &Key, value: &[u8]) -> Result<Value> {
    let depth = depth(value);
    if depth > MAX_KUBERNETES_DEPTH {
        return Err(Error::new(
            ErrorKind::InvalidValue,
            format!(
                "the value nests {depth} levels deep, and {MAX_KUBERNETES_DEPTH} levels can be read by everybody on \
                 Kubernetes: flatten it, or write the inner part as a string"
            ),
        )
        .with_key(key));
    }
    let mut value: Value = serde_json::from_slice(value).map_err(|error| {
        Error::new(ErrorKind::InvalidValue, "the value is no JSON document").with_key(key).with_source(error)
    })?;
    if let Some(number) = oversized(&value) {
        return Err(Error::new(
            ErrorKind::InvalidValue,
            format!("the value holds the integer {number}, which is beyond 2^53: write it as a string"),
        )
        .with_key(key));
    }
    if let (Some(older), Some(fields)) = (older_fields(key), value.as_object_mut()) {
        for (name, content) in older {
            fields.insert(name.to_owned(), Value::String(content));
        }
    }
    Ok(value)
}

/// The value of `key` as other stores have it: the reverse of [`kubernetes_value`]. What others wrote differently is
/// left as it is.
///
/// # Errors
/// [`InvalidValue`](ErrorKind::InvalidValue) where it cannot be written as JSON.
pub fn value_from_kubernetes(key: &Key, value: &Value) -> Result<Bytes> {
    let mut value = value.clone();
    if let (Some(older), Some(fields)) = (older_fields(key), value.as_object_mut()) {
        let is_ours = |(name, content): &(&str, String)| fields.get(*name).and_then(Value::as_str) == Some(content);
        if fields.contains_key("scope") && older.iter().all(is_ours) {
            for (name, _) in &older {
                fields.remove(*name);
            }
        }
    }
    serde_json::to_vec(&value).map(Bytes::from).map_err(|error| {
        Error::new(ErrorKind::InvalidValue, "the value cannot be written as JSON").with_key(key).with_source(error)
    })
}

fn check_instance(key: &Key) -> Result<()> {
    if key.instance().0 > MAX_KUBERNETES_INTEGER {
        return Err(invalid(format!(
            "the instance id {} is above {MAX_KUBERNETES_INTEGER:x}, the largest on Kubernetes: use another",
            key.instance()
        ))
        .with_key(key));
    }
    Ok(())
}

/// `namespace` and `component` of an event channel.
fn older_fields(key: &Key) -> Option<[(&'static str, String); 2]> {
    if key.kind() != EventChannel::KIND {
        return None;
    }
    let mut segments = key.path().segments().skip(1);
    let namespace = segments.next()?.into_owned();
    let component = match (segments.next()?.as_ref(), segments.next()) {
        ("component", Some(component)) => component.into_owned(),
        _ => String::new(),
    };
    Some([("namespace", namespace), ("component", component)])
}

/// The key of an older channel's entry. It has four parts, which no newer one has.
fn older_channel(kind: &str, name: &str) -> Option<Result<Key>> {
    if kind != EventChannel::KIND {
        return None;
    }
    let parts: Vec<_> = name.split('/').collect();
    let &[namespace, component, topic, id] = parts.as_slice() else { return None };
    let id: InstanceId = id.parse().ok().filter(|parsed: &InstanceId| parsed.to_string() == id)?;
    let path = if component.is_empty() {
        Path::new(kind, ["namespace", namespace, "topic", topic])
    } else {
        Path::new(kind, ["namespace", namespace, "component", component, "topic", topic])
    };
    Some(path.map(|path| Key::new(path, id)))
}

/// How many arrays and objects stand in each other at most in a JSON text. It may be more than can be parsed.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}

fn skip_string<'a>(bytes: &mut impl Iterator<Item = &'a u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'"' => return,
            _ => {}
        }
    }
}

/// The first integer that does not pass through the API.
fn oversized(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => {
            let magnitude = number.as_u64().or_else(|| number.as_i64().map(i64::unsigned_abs));
            magnitude.is_some_and(|magnitude| magnitude > MAX_KUBERNETES_INTEGER).then(|| number.to_string())
        }
        Value::Array(items) => items.iter().find_map(oversized),
        Value::Object(fields) => fields.values().find_map(oversized),
        Value::Null | Value::Bool(_) | Value::String(_) => None,
    }
}
