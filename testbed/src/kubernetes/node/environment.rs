//! What does a container's process have in its environment, and on its command line?

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Container, EnvVar, Pod};

/// Where a command is looked for, after the image's own program.
const PATH: &str = "/mnt/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The variables, and what is wrong with the manifest where that is so.
pub(super) fn environment(
    pod: &Pod,
    container: &Container,
    address: Ipv4Addr,
    api: &(String, u16),
) -> Result<BTreeMap<String, String>, String> {
    let mut variables = BTreeMap::from([
        ("PATH".to_owned(), PATH.to_owned()),
        ("HOSTNAME".to_owned(), pod.metadata.name.clone().unwrap_or_default()),
        ("KUBERNETES_SERVICE_HOST".to_owned(), api.0.clone()),
        ("KUBERNETES_SERVICE_PORT".to_owned(), api.1.to_string()),
        ("KUBERNETES_SERVICE_PORT_HTTPS".to_owned(), api.1.to_string()),
    ]);
    if container.env_from.as_ref().is_some_and(|from| !from.is_empty()) {
        return Err("envFrom is not played here".to_owned());
    }
    for EnvVar { name, value, value_from, .. } in container.env.iter().flatten() {
        let value = match value_from.as_ref().map(|from| &from.field_ref) {
            None => expanded(value.as_deref().unwrap_or_default(), &variables),
            Some(Some(field)) => self::field(pod, &field.field_path, Some(address))?,
            Some(None) => return Err(format!("{name}: of valueFrom only fieldRef is played here")),
        };
        variables.insert(name.clone(), value);
    }
    Ok(variables)
}

/// The words of the container's command, or of `entrypoint` where it has none.
pub(super) fn command(container: &Container, entrypoint: &str, variables: &BTreeMap<String, String>) -> Vec<String> {
    let command = container.command.clone().filter(|command| !command.is_empty());
    let words = command.unwrap_or_else(|| vec![entrypoint.to_owned()]);
    words.iter().chain(container.args.iter().flatten()).map(|word| expanded(word, variables)).collect()
}

/// A field of the pod by its path, as the downward API knows them.
pub(super) fn field(pod: &Pod, path: &str, address: Option<Ipv4Addr>) -> Result<String, String> {
    let (metadata, spec) = (&pod.metadata, pod.spec.as_ref());
    let lines = |of: &Option<BTreeMap<String, String>>| {
        let all = of.iter().flatten().map(|(name, value)| format!("{name}={value:?}"));
        all.collect::<Vec<_>>().join("\n")
    };
    let one = |of: &Option<BTreeMap<String, String>>, rest: &str| {
        let name = rest.strip_suffix("']")?;
        Some(of.as_ref().and_then(|all| all.get(name)).cloned().unwrap_or_default())
    };
    let found = match path {
        "metadata.name" => metadata.name.clone(),
        "metadata.namespace" => metadata.namespace.clone(),
        "metadata.uid" => metadata.uid.clone(),
        "metadata.labels" => Some(lines(&metadata.labels)),
        "metadata.annotations" => Some(lines(&metadata.annotations)),
        "spec.nodeName" => spec.and_then(|spec| spec.node_name.clone()),
        "spec.serviceAccountName" => spec.and_then(|spec| spec.service_account_name.clone()),
        "status.podIP" | "status.podIPs" => address.map(|address| address.to_string()),
        "status.hostIP" | "status.hostIPs" => Some(Ipv4Addr::LOCALHOST.to_string()),
        path => match (path.strip_prefix("metadata.labels['"), path.strip_prefix("metadata.annotations['")) {
            (Some(rest), _) => one(&metadata.labels, rest),
            (_, Some(rest)) => one(&metadata.annotations, rest),
            _ => None,
        },
    };
    found.ok_or_else(|| format!("there is no field {path} here"))
}

/// With the values of variables that are there in place of `$(NAME)`; `$$` is one `$`.
fn expanded(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        let named = after.strip_prefix('(').and_then(|inner| inner.split_once(')'));
        rest = match (after.strip_prefix('$'), named) {
            (Some(after), _) => {
                result.push('$');
                after
            }
            (None, Some((name, after))) => {
                match variables.get(name) {
                    Some(value) => result.push_str(value),
                    None => result.push_str(&format!("$({name})")),
                }
                after
            }
            (None, None) => {
                result.push('$');
                after
            }
        };
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);

    fn pod(container: serde_json::Value) -> (Pod, Container) {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": { "name": "one", "namespace": "a", "uid": "u", "labels": { "app/x": "y" } },
            "spec": { "containers": [container] },
        }))
        .unwrap();
        let container = pod.spec.as_ref().unwrap().containers[0].clone();
        (pod, container)
    }

    fn variables(container: serde_json::Value) -> Result<BTreeMap<String, String>, String> {
        let (pod, container) = pod(container);
        environment(&pod, &container, ADDRESS, &("127.0.0.1".to_owned(), 6443))
    }

    #[test]
    fn a_process_is_told_what_its_manifest_asks_for() {
        let field = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
        let container = json!({
            "name": "main",
            "args": ["--listen", "$(IP):9000", "$$(IP)", "$(NONE)", "5$"],
            "env": [
                { "name": "IP", "valueFrom": field("status.podIP") },
                { "name": "UID", "valueFrom": field("metadata.uid") },
                { "name": "APP", "valueFrom": field("metadata.labels['app/x']") },
                { "name": "URL", "value": "http://$(IP)" },
            ],
        });
        let told = variables(container.clone()).unwrap();
        let expected =
            [("IP", "10.1.2.3"), ("UID", "u"), ("APP", "y"), ("URL", "http://10.1.2.3"), ("HOSTNAME", "one")];
        assert!(expected.iter().all(|&(name, value)| told[name] == value), "{told:?}");
        assert_eq!((&*told["KUBERNETES_SERVICE_HOST"], &*told["KUBERNETES_SERVICE_PORT"]), ("127.0.0.1", "6443"));
        let words = command(&pod(container).1, "program", &told);
        assert_eq!(words, ["program", "--listen", "10.1.2.3:9000", "$(IP)", "$(NONE)", "5$"]);
    }

    #[test]
    fn what_is_not_played_is_told() {
        let from = |source: serde_json::Value| json!({ "name": "main", "env": [{ "name": "A", "valueFrom": source }] });
        let secret = json!({ "secretKeyRef": { "name": "s", "key": "k" } });
        assert!(variables(from(secret)).unwrap_err().contains("only fieldRef"));
        let unknown = json!({ "fieldRef": { "fieldPath": "spec.nothing" } });
        assert!(variables(from(unknown)).unwrap_err().contains("spec.nothing"));
    }
}
