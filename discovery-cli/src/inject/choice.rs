//! What the annotations of a workload choose.

use discovery_deploy::Mode;
use serde_json::Value;

const BACKEND: &str = "nvidia.com/dynamo-discovery-backend";
const MODE: &str = "nvidia.com/dynamo-kube-discovery-mode";

/// The backends that a manifest can choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Backend {
    Kubernetes(Mode),
    Etcd,
}

impl Backend {
    /// As in `DYN_DISCOVERY_BACKEND`.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Kubernetes(_) => "kubernetes",
            Self::Etcd => "etcd",
        }
    }

    /// Whether each container registers for itself.
    pub(super) fn registers_containers(self) -> bool {
        self == Self::Kubernetes(Mode::Container)
    }

    /// What a workload's annotations, or those of its pods, say. Both are checked, whichever counts.
    pub(super) fn chosen(workload: &Value) -> Result<Self, String> {
        let mode = chosen(workload, MODE, Mode::ALL.map(|mode| (mode.as_str(), mode)))?.unwrap_or_default();
        let backends = [("kubernetes", Self::Kubernetes(mode)), ("etcd", Self::Etcd)];
        Ok(chosen(workload, BACKEND, backends)?.unwrap_or(Self::Kubernetes(mode)))
    }
}

fn chosen<T: Copy>(workload: &Value, annotation: &str, allowed: [(&str, T); 2]) -> Result<Option<T>, String> {
    let places = ["/metadata/annotations", "/spec/template/metadata/annotations"];
    let given = places.map(|place| workload.pointer(place).and_then(|annotations| annotations.get(annotation)));
    let value = match given {
        [None, None] => return Ok(None),
        [Some(value), None] | [None, Some(value)] => value,
        [Some(value), Some(same)] if value == same => value,
        [Some(one), Some(other)] => {
            return Err(format!("{annotation} is {one}, and {other} in the pods' template: leave one of them out"));
        }
    };
    match allowed.into_iter().find(|(name, _)| value.as_str() == Some(name)) {
        Some((_, choice)) => Ok(Some(choice)),
        None => {
            let [(one, _), (other, _)] = allowed;
            Err(format!("{annotation} is {value}: allowed are {one:?} and {other:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn with(own: Value, pods: Value) -> Result<Backend, String> {
        Backend::chosen(&json!({
            "metadata": { "annotations": own },
            "spec": { "template": { "metadata": { "annotations": pods } } },
        }))
    }

    #[test]
    fn annotations_choose_and_unknown_values_are_refused_with_what_is_allowed() {
        let none = json!(null);
        assert_eq!(with(none.clone(), none.clone()), Ok(Backend::Kubernetes(Mode::Pod)));
        assert_eq!(with(json!({ BACKEND: "etcd" }), none.clone()), Ok(Backend::Etcd));
        assert_eq!(with(none.clone(), json!({ MODE: "container" })), Ok(Backend::Kubernetes(Mode::Container)));
        let both = with(json!({ BACKEND: "kubernetes" }), json!({ BACKEND: "kubernetes", MODE: "pod" }));
        assert_eq!(both, Ok(Backend::Kubernetes(Mode::Pod)));

        for (own, told) in [
            (json!({ BACKEND: "consul" }), r#"is "consul": allowed are "kubernetes" and "etcd""#),
            (json!({ BACKEND: "Etcd" }), r#"allowed are "kubernetes" and "etcd""#),
            (json!({ BACKEND: true }), "is true: allowed are"),
            (json!({ BACKEND: "etcd", MODE: "node" }), r#"is "node": allowed are "pod" and "container""#),
            (json!({ MODE: "" }), r#"allowed are "pod" and "container""#),
        ] {
            let refused = with(own, none.clone()).unwrap_err();
            assert!(refused.contains(told), "{refused}");
        }
        let torn = with(json!({ MODE: "pod" }), json!({ MODE: "container" })).unwrap_err();
        assert!(torn.contains("leave one of them out"), "{torn}");
    }
}
