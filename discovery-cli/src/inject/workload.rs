//! What a workload lacks to be discovered.

use std::fmt;

use serde_json::{Value, json};

use super::Options;
use super::choice::Backend;
use super::container::{Ports, lacking};
use super::edit::{Addition, Edit, Step};
use super::service;

/// The label that makes pods discoverable, on a Service that selects them; in container mode, on the pods.
pub(super) const DISCOVERABLE: (&str, &str) = ("nvidia.com/dynamo-discovery-enabled", "true");
/// The label that comes with it in Dynamo's own manifests.
pub(super) const BACKEND_LABEL: (&str, &str) = ("nvidia.com/dynamo-discovery-backend", "kubernetes");
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

const TEMPLATE: [Step; 2] = [Step::Key("spec"), Step::Key("template")];
const POD: [Step; 3] = [Step::Key("spec"), Step::Key("template"), Step::Key("spec")];

/// What a workload is to be given.
#[derive(Debug, Default)]
pub(super) struct Injection {
    pub(super) edits: Vec<Edit>,
    /// A Service to stand behind it.
    pub(super) service: Option<Value>,
    /// What is left to whoever applies it.
    pub(super) notes: Vec<String>,
}

/// A Deployment or a StatefulSet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workload<'a> {
    object: &'a Value,
    kind: &'a str,
    name: &'a str,
}

impl fmt::Display for Workload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

impl<'a> Workload<'a> {
    pub(super) fn new(object: &'a Value) -> Result<Self, String> {
        let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
        let kind = text("/kind").unwrap_or_default();
        let name = text("/metadata/name").ok_or_else(|| format!("a {kind} has no metadata.name: give it one"))?;
        Ok(Self { object, kind, name })
    }

