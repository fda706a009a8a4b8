//! Which pod this process runs in, as the downward API tells it.

use std::path::Path;

use discovery_core::{Environment, Error, ErrorKind, InstanceId, Key, Result};
use discovery_dynamo::layout;

use crate::config::Mode;

/// Where the downward API's files are mounted, unless [`PODINFO_VARIABLE`] says otherwise.
const PODINFO: &str = "/etc/podinfo";
/// The variable that names another directory for the downward API's files.
pub const PODINFO_VARIABLE: &str = "DYN_DISCOVERY_KUBERNETES_PODINFO";

/// Where the variables' values stand in a pod.
const FIELDS: [(&str, &str); 3] =
    [("POD_NAME", "metadata.name"), ("POD_UID", "metadata.uid"), ("POD_NAMESPACE", "metadata.namespace")];

const CONTAINER: &str = "CONTAINER_NAME";

/// What a value of the identity can be, as the API server checks it.
#[derive(Clone, Copy)]
enum Sort {
    /// A pod's name.
    Subdomain,
    /// A namespace's or a container's.
    Label,
    Uid,
}

impl Sort {
    /// Refuses what the cluster has none of. Nothing is cut off: what is around a name shows that it was not taken from there.
    fn check(self, source: &str, variable: &'static str, text: &str) -> Result<()> {
        let Some(wrong) = self.wrong(text) else { return Ok(()) };
        let (what, rule) = match self {
            Self::Subdomain => {
                ("pod's name", "a-z, 0-9, '-' and '.', with a letter or digit at each end and around each '.'")
            }
            Self::Label => ("namespace's or container's name", "a-z, 0-9 and '-', with a letter or digit at each end"),
            Self::Uid => ("uid", "letters, digits, '-', '_', '.' and ':'"),
        };
        let text = format!(
            "{source} is {text:?}, which is no {what}: {wrong}; it consists of {rule}. Let Kubernetes set it: `{}`",
            manifest(&[variable])
        );
        Err(Error::new(ErrorKind::InvalidConfig, text))
    }

