//! Texts that JSON and YAML read differently: what is applied is JSON, and the API server reads it as YAML.

use std::collections::BTreeMap;
use std::time::Duration;

use discovery_core::{Path, Query, Record, Result};
use discovery_dynamo::Endpoint;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::space;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Text {
    place: String,
    text: String,
    fields: BTreeMap<String, u64>,
}

impl Record for Text {
    const KIND: &'static str = "text";

    fn path(&self) -> Result<Path> {
        Path::new(Self::KIND, [&self.place])
    }
}

#[tokio::test]
async fn what_yaml_reads_differently_comes_back_as_it_was_by_one_patch() {
    let space = space().await;
    let pod = space.ready_pod("one").await.unwrap();
    let owner = space.discovery(&pod).await.unwrap();
    let texts = [
        "\u{7f}",
        "\u{80}",
        "a \u{85} b",
        "\u{85}",
        "\u{9f}",
        "a \u{2028}\t b",
        "\u{2028}",
        "a \u{2029} b",
        "\u{feff}",
        "\u{fffe}",
        "\u{ffff}",
        "\\u2028",
        "\u{1f600}",
        "\u{1fffe}",
        "\u{e000}",
        "\u{10ffff}",
    ];
    let (mut records, mut names) = (Vec::new(), Vec::new());
    let (mut held, mut held_names) = (Vec::new(), Vec::new());
    for (number, text) in texts.into_iter().enumerate() {
        let record = Text { place: number.to_string(), text: text.to_owned(), fields: [(text.to_owned(), 1)].into() };
        held.push(owner.register(record.clone()).await.unwrap_or_else(|error| panic!("{text:?}: {error}")));
        // A segment of an endpoint's name is one of a field's as it is. It holds no control characters.
        if !text.chars().any(char::is_control) {
            let endpoint = Endpoint::new("ns", "c", text).tcp("10.0.0.5:9000");
            held_names.push(owner.register(endpoint).await.unwrap_or_else(|error| panic!("{text:?}: {error}")));
            names.push(text);
        }
        let stored = space.resource("one").await.unwrap().unwrap();
        let data = &stored.data["spec"]["data"];
        let instance = held[number].instance();
        assert_eq!(data["text"][format!("{number}/{instance}")], json!(record), "{text:?}");
        let is_named = data["endpoints"].get(format!("ns/c/{text}/{instance}")).is_some();
        assert_eq!(is_named, names.last() == Some(&text), "{text:?}: {data}");
        // One that comes back otherwise is written a second time.
        assert_eq!(stored.metadata.generation, Some((held.len() + held_names.len()) as i64), "{text:?}");
        records.push(record);
    }
    let mut listed: Vec<Text> =
        owner.list::<Text>(Query::all()).await.unwrap().iter().map(|one| Text::clone(one)).collect();
    listed.sort();
    records.sort();
    assert_eq!(listed, records);
    let endpoints = owner.list::<Endpoint>(Query::all()).await.unwrap();
    let mut listed: Vec<_> =
        endpoints.iter().map(|one| one.key().path().segments().last().unwrap().into_owned()).collect();
    listed.sort();
    names.sort();
    assert_eq!(listed, names);
    assert!(owner.shutdown(Duration::from_secs(20)).await.is_clean());
}
