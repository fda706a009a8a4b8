//! What was read, by name; and the join of it, which has the last word.

use std::collections::{BTreeMap, BTreeSet};

use discovery_dynamo::layout;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::config::Mode;
use crate::join::{Join, Object, Side};
use crate::readiness::{self, Ref};
use crate::resource::{DISCOVERY_LABEL, Resource, pod_owner};
use crate::source;
use crate::survey::Survey;

/// What is explained.
#[derive(Clone, Debug)]
pub(super) struct Subject<'a> {
    pub(super) namespace: &'a str,
    pub(super) pod: &'a str,
    pub(super) container: Option<&'a str>,
    /// The name that its resource has, or would have.
    pub(super) resource: String,
}

impl Subject<'_> {
    pub(super) fn resource(&self) -> Ref {
        Ref::new(self.namespace, &self.resource)
    }
}

/// The survey, by namespace and name.
pub(super) struct Index<'a> {
    pub(super) survey: &'a Survey,
    pub(super) join: Join,
    pods: BTreeMap<(&'a str, &'a str), &'a Pod>,
    resources: BTreeMap<(&'a str, &'a str), &'a Resource>,
    /// The endpoints that name each pod, with their slices.
    endpoints: BTreeMap<(&'a str, &'a str), Vec<(&'a EndpointSlice, &'a Endpoint)>>,
}

impl<'a> Index<'a> {
    pub(super) fn new(survey: &'a Survey) -> Self {
        let mut join = Join::default();
        let mut index = Self {
            survey,
            pods: survey.pods.objects.iter().map(|pod| (place(&pod.metadata), pod)).collect(),
            resources: survey.resources.objects.iter().map(|one| (place(&one.metadata), one)).collect(),
            endpoints: BTreeMap::new(),
            join: Join::default(),
        };
        for resource in &survey.resources.objects {
            join.set(Side::Records, &reference(&resource.metadata), Some(Object::Records(source::stored(resource))));
        }
        for slice in &survey.slices.objects {
            for endpoint in &slice.endpoints {
                let target = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"));
                if let Some(name) = target.and_then(|target| target.name.as_deref()) {
                    let at = (place(&slice.metadata).0, name);
                    index.endpoints.entry(at).or_default().push((slice, endpoint));
                }
            }
        }
        match survey.mode {
            Mode::Pod => {
                for slice in survey.slices.objects.iter().filter(|slice| is_labelled(&slice.metadata)) {
                    let claims = readiness::of_slice(slice, survey.unknown_is_ready);
                    join.set(Side::Readiness, &reference(&slice.metadata), Some(Object::Ready(claims)));
                }
            }
            Mode::Container => {
                for pod in survey.pods.objects.iter().filter(|pod| is_labelled(&pod.metadata)) {
                    let claims = readiness::of_pod(pod);
                    join.set(Side::Readiness, &reference(&pod.metadata), Some(Object::Ready(claims)));
                }
            }
        }
        index.join = join;
        index
    }

    pub(super) fn pod(&self, subject: &Subject<'_>) -> Option<&'a Pod> {
        self.pods.get(&(subject.namespace, subject.pod)).copied()
    }

    pub(super) fn stored(&self, namespace: &str, name: &str) -> Option<&'a Resource> {
        self.resources.get(&(namespace, name)).copied()
    }

    /// The endpoints that name the pod, in slices with the label or in the others.
    pub(super) fn endpoints(&self, subject: &Subject<'_>, labelled: bool) -> Vec<(&'a EndpointSlice, &'a Endpoint)> {
        let all = self.endpoints.get(&(subject.namespace, subject.pod)).into_iter().flatten();
        all.filter(|(slice, _)| is_labelled(&slice.metadata) == labelled).copied().collect()
    }

