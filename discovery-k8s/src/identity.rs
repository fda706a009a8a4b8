//! Which pod this process runs in, as the downward API tells it.

use std::path::Path;

use discovery_core::{Environment, Error, ErrorKind, InstanceId, Result};
use discovery_dynamo::layout;

use crate::config::Mode;

/// Where the downward API's files are mounted, unless [`PODINFO_VARIABLE`] says otherwise.
const PODINFO: &str = "/etc/podinfo";
/// The variable that names another directory for the downward API's files.
pub const PODINFO_VARIABLE: &str = "DYN_DISCOVERY_KUBERNETES_PODINFO";

/// Where the variables' values stand in a pod.
const FIELDS: [(&str, &str); 3] =
    [("POD_NAME", "metadata.name"), ("POD_UID", "metadata.uid"), ("POD_NAMESPACE", "metadata.namespace")];

/// The pod, or the container, that a process registers for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The pod's name.
    pub pod: String,
    /// The pod's uid: two pods of one name, one after the other, differ in it.
    pub uid: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The name of the resource that holds this process's records.
    pub resource: String,
}

impl Identity {
    /// An identity in `mode`: of the pod alone, or of `container` in it.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] where the resource's name becomes too long, or where container mode has no container.
    pub fn new(mode: Mode, pod: &str, uid: &str, namespace: &str, container: Option<&str>) -> Result<Self> {
        let container = match (mode, container) {
            (Mode::Pod, _) => None,
            (Mode::Container, Some(container)) => Some(container),
            (Mode::Container, None) => {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    "container mode needs the container's name: add `env: [{name: CONTAINER_NAME, value: THE_NAME}]`",
                ));
            }
        };
        Ok(Self {
            pod: pod.to_owned(),
            uid: uid.to_owned(),
            namespace: namespace.to_owned(),
            resource: layout::kubernetes_resource_name(pod, container)?,
        })
    }

    /// The identity that the downward API's files give, each else its variable: `POD_NAME`, `POD_UID`, `POD_NAMESPACE`.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] naming what is missing, with the lines of the manifest that add it.
    pub(crate) fn from_environment(environment: &Environment, mode: Mode) -> Result<Self> {
        let directory = environment.path(PODINFO_VARIABLE).unwrap_or(Path::new(PODINFO));
        let read = |file: &str, variable: &'static str| {
            let text = std::fs::read_to_string(directory.join(file)).ok();
            let text = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
            let text = match text {
                Some(text) => Some(text),
                None => environment.get(variable)?.map(str::to_owned),
            };
            Ok::<_, Error>(text.ok_or(variable))
        };
        let found =
            [read("pod_name", "POD_NAME")?, read("pod_uid", "POD_UID")?, read("pod_namespace", "POD_NAMESPACE")?];
        let missing: Vec<_> = found.iter().filter_map(|found| found.as_ref().err().copied()).collect();
        match found {
            [Ok(pod), Ok(uid), Ok(namespace)] => {
                Self::new(mode, &pod, &uid, &namespace, environment.get("CONTAINER_NAME")?)
            }
            _ => Err(Error::new(
                ErrorKind::InvalidConfig,
                format!(
                    "{} missing, without which nothing can be registered: add to the container `{}`",
                    list(&missing),
                    manifest(&missing)
                ),
            )),
        }
    }

    /// The id of the instance that registers here.
    pub fn instance(&self) -> InstanceId {
        layout::kubernetes_instance_id(&self.resource)
    }
}

/// What to add to a container so that its process knows its pod. One line: it stands in messages.
pub(crate) fn manifest(missing: &[&str]) -> String {
    let added = FIELDS.iter().filter(|(name, _)| missing.contains(name));
    let added = added.map(|(name, field)| format!("{{name: {name}, valueFrom: {{fieldRef: {{fieldPath: {field}}}}}}}"));
    format!("env: [{}]", added.collect::<Vec<_>>().join(", "))
}

fn list(missing: &[&str]) -> String {
    let verb = if missing.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", missing.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(set: &[(&str, &str)]) -> Environment {
        let podinfo = [(PODINFO_VARIABLE, "/nonexistent")];
        podinfo.iter().chain(set).map(|(name, value)| (*name, *value)).collect()
    }

    #[test]
    fn what_is_missing_is_named_with_what_to_add() {
        let set = environment(&[("POD_NAME", "worker-0")]);
        let error = Identity::from_environment(&set, Mode::Pod).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        let text = error.to_string();
        assert!(text.starts_with("POD_UID, POD_NAMESPACE are missing"), "{text}");
        let added = "`env: [{name: POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}, {name: POD_NAMESPACE, \
                     valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}]`";
        assert!(text.ends_with(added), "{text}");
    }

    #[test]
    fn a_container_has_a_resource_of_its_own_but_for_main() {
        let pod = [("POD_NAME", "worker-0"), ("POD_UID", "u"), ("POD_NAMESPACE", "ns")];
        let with = |mode, container: &str| {
            let set = environment(&pod).with("CONTAINER_NAME", container);
            Identity::from_environment(&set, mode).map(|identity| identity.resource)
        };
        assert_eq!(with(Mode::Pod, "engine-1").unwrap(), "worker-0");
        assert_eq!(with(Mode::Container, "engine-1").unwrap(), "worker-0-engine-1");
        assert_eq!(with(Mode::Container, "main").unwrap(), "worker-0");
        assert_eq!(with(Mode::Container, "").unwrap_err().kind(), ErrorKind::InvalidConfig);
    }

    #[test]
    fn files_win_over_variables() {
        let directory = std::env::temp_dir().join(format!("podinfo-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("pod_name"), "from-a-file\n").unwrap();
        let set = environment(&[("POD_NAME", "from-a-variable"), ("POD_UID", "u"), ("POD_NAMESPACE", "ns")])
            .with(PODINFO_VARIABLE, &directory);
        let identity = Identity::from_environment(&set, Mode::Pod).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!((identity.pod.as_str(), identity.uid.as_str()), ("from-a-file", "u"));
    }
}
