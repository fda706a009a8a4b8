//! What discovery on Kubernetes needs of a cluster, as text that can be applied: the files of this directory, which
//! kustomize and the Helm chart render too.

/// The definition of the resource `DynamoWorkerMetadata`: once for each cluster.
pub const CRD: &str = include_str!("../crd.yaml");

/// The policy under which a pod writes its own `DynamoWorkerMetadata` and no other's, and its binding: once for each
/// cluster. Kubernetes 1.30 or newer.
pub const ADMISSION: &str = include_str!("../admission.yaml");

/// The ServiceAccount that workers run under where nothing else is chosen.
pub const SERVICE_ACCOUNT: &str = "discovery-worker";

/// The namespace in the manifests as they are.
const NAMESPACE: &str = "default";

const RBAC: &str = include_str!("../namespace/rbac.yaml");

/// Who registers, which is `DYN_KUBE_DISCOVERY_MODE` of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Each pod as one.
    #[default]
    Pod,
    /// Each container for itself. Readiness is read from the pods themselves, so they are listed and watched.
    Container,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 2] = [Self::Pod, Self::Container];

    /// As in `DYN_KUBE_DISCOVERY_MODE`: `pod`, `container`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pod => "pod",
            Self::Container => "container",
        }
    }
}

/// A ServiceAccount, and a Role and RoleBinding of its name, which let pods register and discover in their namespace and
/// do nothing else. `None` leaves what the manifests say: [`SERVICE_ACCOUNT`] in the namespace `default`.
pub fn rbac(namespace: Option<&str>, service_account: Option<&str>, mode: Mode) -> String {
    let named = |text: String, field: &str, default: &str, chosen: Option<&str>| match chosen {
        // Quoted, because a name may look like a number.
        Some(chosen) => text.replace(&format!("{field}: {default}\n"), &format!("{field}: {chosen:?}\n")),
        None => text,
    };
    let text = named(RBAC.to_owned(), "namespace", NAMESPACE, namespace);
    let text = named(text, "name", SERVICE_ACCOUNT, service_account);
    match mode {
        Mode::Pod => text,
        Mode::Container => text.replace("[pods]\n    verbs: [get]\n", "[pods]\n    verbs: [get, list, watch]\n"),
    }
}
