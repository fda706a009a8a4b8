//! What an owner's resource should hold.

use std::collections::BTreeMap;

use bytes::Bytes;
use discovery_core::{Error, ErrorKind, Key, Result};
use discovery_dynamo::layout;
use serde_json::{Map, Value};

use super::Data;
use super::same::same;
use crate::yaml::is_special;

/// The largest object in bytes, as [`Draft::size`] reckons it. etcd refuses requests above 1.5 MiB, and the object's
/// metadata and the request around it take their part.
const MAX_OBJECT: usize = (3 << 19) - (64 << 10);

/// The longest name of a field in characters, as it is sent. The API server reads what is applied as YAML, which
/// takes nothing longer for a key (YAML 1.1, "simple keys").
const MAX_NAME: usize = 1024;

/// Where a record stands in the object: the collection, and its name there.
///
/// # Errors
/// [`ErrorKind::InvalidKey`] where it has no place there.
pub(crate) fn entry(key: &Key) -> Result<(String, String)> {
    let (collection, name) = layout::kubernetes_entry(key)?;
    match written(&name) {
        length if length <= MAX_NAME => Ok((collection, name)),
        length => Err(Error::new(
            ErrorKind::InvalidKey,
            format!("as the name of a field it takes {length} characters, and {MAX_NAME} are possible on Kubernetes"),
        )
        .with_key(key)),
    }
}

/// The characters that a name takes as it is sent.
fn written(name: &str) -> usize {
    let escaped = |c: char| match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        c if c < ' ' || is_special(c) => 6,
        _ => 1,
    };
    name.chars().map(escaped).sum::<usize>() + 2
}

fn unwritable_field(value: &Value) -> Option<&str> {
    match value {
        Value::Array(items) => items.iter().find_map(unwritable_field),
        Value::Object(fields) => {
            let own = fields.keys().find(|name| written(name) > MAX_NAME).map(String::as_str);
            own.or_else(|| fields.values().find_map(unwritable_field))
        }
        _ => None,
    }
}

/// The records of one owner in the form of `spec.data`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Draft {
    records: BTreeMap<Key, Placed>,
    size: usize,
}

#[derive(Clone, Debug, PartialEq)]
struct Placed {
    collection: String,
    name: String,
    value: Value,
    size: usize,
}

/// How a stored object differs from a draft.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Differences {
    /// Records that are missing or hold another value.
    pub(crate) changed: Vec<Key>,
    /// Records that nobody wants.
    pub(crate) unwanted: Vec<Key>,
    /// Whether there is anything else that a writer would not have left: entries that name no record, a missing map.
    pub(crate) litter: bool,
}

impl Differences {
    pub(crate) fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.unwanted.is_empty() && !self.litter
    }
}