    fn pod(&self, field: &str) -> Option<&'a Value> {
        self.object.pointer("/spec/template/spec")?.get(field)
    }

    /// What it lacks; nothing of it that is there already. `services` are those of the same manifest, `made` those that were
    /// made for other workloads.
    pub(super) fn injection(&self, services: &[Value], made: &[Value], options: &Options) -> Result<Injection, String> {
        let backend = Backend::chosen(self.object)?;
        let mut injection = Injection::default();
        self.containers(backend, options, &mut injection)?;
        if let Backend::Kubernetes(mode) = backend {
            self.labels(&mut injection)?;
            self.service_account(mode, options, &mut injection)?;
            injection.service = self.service(services, made)?;
        }
        Ok(injection)
    }

    /// The containers that register, by their place in the list.
    fn chosen(&self, backend: Backend, options: &Options) -> Result<Vec<(usize, &'a Value)>, String> {
        let containers = self.pod("containers").and_then(Value::as_array).filter(|containers| !containers.is_empty());
        let containers = containers.ok_or("its pods have no containers: give them one")?;
        let named = |wanted: &str| {
            let found = containers.iter().enumerate().find(|(_, container)| container["name"] == wanted);
            let names: Vec<_> = containers.iter().filter_map(|container| container["name"].as_str()).collect();
            found.ok_or_else(|| format!("no container is called {wanted:?}: there are {}", names.join(", ")))
        };
        let each = backend.registers_containers();
        match options.containers.as_slice() {
            [] if each => Ok(containers.iter().enumerate().collect()),
            [] => {
                let default = self.object.pointer("/spec/template/metadata/annotations");
                match default.and_then(|annotations| annotations.get(DEFAULT_CONTAINER)).and_then(Value::as_str) {
                    Some(default) => Ok(vec![named(default)?]),
                    None => Ok(vec![(0, &containers[0])]),
                }
            }
            [_, _, ..] if !each => Err("a pod registers as one: name one container, or choose the mode \
                container by the annotation nvidia.com/dynamo-kube-discovery-mode"
                .to_owned()),
            names => names.iter().map(|name| named(name)).collect(),
        }
    }

    fn containers(&self, backend: Backend, options: &Options, injection: &mut Injection) -> Result<(), String> {
        let mut ports = Ports::new(self.pod("containers"), self.pod("initContainers"), options.health_port);
        for (index, container) in self.chosen(backend, options)? {
            let place = |below: Option<&'static str>| {
                let below = [Step::Key("containers"), Step::Index(index)].into_iter().chain(below.map(Step::Key));
                POD.into_iter().chain(below).collect()
            };
            let name = container["name"].as_str().unwrap_or_default();
            let lacking = lacking(container, backend, (!options.no_probe).then_some(&mut ports))
                .map_err(|what| format!("container {name}: {what}"))?;
            if !lacking.environment.is_empty() {
                injection.edits.push(Edit { at: place(Some("env")), what: Addition::Items(lacking.environment) });
            }
            if let Some(probe) = lacking.probe {
                injection.edits.push(Edit { at: place(None), what: Addition::Entry("readinessProbe", probe) });
            }
            injection.notes.extend(lacking.notes.iter().map(|note| format!("container {name}: {note}")));
        }
        Ok(())
    }

    fn labels(&self, injection: &mut Injection) -> Result<(), String> {
        let labels = self.object.pointer("/spec/template/metadata/labels");
        for (name, value) in [BACKEND_LABEL, DISCOVERABLE] {
            match labels.and_then(|labels| labels.get(name)) {
                Some(there) if *there == json!(value) => {}
                Some(there) => {
                    return Err(format!("its pods have the label {name}: {there}, and need {value:?}: remove it"));
                }
                None => {
                    let at = TEMPLATE.into_iter().chain([Step::Key("metadata"), Step::Key("labels")]).collect();
                    injection.edits.push(Edit { at, what: Addition::Entry(name, json!(value)) });
                }
            }
        }
        Ok(())
    }

    fn service_account(
        &self,
        mode: discovery_deploy::Mode,
        options: &Options,
        injection: &mut Injection,
    ) -> Result<(), String> {
        if self.pod("automountServiceAccountToken") == Some(&Value::Bool(false)) {
            return Err("automountServiceAccountToken is false, and its pods speak to the API server: remove it".into());
        }
        // The second is the older name of the first.
        let named = self.pod("serviceAccountName").or_else(|| self.pod("serviceAccount")).and_then(Value::as_str);
        let account = match named.filter(|name| !name.is_empty()) {
            Some(account) if account == discovery_deploy::SERVICE_ACCOUNT => return Ok(()),
            Some(account) => account,
            None => {
                let what = Addition::Entry("serviceAccountName", json!(options.service_account));
                injection.edits.push(Edit { at: POD.to_vec(), what });
                &options.service_account
            }
        };
        let mut command = "discovery rbac".to_owned();
        let mut flag = |name: &str, value: &str, default: &str| {
            if value != default {
                command.push_str(&format!(" --{name} {value}"));
            }
        };
        flag("namespace", self.namespace().unwrap_or("default"), "default");
        flag("service-account", account, discovery_deploy::SERVICE_ACCOUNT);
        flag("mode", mode.as_str(), discovery_deploy::Mode::default().as_str());
        injection.notes.push(format!("runs under the ServiceAccount {account}, which needs what `{command}` prints"));
        Ok(())
    }

    fn namespace(&self) -> Option<&'a str> {
        self.object.pointer("/metadata/namespace").and_then(Value::as_str)
    }

    /// A Service that makes its pods discoverable, unless there is one.
    fn service(&self, services: &[Value], made: &[Value]) -> Result<Option<Value>, String> {
        let pods = self.object.pointer("/spec/template/metadata/labels");
        let is_near =
            |service: &&Value| service.pointer("/metadata/namespace").and_then(Value::as_str) == self.namespace();
        let services = || services.iter().filter(is_near);
        let made = || made.iter().filter(is_near);
        if services().chain(made()).any(|service| service::makes_discoverable(service, pods)) {
            return Ok(None);
        }
        let selector = self.object.pointer("/spec/selector/matchLabels").and_then(Value::as_object);
        let selector = selector.filter(|labels| !labels.is_empty()).ok_or(
            "spec.selector.matchLabels is empty, and a Service selects by it: give the pods a label of their own there",
        )?;
        let is_called = |service: &Value, name: &str| service.pointer("/metadata/name") == Some(&json!(name));
        let mut name = format!("{}-discovery", self.name);
        // A Deployment and a StatefulSet may have one name.
        if made().any(|service| is_called(service, &name)) {
            name = format!("{}-{}-discovery", self.name, self.kind.to_ascii_lowercase());
        }
        if services().any(|service| is_called(service, &name)) {
            return Err(format!(
                "the Service {name} is there, and does not make its pods discoverable: give it the label {}: {:?} \
                 and the pods' labels as its selector",
                DISCOVERABLE.0, DISCOVERABLE.1
            ));
        }
        service::new(&name, self.namespace(), selector).map(Some)
    }
}
