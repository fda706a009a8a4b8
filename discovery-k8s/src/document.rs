//! From `spec.data` to records and back.

mod draft;
mod same;

use std::collections::BTreeMap;

use bytes::Bytes;
use discovery_core::Key;
use discovery_dynamo::layout;
use serde_json::Value;

pub(crate) use draft::{Draft, entry};

/// What a resource holds, as far as it can be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Document {
    /// Its records.
    pub(crate) entries: BTreeMap<Key, Bytes>,
    /// Entries that name no record, as `collection/entry`. They hide themselves and nothing else.
    pub(crate) unread: Vec<String>,
}

/// `spec.data` of a resource.
pub(crate) fn data(content: &Value) -> Option<&Value> {
    content.get("spec")?.get("data")
}

impl Document {
    /// Reads `spec.data`; `None` where it is no document at all. A collection that is null is empty.
    pub(crate) fn read(data: Option<&Value>) -> Option<Self> {
        let collections = data?.as_object()?;
        let mut document = Self::default();
        for (collection, entries) in collections {
            match entries {
                Value::Null => {}
                Value::Object(entries) => {
                    for (name, value) in entries {
                        document.take(collection, name, value);
                    }
                }
                _ => document.unread.push(collection.clone()),
            }
        }
        Some(document)
    }

    fn take(&mut self, collection: &str, name: &str, value: &Value) {
        let read = layout::parse_kubernetes_entry(collection, name).and_then(|key| {
            let value = layout::value_from_kubernetes(&key, value)?;
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

    #[test]
    fn the_reference_s_object_is_read_and_written_back_the_same() {
        let golden = golden();
        let document = Document::read(data(&golden)).unwrap();
        assert_eq!((document.entries.len(), document.unread.as_slice()), (8, [].as_slice()));
        let draft = Draft::of(&document.entries).unwrap();
        assert_eq!(&draft.to_value(), data(&golden).unwrap());
        assert!(draft.differences(data(&golden)).is_empty());
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
        let document = Document::read(Some(&data)).unwrap();
        let keys: Vec<_> = document.entries.keys().cloned().collect();
        assert_eq!(keys, [key("cache", &["eu"]), key("endpoint", &["a", "b", "c"])]);
        assert_eq!(document.unread.len(), 5, "{:?}", document.unread);
    }

    #[test]
    fn without_a_map_of_maps_there_is_no_document() {
        for data in [json!(null), json!([]), json!("x"), json!(1)] {
            assert_eq!(Document::read(Some(&data)), None, "{data}");
        }
        assert_eq!(Document::read(None), None);
        assert_eq!(Document::read(Some(&json!({}))), Some(Document::default()));
    }

    #[test]
    fn an_older_channel_stands_behind_its_newer_name() {
        let value = |n| json!({ "n": n, "namespace": "ns", "component": "c" });
        let newer = "namespace/ns/component/c/topic/t/2a";
        let data = json!({ "event_channels": { "ns/c/t/2a": value(1), newer: value(2) } });
        let document = Document::read(Some(&data)).unwrap();
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
