//! From `spec.data` to records and back.

mod draft;
mod same;

use std::collections::BTreeMap;

use bytes::Bytes;
use discovery_core::Key;
use discovery_dynamo::layout;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

pub(crate) use draft::{Draft, entry};

/// What a resource holds, as far as it can be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Document {
    /// Its records.
    pub(crate) entries: BTreeMap<Key, Bytes>,
    /// Entries that name no record, as `collection/entry`. They hide themselves and nothing else.
    pub(crate) unread: Vec<String>,
}

/// `spec.data` of a resource: its collections, each a map of entries or something else, and the entries' values unread. One
/// that cannot be read says nothing of the others.
#[derive(Debug)]
pub(crate) struct Data<'a>(BTreeMap<String, Option<Entries<'a>>>);

type Entries<'a> = BTreeMap<String, &'a RawValue>;

impl<'a> Data<'a> {
    /// Of a resource's `spec`; `None` where it is no map. A collection that is null is empty.
    pub(crate) fn of(spec: &'a RawValue) -> Option<Self> {
        #[derive(Deserialize)]
        struct Spec<'a> {
            #[serde(borrow)]
            data: Option<Entries<'a>>,
        }
        let Spec { data } = serde_json::from_str(spec.get()).ok()?;
        let entries = |collection: &'a RawValue| {
            let entries: Option<Option<Entries<'a>>> = serde_json::from_str(collection.get()).ok();
            entries.map(Option::unwrap_or_default)
        };
        Some(Self(data?.into_iter().map(|(name, collection)| (name, entries(collection))).collect()))
    }

    /// The value of an entry, where it is there and can be read.
    fn value(&self, collection: &str, name: &str) -> Option<Value> {
        serde_json::from_str(self.0.get(collection)?.as_ref()?.get(name)?.get()).ok()
    }
}

impl Document {
    /// What the data holds.
    pub(crate) fn of(data: &Data<'_>) -> Self {
        let mut document = Self::default();
        for (collection, entries) in &data.0 {
            match entries {
                Some(entries) => {
                    for (name, value) in entries {
                        document.take(collection, name, value);
                    }
                }
                None => document.unread.push(collection.clone()),
            }
        }
        document
    }

    fn take(&mut self, collection: &str, name: &str, value: &RawValue) {
        let read = layout::parse_kubernetes_entry(collection, name).and_then(|key| {
            let value = match serde_json::from_str(value.get()) {
                Ok(value) => layout::value_from_kubernetes(&key, &value)?,
                // Too deep to be read here. Whoever asks for records of this kind decodes it, or counts it as undecodable.
                Err(_) => Bytes::copy_from_slice(value.get().as_bytes()),
            };
            Ok((key, value))
        });
        match read {
            Ok((key, value)) => {
                // A channel may stand there under its older name too.
                let is_canonical = layout::kubernetes_entry(&key).is_ok_and(|(_, canonical)| canonical == name);
                if is_canonical || !self.entries.contains_key(&key) {
                    self.entries.insert(key, value);
                }
            }
            Err(error) => {
                tracing::debug!(%error, collection, entry = name, "an entry names no record: it is passed over");
                self.unread.push(format!("{collection}/{name}"));
            }
        }
    }
}

/// The `spec` of this data.
#[cfg(test)]
fn spec(data: &Value) -> Box<RawValue> {
    RawValue::from_string(format!("{{\"data\":{data}}}")).unwrap()
}

#[cfg(test)]
mod tests {
    use discovery_core::{ErrorKind, InstanceId, Path};
    use serde_json::json;

    use super::*;

    const GOLDEN: &str = include_str!("../../discovery-dynamo/tests/golden/k8s-dynamoworkermetadata.json");

    fn golden() -> Value {
        serde_json::from_str(GOLDEN).unwrap()
    }

    fn key(kind: &str, segments: &[&str]) -> Key {
        Key::new(Path::new(kind, segments).unwrap(), InstanceId(0x2a))
    }

