//! What a record is called, the same for both sides.

use serde_json::Value;

/// The name of a record in its stored form.
pub fn name_of(record: &Value) -> String {
    let text = |field: &str| record[field].as_str().unwrap_or_default().to_owned();
    let kind = text("type");
    let served = ["namespace", "component", "endpoint"].map(text);
    match &kind[..] {
        "Endpoint" => naming(&kind, &served, record["instance_id"].as_u64(), None),
        "Model" => naming(&kind, &served, record["instance_id"].as_u64(), record["model_suffix"].as_str()),
        "EventChannel" => naming(&kind, &about(record), record["instance_id"].as_u64(), None),
        "EventSource" => naming(&kind, &about(record), record["publisher_id"].as_u64(), None),
        _ => record.to_string(),
    }
}

/// Writes a name from its parts.
pub fn naming(kind: &str, parts: &[impl AsRef<str>], id: Option<u64>, suffix: Option<&str>) -> String {
    let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
    format!("{kind}({}) {:x} {}", parts.join(", "), id.unwrap_or_default(), suffix.unwrap_or_default())
        .trim_end()
        .to_owned()
}

fn about(record: &Value) -> Vec<String> {
    vec![record["scope"].to_string(), record["topic"].as_str().unwrap_or_default().to_owned()]
}
