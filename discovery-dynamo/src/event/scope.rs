//! Scopes: whom an event is about.

use discovery_core::{Path, Query, Result};
use serde::{Deserialize, Serialize};

/// Whom the events of a topic are about: a namespace, a component, or an endpoint.
///
/// A scope is exact: what is published for a namespace is not published for the components in it, and the reverse.
///
/// ```
/// use discovery_dynamo::EventScope;
///
/// let scope = EventScope::component("dynamo", "backend");
/// assert_eq!(scope.segments(), ["namespace", "dynamo", "component", "backend"]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventScope {
    /// A namespace as such.
    Namespace {
        /// Its name.
        name: String,
    },
    /// A component as such.
    Component {
        /// The component's namespace.
        namespace: String,
        /// Its name.
        component: String,
    },
    /// An endpoint.
    Endpoint {
        /// Its name.
        endpoint: EndpointId,
    },
}

/// The full name of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EndpointId {
    /// Its namespace.
    pub namespace: String,
    /// Its component.
    pub component: String,
    /// Its own name.
    pub name: String,
}

impl EventScope {
    /// A namespace.
    pub fn namespace(name: impl Into<String>) -> Self {
        Self::Namespace { name: name.into() }
    }

    /// A component.
    pub fn component(namespace: impl Into<String>, component: impl Into<String>) -> Self {
        Self::Component { namespace: namespace.into(), component: component.into() }
    }

    /// An endpoint.
    pub fn endpoint(namespace: impl Into<String>, component: impl Into<String>, name: impl Into<String>) -> Self {
        let endpoint = EndpointId { namespace: namespace.into(), component: component.into(), name: name.into() };
        Self::Endpoint { endpoint }
    }

    /// The scope as the leading segments of a path.
    pub fn segments(&self) -> Vec<&str> {
        match self {
            Self::Namespace { name } => vec!["namespace", name],
            Self::Component { namespace, component } => vec!["namespace", namespace, "component", component],
            Self::Endpoint { endpoint } => {
                let EndpointId { namespace, component, name } = endpoint;
                vec!["namespace", namespace, "component", component, "endpoint", name]
            }
        }
    }

    /// The namespace that it lies in.
    pub fn namespace_name(&self) -> &str {
        match self {
            Self::Namespace { name } => name,
            Self::Component { namespace, .. } => namespace,
            Self::Endpoint { endpoint } => &endpoint.namespace,
        }
    }

    /// The component that it is or lies in.
    pub fn component_name(&self) -> Option<&str> {
        match self {
            Self::Namespace { .. } => None,
            Self::Component { component, .. } => Some(component),
            Self::Endpoint { endpoint } => Some(&endpoint.component),
        }
    }

    pub(super) fn path(&self, kind: &str, topic: &str) -> Result<Path> {
        let mut segments = self.segments();
        segments.extend(["topic", topic]);
        Path::new(kind, segments)
    }

    /// Every topic of exactly this scope: the literal ends the scope, so that no wider one matches a narrower one.
    pub(super) fn query(&self) -> Query {
        Query::path(self.segments()).segment("topic")
    }
}