impl Draft {
    /// The draft of these records.
    ///
    /// # Errors
    /// Those of [`Draft::put`].
    pub(crate) fn of(records: &BTreeMap<Key, Bytes>) -> Result<Self> {
        let mut draft = Self::default();
        for (key, value) in records {
            draft.put(key, value)?;
        }
        Ok(draft)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Sets a record.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidKey`] or [`ErrorKind::InvalidValue`] for what has no place in the object, and
    /// [`ErrorKind::TooLarge`] where the object would become too large; the draft is then as it was.
    pub(crate) fn put(&mut self, key: &Key, value: &[u8]) -> Result<()> {
        let (collection, name) = entry(key)?;
        let value = layout::kubernetes_value(key, value)?;
        if let Some(field) = unwritable_field(&value) {
            let start: String = field.chars().take(40).collect();
            let text = format!("the value has a field whose name, {start:?}..., takes more than {MAX_NAME} characters");
            return Err(Error::new(ErrorKind::InvalidValue, text).with_key(key));
        }
        let size = 2 * name.len() + 16 + size_of(&value);
        let freed = self.records.get(key).map_or(0, |placed| placed.size);
        let total = self.size - freed + size;
        if total > MAX_OBJECT {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "with it this process's records take about {total} bytes, and {MAX_OBJECT} fit in their one object: \
                     store references to large values instead"
                ),
            )
            .with_key(key));
        }
        self.size = total;
        self.records.insert(key.clone(), Placed { collection, name, value, size });
        Ok(())
    }

    /// Takes a record out.
    pub(crate) fn remove(&mut self, key: &Key) {
        if let Some(placed) = self.records.remove(key) {
            self.size -= placed.size;
        }
    }

    /// Does with `key` as `other` does: keeps what it has there, or nothing.
    pub(crate) fn restore(&mut self, key: &Key, other: &Draft) {
        self.remove(key);
        if let Some(placed) = other.records.get(key) {
            self.size += placed.size;
            self.records.insert(key.clone(), placed.clone());
        }
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.records.contains_key(key)
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.records.keys()
    }

    /// As `spec.data`: Dynamo's four maps, empty ones too, and one for each other kind.
    pub(crate) fn to_value(&self) -> Value {
        let empty = |name: &&str| ((*name).to_owned(), Value::Object(Map::new()));
        let mut data: Map<String, Value> = layout::KUBERNETES_COLLECTIONS.iter().map(empty).collect();
        for placed in self.records.values() {
            let collection = data.entry(placed.collection.clone()).or_insert_with(|| Value::Object(Map::new()));
            if let Some(collection) = collection.as_object_mut() {
                collection.insert(placed.name.clone(), placed.value.clone());
            }
        }
        Value::Object(data)
    }

    /// How `data`, as it is stored, differs from this.
    pub(crate) fn differences(&self, data: Option<&Data<'_>>) -> Differences {
        let mut differences = Differences::default();
        for (key, placed) in &self.records {
            let stored = data.and_then(|data| data.value(&placed.collection, &placed.name));
            if !stored.is_some_and(|stored| same(&placed.value, &stored)) {
                differences.changed.push(key.clone());
            }
        }
        differences.litter = data.is_none();
        for (collection, entries) in data.iter().flat_map(|data| &data.0) {
            let Some(entries) = entries else {
                differences.litter = true;
                continue;
            };
            for name in entries.keys() {
                match layout::parse_kubernetes_entry(collection, name) {
                    Ok(key) if self.records.get(&key).is_some_and(|placed| placed.name == *name) => {}
                    Ok(key) if !self.contains(&key) => differences.unwanted.push(key),
                    _ => differences.litter = true,
                }
            }
        }
        differences
    }
}

/// What a value takes in the stored object at most: its text as the API server writes it, which spells out characters
/// that are special in HTML, and the names of its fields once more for `managedFields`.
fn size_of(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 6,
        Value::Number(_) => 24,
        Value::String(text) => text_size(text) + 3,
        Value::Array(items) => items.iter().map(size_of).sum::<usize>() + 3,
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| 2 * text_size(name) + 16 + size_of(value)).sum::<usize>() + 3
        }
    }
}

fn text_size(text: &str) -> usize {
    let written = |c: char| match c {
        '"' | '\\' => 2,
        '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => 6,
        c if c.is_control() => 6,
        c => c.len_utf8(),
    };
    text.chars().map(written).sum()
}

#[cfg(test)]
mod tests {
    use discovery_core::{InstanceId, Path};
    use serde_json::json;

    use super::*;

    fn key(segment: &str) -> Key {
        Key::new(Path::new("cache", [segment]).unwrap(), InstanceId(1))
    }

    fn draft(records: &[(&str, &str)]) -> Draft {
        let mut draft = Draft::default();
        for (segment, value) in records {
            draft.put(&key(segment), value.as_bytes()).unwrap();
        }
        draft
    }

    fn differences(draft: &Draft, stored: &Value) -> Differences {
        draft.differences(Some(&Data::of(&super::super::spec(stored)).unwrap()))
    }

    #[test]
    fn a_stored_object_differs_in_what_is_changed_missing_or_too_much() {
        let draft = draft(&[("a", "1"), ("b", r#"{"x":2}"#)]);
        let mut stored = draft.to_value();
        assert!(differences(&draft, &stored).is_empty());
        stored["endpoints"] = json!(null);
        stored["cache"]["a/1"] = json!(1.0);
        assert!(differences(&draft, &stored).is_empty(), "null is empty, and a number is a number");
        stored["cache"]["b/1"] = json!({ "x": 2, "y": 3 });
        stored["cache"]["c/1"] = json!({});
        let found = differences(&draft, &stored);
        let expected = Differences { changed: vec![key("b")], unwanted: vec![key("c")], litter: false };
        assert_eq!(found, expected);
        stored["endpoints"] = json!({ "what is this": 1 });
        assert!(differences(&draft, &stored).litter);
        let none = draft.differences(None);
        assert!(none.litter && none.changed.len() == 2);
    }

    #[test]
    fn a_name_is_as_long_as_yaml_takes_it() {
        // The slash, the id and the quotes take four.
        for (segment, fits) in [("x".repeat(1020), true), ("x".repeat(1021), false)] {
            assert_eq!(entry(&key(&segment)).is_ok(), fits, "{} characters", segment.chars().count());
        }
        assert_eq!(entry(&key(&"x".repeat(1021))).unwrap_err().kind(), ErrorKind::InvalidKey);
        assert_eq!(written("\u{2028}\u{7f}\u{ffff}é"), 2 + 3 * 6 + 1, "what YAML reads otherwise is spelled out");
        let mut draft = Draft::default();
        let value = |field: usize| json!([{ "a": { "x".repeat(field): 1 } }]).to_string();
        draft.put(&key("a"), value(1022).as_bytes()).unwrap();
        assert_eq!(draft.put(&key("a"), value(1023).as_bytes()).unwrap_err().kind(), ErrorKind::InvalidValue);
    }

    #[test]
    fn what_does_not_fit_leaves_the_draft_as_it_was() {
        let mut draft = draft(&[("a", "1")]);
        let before = draft.clone();
        let large = serde_json::to_vec(&"x".repeat(MAX_OBJECT)).unwrap();
        assert_eq!(draft.put(&key("b"), &large).unwrap_err().kind(), ErrorKind::TooLarge);
        assert_eq!(draft.put(&key("a"), &large).unwrap_err().kind(), ErrorKind::TooLarge);
        assert_eq!(draft, before);
        let half = serde_json::to_vec(&"x".repeat(MAX_OBJECT / 2)).unwrap();
        draft.put(&key("a"), &half).unwrap();
        draft.put(&key("a"), &half).unwrap();
        draft.remove(&key("a"));
        assert_eq!(draft.size, 0);
        draft.restore(&key("a"), &before);
        assert_eq!(draft, before);
    }
}