    fn read(data: &Value) -> Option<Document> {
        Data::of(&spec(data)).map(|data| Document::of(&data))
    }

    #[test]
    fn the_reference_s_object_is_read_and_written_back_the_same() {
        let golden = golden();
        let spec = spec(&golden["spec"]["data"]);
        let data = Data::of(&spec).unwrap();
        let document = Document::of(&data);
        assert_eq!((document.entries.len(), document.unread.as_slice()), (8, [].as_slice()));
        let draft = Draft::of(&document.entries).unwrap();
        assert_eq!(draft.to_value(), golden["spec"]["data"]);
        assert!(draft.differences(Some(&data)).is_empty());
    }

    #[test]
    fn one_bad_entry_hides_only_itself() {
        let data = json!({
            "endpoints": { "a/b/c/2a": { "n": 1 }, "a/b/2a": {}, "a/b/c/2A": {}, "a/b/c/40000000000000": {} },
            "model_cards": null,
            "event_channels": ["not", "a", "map"],
            "cache": { "eu/2a": { "n": 2 } },
            "instances": { "a/2a": {} },
        });
        let document = read(&data).unwrap();
        let keys: Vec<_> = document.entries.keys().cloned().collect();
        assert_eq!(keys, [key("cache", &["eu"]), key("endpoint", &["a", "b", "c"])]);
        assert_eq!(document.unread.len(), 5, "{:?}", document.unread);
    }

    #[test]
    fn without_a_map_of_maps_there_is_no_document() {
        for data in [json!(null), json!([]), json!("x"), json!(1)] {
            assert_eq!(read(&data), None, "{data}");
        }
        assert_eq!(read(&json!({})), Some(Document::default()));
    }

    #[test]
    fn a_value_too_deep_to_be_read_here_is_told_as_it_stands() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        let text = format!(r#"{{"data":{{"cache":{{"a/2a":{deep},"b/2a":{{"n":1}}}}}}}}"#);
        let spec = RawValue::from_string(text).unwrap();
        let data = Data::of(&spec).unwrap();
        let document = Document::of(&data);
        assert_eq!(document.entries[&key("cache", &["a"])], deep);
        assert_eq!(document.entries[&key("cache", &["b"])], r#"{"n":1}"#);
        assert_eq!(document.unread, [""; 0]);
        let wanted =
            [("a", "[]"), ("b", r#"{"n":1}"#)].map(|(name, value)| (key("cache", &[name]), Bytes::from(value)));
        let differences = Draft::of(&BTreeMap::from(wanted)).unwrap().differences(Some(&data));
        assert_eq!((differences.changed, differences.unwanted), (vec![key("cache", &["a"])], vec![]));
    }

    #[test]
    fn an_older_channel_stands_behind_its_newer_name() {
        let value = |n| json!({ "n": n, "namespace": "ns", "component": "c" });
        let newer = "namespace/ns/component/c/topic/t/2a";
        let data = json!({ "event_channels": { "ns/c/t/2a": value(1), newer: value(2) } });
        let document = read(&data).unwrap();
        let values: Vec<_> = document.entries.values().map(|value| String::from_utf8_lossy(value)).collect();
        assert_eq!(values.len(), 1);
        assert!(values[0].contains("\"n\":2"), "{values:?}");
    }

    #[test]
    fn a_value_that_would_not_come_back_is_refused() {
        let put = |value: &str| {
            Draft::of(&BTreeMap::from([(key("endpoint", &["a", "b", "c"]), Bytes::from(value.to_owned()))]))
        };
        assert!(put("9007199254740991").is_ok());
        for wrong in ["9007199254740993", "-9007199254740993", "{", "[1,{\"a\":18446744073709551615}]"] {
            assert_eq!(put(wrong).unwrap_err().kind(), ErrorKind::InvalidValue, "{wrong}");
        }
    }
}
