//! The Service whose EndpointSlices tell which pods are ready.

use serde_json::{Map, Value, json};

use super::workload::{BACKEND_LABEL, DISCOVERABLE};

/// Whether it makes pods with these labels discoverable.
pub(super) fn makes_discoverable(service: &Value, pods: Option<&Value>) -> bool {
    let (label, value) = DISCOVERABLE;
    let selector = service["spec"]["selector"].as_object().filter(|selector| !selector.is_empty());
    service["metadata"]["labels"][label] == value
        && selector.is_some_and(|selector| {
            selector.iter().all(|(name, value)| pods.and_then(|labels| labels.get(name)) == Some(value))
        })
}

/// One that selects by these labels. It is headless and has no ports: nobody sends it requests.
pub(super) fn new(name: &str, namespace: Option<&str>, selector: &Map<String, Value>) -> Result<Value, String> {
    if !is_label(name) {
        return Err(format!(
            "{name:?} is no name for a Service: write one that selects its pods and has the label {}: {:?}",
            DISCOVERABLE.0, DISCOVERABLE.1
        ));
    }
    let mut metadata = json!({ "name": name, "labels": Map::from_iter([BACKEND_LABEL, DISCOVERABLE].map(label)) });
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    Ok(json!({ "metadata": metadata, "spec": { "clusterIP": "None", "selector": selector } }))
}

/// As a document of a manifest.
pub(super) fn written(service: &Value) -> Result<String, String> {
    let mut text = "---\napiVersion: v1\nkind: Service\n".to_owned();
    for part in ["metadata", "spec"] {
        text.push_str(&super::edit::written(&json!({ part: service[part] }))?);
    }
    Ok(text)
}

fn label((name, value): (&str, &str)) -> (String, Value) {
    (name.to_owned(), json!(value))
}

/// A DNS label as RFC 1035 has it, which Services are named by.
fn is_label(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(inner)
        && !name.ends_with('-')
}
