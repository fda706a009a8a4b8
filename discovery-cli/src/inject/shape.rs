//! What the API server would refuse a workload for, where what is added would hide it or come to nothing by it.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Whether the workload has the parts that it must have, each of its kind.
pub(super) fn check(object: &Value) -> Result<(), String> {
    let metadata = mapping(object, "metadata")?;
    name(metadata, "metadata", 253, true)?;
    optional_text(metadata, "metadata", "namespace")?;
    texts(object, "metadata.labels")?;
    texts(object, "metadata.annotations")?;
    for part in ["spec", "spec.template", "spec.template.spec"] {
        mapping(object, part)?;
    }
    texts(object, "spec.template.metadata.annotations")?;
    let labels = texts(object, "spec.template.metadata.labels")?;
    let selector = texts(object, "spec.selector.matchLabels")?;
    let expressions = find(object, "spec.selector.matchExpressions").and_then(Value::as_array);
    if selector.is_none_or(Map::is_empty) && expressions.is_none_or(Vec::is_empty) {
        return Err(
            "spec.selector.matchLabels is empty, and pods are selected by it: give them a label of their own there"
                .into(),
        );
    }
    let carried = |name: &str| labels.and_then(|labels| labels.get(name));
    if let Some((label, _)) = selector.into_iter().flatten().find(|(name, value)| carried(name) != Some(*value)) {
        return Err(format!("its selector asks for the label {label}, which its pods do not have so: make them agree"));
    }
    let mut names = BTreeSet::new();
    for list in ["containers", "initContainers"] {
        let list = format!("spec.template.spec.{list}");
        for (index, container) in items(object, &list)?.iter().enumerate() {
            let place = format!("{list}.{index}");
            let container = container.as_object().ok_or_else(|| format!("{place} is no mapping: correct it"))?;
            let name = name(container, &place, 63, false)?;
            if !names.insert(name) {
                return Err(format!("two containers are called {name:?}: rename one"));
            }
            variables(container, &place)?;
        }
    }
    Ok(())
}

fn variables(container: &Map<String, Value>, place: &str) -> Result<(), String> {
    let list = match container.get("env") {
        None | Some(Value::Null) => return Ok(()),
        Some(list) => list.as_array().ok_or_else(|| format!("{place}.env is no list: correct it"))?,
    };
    for (index, variable) in list.iter().enumerate() {
        let place = format!("{place}.env.{index}");
        let variable = variable.as_object().ok_or_else(|| format!("{place} is no mapping: correct it"))?;
        if variable.get("name").and_then(Value::as_str).is_none_or(str::is_empty) {
            return Err(format!("{place} has no name that is a text: give it one"));
        }
        optional_text(variable, &place, "value")?;
    }
    Ok(())
}

fn find<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    object.pointer(&format!("/{}", path.replace('.', "/"))).filter(|value| !value.is_null())
}

fn mapping<'a>(object: &'a Value, path: &str) -> Result<&'a Map<String, Value>, String> {
    let found = find(object, path).ok_or_else(|| format!("it has no {path}: add it"))?;
    found.as_object().ok_or_else(|| format!("{path} is no mapping: correct it"))
}

fn items<'a>(object: &'a Value, path: &str) -> Result<&'a [Value], String> {
    let Some(found) = find(object, path) else { return Ok(&[]) };
    found.as_array().map(Vec::as_slice).ok_or_else(|| format!("{path} is no list: correct it"))
}

/// A mapping of texts, which may be missing.
fn texts<'a>(object: &'a Value, path: &str) -> Result<Option<&'a Map<String, Value>>, String> {
    let Some(found) = find(object, path) else { return Ok(None) };
    let found = found.as_object().ok_or_else(|| format!("{path} is no mapping: correct it"))?;
    match found.iter().find(|(_, value)| !value.is_string()) {
        Some((name, value)) => Err(format!("{path}.{name} is {value}, which is no text: quote it")),
        None => Ok(Some(found)),
    }
}

fn optional_text(mapping: &Map<String, Value>, place: &str, field: &str) -> Result<(), String> {
    match mapping.get(field) {
        None | Some(Value::Null | Value::String(_)) => Ok(()),
        Some(value) => Err(format!("{place}.{field} is {value}, which is no text: quote it")),
    }
}

/// The name of an object, with dots, or of a container, without.
fn name<'a>(mapping: &'a Map<String, Value>, place: &str, most: usize, dots: bool) -> Result<&'a str, String> {
    let name = mapping.get("name").and_then(Value::as_str).ok_or_else(|| format!("{place}.name is missing: add it"))?;
    let is_part = |part: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-')
    };
    let legal = if dots { name.split('.').all(is_part) } else { is_part(name) };
    if legal && name.len() <= most {
        return Ok(name);
    }
    Err(format!(
        "{place}.name is {name:?}: a name has at most {most} characters, of a to z, 0 to 9 and `-` inside: rename it"
    ))
}
