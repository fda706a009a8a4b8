//! What a container lacks to register its pod, or itself.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::choice::Backend;

/// Where the readiness endpoint listens, and its path: the names are those of Dynamo's runtime.
const PORT: &str = "DYN_SYSTEM_PORT";
const PATH: &str = "DYN_SYSTEM_HEALTH_PATH";

/// Who registers, the pod or each of its containers.
const MODE: &str = "DYN_KUBE_DISCOVERY_MODE";

/// What a container is to be given.
#[derive(Debug, Default)]
pub(super) struct Lacking {
    pub(super) environment: Vec<Value>,
    pub(super) probe: Option<Value>,
    pub(super) notes: Vec<String>,
}

/// The ports of a pod, which its containers share.
#[derive(Debug)]
pub(super) struct Ports {
    taken: BTreeSet<u64>,
    next: u16,
}

impl Ports {
    /// Of these containers, and of the sidecars among those that run first.
    pub(super) fn new(containers: Option<&Value>, first_run: Option<&Value>, first: u16) -> Self {
        let sidecars = || listed(first_run).filter(|container| container["restartPolicy"] == "Always");
        let containers = || listed(containers).chain(sidecars());
        let declared = containers().filter_map(|container| container["ports"].as_array()).flatten();
        let declared = declared.filter_map(|port| port["containerPort"].as_u64());
        let health = containers().filter_map(|container| variable(container, PORT)?["value"].as_str()?.parse().ok());
        Self { taken: declared.chain(health).collect(), next: first }
    }

    fn free(&mut self) -> Result<u16, String> {
        let port = (self.next..=u16::MAX).find(|port| !self.taken.contains(&u64::from(*port)));
        let port = port.ok_or("no port is left for its readiness endpoint: give a lower --health-port")?;
        self.taken.insert(port.into());
        Ok(port)
    }
}

fn listed(containers: Option<&Value>) -> impl Iterator<Item = &Value> {
    containers.and_then(Value::as_array).into_iter().flatten()
}

/// What `container` lacks; a probe only where there are ports to give.
pub(super) fn lacking(container: &Value, backend: Backend, ports: Option<&mut Ports>) -> Result<Lacking, String> {
    let mut lacking = Lacking::default();
    for wanted in identity(container, backend) {
        let name = wanted["name"].as_str().unwrap_or_default();
        if variables(container, name).nth(1).is_some() {
            return Err(format!("{name} is set twice, of which the last counts: leave one"));
        }
        match variable(container, name) {
            None => lacking.environment.push(wanted),
            Some(there) if same(there, &wanted) => {}
            Some(there) => {
                return Err(format!("{name} is set to {}, and has to be {}: remove it", shown(there), shown(&wanted)));
            }
        }
    }
    if let (false, Some(mode)) = (backend.registers_containers(), variable(container, MODE))
        && mode["value"] != "pod"
    {
        return Err(format!(
            "{MODE} is set to {}: choose the mode by the annotation nvidia.com/dynamo-kube-discovery-mode instead",
            shown(mode)
        ));
    }
    let unset = |name| variable(container, name).is_none();
    if backend == Backend::Etcd && unset("ETCD_ENDPOINTS") && container["envFrom"].is_null() {
        let note = "ETCD_ENDPOINTS is not set: without it, etcd is looked for in the pod itself";
        lacking.notes.push(note.to_owned());
    }
    // A container that says by itself when it is ready is left to do so.
    let (Some(ports), true) = (ports, container["readinessProbe"].is_null()) else { return Ok(lacking) };
    let path = variable(container, PATH).and_then(|path| path["value"].as_str()).unwrap_or("/health");
    let port = match variable(container, PORT) {
        None => {
            let port = ports.free()?;
            lacking.environment.push(json!({ "name": PORT, "value": port.to_string() }));
            port
        }
        Some(there) => match there["value"].as_str().and_then(|port| port.parse().ok()) {
            Some(port) if port > 0 => port,
            _ => return Err(format!("{PORT} is {}, which no probe can ask: set a port, or --no-probe", shown(there))),
        },
    };
    lacking.notes.push(format!(
        "is ready once its program answers at port {port}, {path}, as {PORT} tells it to: it is never ready where the program \
         serves nothing there; leave the probe out with --no-probe, or write another"
    ));
    lacking.probe = Some(json!({ "httpGet": { "path": path, "port": port }, "periodSeconds": 2 }));
    Ok(lacking)
}

/// Who the process is, and where it registers.
fn identity(container: &Value, backend: Backend) -> Vec<Value> {
    let set = |name: &str, value: &Value| json!({ "name": name, "value": value });
    let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let mut identity = vec![set("DYN_DISCOVERY_BACKEND", &json!(backend.as_str()))];
    if let Backend::Kubernetes(mode) = backend {
        identity.extend([
            field("POD_NAME", "metadata.name"),
            field("POD_NAMESPACE", "metadata.namespace"),
            field("POD_UID", "metadata.uid"),
        ]);
        if backend.registers_containers() {
            identity.extend([set(MODE, &json!(mode.as_str())), set("CONTAINER_NAME", &container["name"])]);
        }
    }
    identity
}

fn variable<'a>(container: &'a Value, name: &str) -> Option<&'a Value> {
    variables(container, name).next()
}

fn variables<'a>(container: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    container["env"].as_array().into_iter().flatten().filter(move |variable| variable["name"] == name)
}

const FIELD: &str = "/valueFrom/fieldRef/fieldPath";

fn same(there: &Value, wanted: &Value) -> bool {
    there["value"] == wanted["value"] && there.pointer(FIELD) == wanted.pointer(FIELD)
}

/// What a variable is set to.
fn shown(variable: &Value) -> String {
    let value = variable.pointer(FIELD).map(|path| format!("the pod's {path}"));
    value.unwrap_or_else(|| match &variable["value"] {
        // Where it comes from, and not what it is: it may be a secret.
        Value::Null => "something else".to_owned(),
        value => value.to_string(),
    })
}