    /// The Services of a namespace that make EndpointSlices by a selector.
    pub(super) fn services(&self, namespace: &str) -> impl Iterator<Item = &'a Service> {
        let selecting = |service: &&Service| {
            let spec = service.spec.as_ref();
            spec.is_some_and(|spec| spec.type_.as_deref() != Some("ExternalName") && spec.selector.is_some())
        };
        let namespace = namespace.to_owned();
        let here = move |service: &&Service| place(&service.metadata).0 == namespace;
        self.survey.services.objects.iter().filter(here).filter(selecting)
    }

    /// The pods whose names begin so.
    pub(super) fn pods_like(&self, namespace: &str, start: &str) -> Vec<&'a str> {
        let here = self.pods.keys().filter(|(place, name)| *place == namespace && name.starts_with(start));
        here.map(|(_, name)| *name).collect()
    }

    /// The resources that belong to a pod of this name and uid, under whatever name.
    pub(super) fn owned_by(&self, namespace: &str, pod: &str, uid: Option<&str>) -> Vec<&'a Resource> {
        let owned = |resource: &&&Resource| {
            pod_owner(&resource.metadata)
                .is_some_and(|owner| owner.name == pod && uid.is_none_or(|uid| owner.uid == uid))
        };
        let here = self.resources.range((namespace, "")..).take_while(|((place, _), _)| *place == namespace);
        here.map(|(_, resource)| resource).filter(owned).copied().collect()
    }

    /// Every namespace that has a pod or a resource of this name; where none has, the first that was looked at.
    pub(super) fn subjects_of(&self, pod: &'a str) -> Vec<Subject<'a>> {
        let named = |(namespace, name): &(&'a str, &'a str)| (*name == pod).then_some(*namespace);
        let mut namespaces: BTreeSet<&str> =
            self.pods.keys().filter_map(named).chain(self.resources.keys().filter_map(named)).collect();
        namespaces.extend(self.endpoints.keys().filter_map(named));
        if namespaces.is_empty() {
            namespaces.insert(self.survey.namespaces.first().map_or("", String::as_str));
        }
        namespaces.into_iter().flat_map(|namespace| self.parts(namespace, pod)).collect()
    }

    /// Every pod that takes part.
    pub(super) fn subjects(&self) -> Vec<Subject<'a>> {
        let mut pods: BTreeSet<(&str, &str)> = BTreeSet::new();
        for (&at, pod) in &self.pods {
            let is_selected = || {
                let services = self.services(at.0).filter(|service| is_labelled(&service.metadata));
                services.into_iter().any(|service| selects(service, pod))
            };
            if is_labelled(&pod.metadata) || (self.survey.mode == Mode::Pod && is_selected()) {
                pods.insert(at);
            }
        }
        if self.survey.mode == Mode::Pod {
            let labelled =
                |endpoints: &&Vec<(&EndpointSlice, _)>| endpoints.iter().any(|(slice, _)| is_labelled(&slice.metadata));
            pods.extend(self.endpoints.iter().filter(|(_, all)| labelled(all)).map(|(at, _)| *at));
        }
        for (&(namespace, name), resource) in &self.resources {
            // Under its owner's name: it may be a container's. Without an owner its own name is the only one there is.
            let owner = pod_owner(&resource.metadata).map(|owner| owner.name.as_str());
            pods.insert((namespace, owner.filter(|owner| belongs(name, owner)).unwrap_or(name)));
        }
        pods.into_iter().flat_map(|(namespace, pod)| self.parts(namespace, pod)).collect()
    }

    /// The instances of a pod: itself, or its containers.
    fn parts(&self, namespace: &'a str, pod: &'a str) -> Vec<Subject<'a>> {
        let whole = Subject { namespace, pod, container: None, resource: pod.to_owned() };
        if self.survey.mode == Mode::Pod {
            return vec![whole];
        }
        let part = |container: &'a str| {
            let resource = layout::kubernetes_resource_name(pod, Some(container)).ok()?;
            Some(Subject { container: Some(container), resource, ..whole.clone() })
        };
        let spec = self.pod(&whole).and_then(|pod| pod.spec.as_ref());
        let containers = spec.into_iter().flat_map(|spec| {
            // Of the init containers those that go on running.
            let sidecars = spec.init_containers.iter().flatten();
            let sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
            spec.containers.iter().chain(sidecars)
        });
        let takes_part = |part: &Subject<'_>, env: &[k8s_openapi::api::core::v1::EnvVar]| {
            self.stored(namespace, &part.resource).is_some() || env.iter().any(|env| env.name == "CONTAINER_NAME")
        };
        let parts: Vec<(bool, Subject<'_>)> = containers
            .filter_map(|container| {
                let part = part(&container.name)?;
                Some((takes_part(&part, container.env.as_deref().unwrap_or_default()), part))
            })
            .collect();
        let some = parts.iter().any(|(takes_part, _)| *takes_part);
        let mut parts: Vec<_> =
            parts.into_iter().filter(|(takes_part, _)| *takes_part || !some).map(|(_, part)| part).collect();
        // Resources of containers that the pod does not have, or whose pod is gone.
        for resource in self.owned_by(namespace, pod, None) {
            let name = place(&resource.metadata).1;
            if parts.iter().all(|part| part.resource != name)
                && let Some(container) = name.strip_prefix(pod).and_then(|rest| rest.strip_prefix('-'))
            {
                parts.extend(part(container));
            }
        }
        if parts.is_empty() { vec![whole] } else { parts }
    }
}

/// Whether a resource of this name can be the pod's or one of its containers'.
fn belongs(resource: &str, pod: &str) -> bool {
    resource.strip_prefix(pod).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Namespace and name.
pub(super) fn place(metadata: &ObjectMeta) -> (&str, &str) {
    (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref().unwrap_or_default())
}

pub(super) fn reference(metadata: &ObjectMeta) -> Ref {
    let (namespace, name) = place(metadata);
    Ref::new(namespace, name)
}

pub(super) fn label<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(name).map(String::as_str)
}

/// Whether it has the discovery label.
pub(super) fn is_labelled(metadata: &ObjectMeta) -> bool {
    label(metadata, DISCOVERY_LABEL) == Some("true")
}

/// The first term of a Service's selector that the pod does not fulfil.
pub(super) fn unfulfilled<'a>(service: &'a Service, pod: &Pod) -> Option<(&'a str, &'a str)> {
    let selector = service.spec.as_ref()?.selector.as_ref()?;
    let is_unfulfilled = |(name, value): &(&String, &String)| label(&pod.metadata, name) != Some(value.as_str());
    selector.iter().find(is_unfulfilled).map(|(name, value)| (name.as_str(), value.as_str()))
}

/// Whether a Service selects a pod. One without a selector selects none.
pub(super) fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| !selector.is_empty()) && unfulfilled(service, pod).is_none()
}