    fn wrong(self, text: &str) -> Option<String> {
        let (longest, others) = match self {
            Self::Subdomain => (253, "-."),
            Self::Label => (63, "-"),
            Self::Uid => (253, "-_.:"),
        };
        let length = text.chars().count();
        if length == 0 {
            return Some("it is empty".to_owned());
        }
        if length > longest {
            return Some(format!("it has {length} characters, and {longest} are possible"));
        }
        let is_legal = |c: char| {
            let is_letter = c.is_ascii_lowercase() || matches!(self, Self::Uid) && c.is_ascii_uppercase();
            is_letter || c.is_ascii_digit() || others.contains(c)
        };
        if let Some(c) = text.chars().find(|c| !is_legal(*c)) {
            return Some(format!("it cannot hold {c:?}"));
        }
        if matches!(self, Self::Uid) {
            return None;
        }
        let part = text.split('.').find(|part| part.is_empty() || part.starts_with('-') || part.ends_with('-'))?;
        Some(if part.is_empty() { "a '.' has nothing beside it" } else { "a '-' stands at an end" }.to_owned())
    }
}

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
    /// [`ErrorKind::InvalidConfig`] where one of them is nothing that a cluster can have, where the resource's name becomes too
    /// long, or where container mode has no container.
    pub fn new(mode: Mode, pod: &str, uid: &str, namespace: &str, container: Option<&str>) -> Result<Self> {
        let container = match (mode, container) {
            (Mode::Pod, _) => None,
            (Mode::Container, Some(container)) => Some(container),
            (Mode::Container, None) => {
                return Err(Error::new(
                    ErrorKind::InvalidConfig,
                    format!("container mode needs the container's name: add `{}`", manifest(&[CONTAINER])),
                ));
            }
        };
        Sort::Subdomain.check(FIELDS[0].0, FIELDS[0].0, pod)?;
        Sort::Uid.check(FIELDS[1].0, FIELDS[1].0, uid)?;
        Sort::Label.check(FIELDS[2].0, FIELDS[2].0, namespace)?;
        if let Some(container) = container {
            Sort::Label.check(CONTAINER, CONTAINER, container)?;
        }
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
    /// [`ErrorKind::InvalidConfig`] naming what is missing, or is nothing that a cluster can have, with the lines of the
    /// manifest that add it.
    pub(crate) fn from_environment(environment: &Environment, mode: Mode) -> Result<Self> {
        let directory = environment.path(PODINFO_VARIABLE).unwrap_or(Path::new(PODINFO));
        let read = |file: &str, variable: &'static str, sort: Sort| {
            let file = directory.join(file);
            let text = std::fs::read_to_string(&file).ok();
            // Whoever writes such a file by hand ends its line.
            let text = text.map(|text| text.trim_end_matches(['\n', '\r']).to_owned()).filter(|text| !text.is_empty());
            let (source, text) = match text {
                Some(text) => (file.display().to_string(), text),
                None => match environment.get(variable)? {
                    Some(text) => (variable.to_owned(), text.to_owned()),
                    None => return Ok(Err(variable)),
                },
            };
            sort.check(&source, variable, &text)?;
            Ok::<_, Error>(Ok(text))
        };
        let found = [
            read("pod_name", "POD_NAME", Sort::Subdomain)?,
            read("pod_uid", "POD_UID", Sort::Uid)?,
            read("pod_namespace", "POD_NAMESPACE", Sort::Label)?,
        ];
        let missing: Vec<_> = found.iter().filter_map(|found| found.as_ref().err().copied()).collect();
        match found {
            [Ok(pod), Ok(uid), Ok(namespace)] => Self::new(mode, &pod, &uid, &namespace, environment.get(CONTAINER)?),
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

    /// Whether a record is kept under an id that was chosen, and not under this instance's.
    pub(crate) fn is_foreign(&self, key: &Key) -> bool {
        key.instance() != self.instance()
    }
}

/// What to add to a container so that its process knows its pod. One line: it stands in messages.
pub(crate) fn manifest(missing: &[&str]) -> String {
    let added = FIELDS.iter().filter(|(name, _)| missing.contains(name));
    let added = added.map(|(name, field)| format!("{{name: {name}, valueFrom: {{fieldRef: {{fieldPath: {field}}}}}}}"));
    // No field tells it.
    let container = missing.contains(&CONTAINER).then(|| format!("{{name: {CONTAINER}, value: THE_NAME}}"));
    format!("env: [{}]", added.chain(container).collect::<Vec<_>>().join(", "))
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
    fn what_no_cluster_has_is_refused_by_the_variable_s_name() {
        let set = |variable: &str, value: &str| {
            let good = [("POD_NAME", "web-0.a"), ("POD_UID", "8e16b467-f59d"), ("POD_NAMESPACE", "ns")];
            let set = environment(&good).with("CONTAINER_NAME", "engine-1").with(variable, value);
            Identity::from_environment(&set, Mode::Container)
        };
        assert_eq!(set("POD_NAME", "web-0.a").unwrap().resource, "web-0.a-engine-1");
        let long = "x".repeat(64);
        let cases = [
            ("POD_NAME", "w 0", "' '"),
            ("POD_NAME", "w-0 ", "' '"),
            ("POD_NAME", "a/b", "'/'"),
            ("POD_NAME", "a?b", "'?'"),
            ("POD_NAME", "a#b", "'#'"),
            ("POD_NAME", "Web", "'W'"),
            ("POD_NAME", "web\n", "'\\n'"),
            ("POD_NAME", "-web", "'-'"),
            ("POD_NAME", "web..a", "'.'"),
            ("POD_NAMESPACE", "default ", "' '"),
            ("POD_NAMESPACE", "a.b", "'.'"),
            ("POD_NAMESPACE", &long, "64 characters"),
            ("POD_UID", "8e16b467 ", "' '"),
            ("POD_UID", "\"8e16b467\"", "'\"'"),
            ("POD_UID", "$(POD_UID)", "'$'"),
            ("CONTAINER_NAME", " ", "' '"),
            ("CONTAINER_NAME", "Engine", "'E'"),
        ];
        for (variable, value, part) in cases {
            let error = set(variable, value).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig, "{error}");
            let text = error.to_string();
            assert!(text.starts_with(&format!("{variable} is {value:?}")) && text.contains(part), "{text}");
            let field = FIELDS.iter().find(|(name, _)| *name == variable).map_or("CONTAINER_NAME", |(_, field)| field);
            assert!(text.contains("`env: [{name: ") && text.contains(field), "{text}");
        }
        let pod = environment(&[("POD_NAME", "a"), ("POD_UID", "u"), ("POD_NAMESPACE", "ns"), ("CONTAINER_NAME", " ")]);
        assert!(Identity::from_environment(&pod, Mode::Pod).is_ok(), "which does not need the container's name");
        assert_eq!(Identity::new(Mode::Pod, "", "u", "ns", None).unwrap_err().kind(), ErrorKind::InvalidConfig);
        assert_eq!(Identity::new(Mode::Pod, "a", "", "ns", None).unwrap_err().kind(), ErrorKind::InvalidConfig);
    }

    #[test]
    fn a_file_that_holds_what_no_cluster_has_is_named() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("pod_name"), "web 0\n").unwrap();
        let set = environment(&[("POD_NAME", "web-0"), ("POD_UID", "u"), ("POD_NAMESPACE", "ns")])
            .with(PODINFO_VARIABLE, directory.path());
        let text = Identity::from_environment(&set, Mode::Pod).unwrap_err().to_string();
        let file = directory.path().join("pod_name");
        assert!(text.starts_with(&format!("{} is \"web 0\"", file.display())), "{text}");
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
