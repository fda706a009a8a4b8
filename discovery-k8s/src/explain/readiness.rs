//! Whether others are told that it is ready: from the Service to the uid, or in container mode from the pod's status.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::index::{Index, Subject, is_labelled, label, place, selects, unfulfilled};
use super::pod::{container_status, some, unready};
use super::words::{Failure, Link};
use super::{State, Step};
use crate::readiness::is_cut_off;
use crate::resource::DISCOVERY_LABEL;

/// An endpoint and the slice that it stands in.
type Held<'a> = (&'a EndpointSlice, &'a Endpoint);

impl Index<'_> {
    /// Pod mode. Stops at the first link that breaks.
    pub(super) fn readiness_of_pod(&self, subject: &Subject<'_>) -> Vec<Step> {
        let mut steps = vec![self.pod_step(subject)];
        let held = self.endpoints(subject, true);
        // Where a slice holds the pod already, what comes before is told and decides nothing.
        if held.is_empty() && is_broken(&steps) {
            return steps;
        }
        steps.extend(self.service_steps(subject));
        if held.is_empty() {
            if !is_broken(&steps) {
                steps.push(self.no_slice(subject));
            }
            return steps;
        }
        for step in steps.iter_mut().filter(|step| step.state == State::Breaks && step.link != Link::Pod) {
            step.state = State::Warns;
        }
        if is_broken(&steps) {
            return steps;
        }
        let slices: BTreeSet<&str> = held.iter().map(|(slice, _)| place(&slice.metadata).1).collect();
        let slices: Vec<&str> = slices.into_iter().collect();
        steps.push(Step::holds(Link::Slice, format!("held by {}", some(&slices))));
        let (ready, uids) = self.ready_step(subject, &held);
        let go_on = ready.state == State::Holds;
        steps.push(ready);
        if go_on {
            steps.push(self.uid_step(subject, &uids));
        }
        steps
    }

    /// Container mode: the pod's own object says everything.
    pub(super) fn readiness_of_container(&self, subject: &Subject<'_>) -> Vec<Step> {
        let mut steps = vec![self.pod_step(subject)];
        let Some(pod) = self.pod(subject) else { return steps };
        let terminates = pod.metadata.deletion_timestamp.is_some();
        // An address and a node are nothing that readers ask for here.
        if steps[0].state == State::Breaks && !terminates {
            steps[0].state = State::Warns;
        }
        if terminates {
            return steps;
        }
        let (namespace, name) = (subject.namespace, subject.pod);
        if !is_labelled(&pod.metadata) {
            let advice = format!(
                "put the label into the pod template, as `discovery inject` does, or \
                 `kubectl -n {namespace} label pod {name} {DISCOVERY_LABEL}=true --overwrite`"
            );
            steps.push(Step::breaks(Link::Label, Failure::PodWithoutLabel, label_text("the pod", pod), advice));
            return steps;
        }
        steps.push(Step::holds(Link::Label, format!("{DISCOVERY_LABEL}=true")));
        let container = subject.container.unwrap_or_default();
        steps.push(match container_status(pod, container) {
            None => Step::breaks(
                Link::Ready,
                Failure::NoSuchContainer,
                format!("the pod's status tells of no container {container:?}"),
                "check CONTAINER_NAME; a pod that has just been made has no status yet",
            ),
            Some(status) if status.ready && is_cut_off(pod) => Step::breaks(
                Link::Ready,
                Failure::NotReady,
                format!(
                    "container {container} was ready, and the pod is marked not ready since: its node is not heard of"
                ),
                "`kubectl get nodes` says which of them answer; the pod is deleted after some minutes, or goes on",
            ),
            Some(status) if status.ready => Step::holds(Link::Ready, format!("container {container} is ready")),
            Some(_) => Step::breaks(
                Link::Ready,
                Failure::NotReady,
                unready(pod, Some(container)),
                format!("`kubectl -n {namespace} logs {name} -c {container}` and its readiness probe say why"),
            ),
        });
        steps
    }

    /// Whether a Service asks for slices with the label that hold the pod.
    fn service_steps(&self, subject: &Subject<'_>) -> Vec<Step> {
        let namespace = subject.namespace;
        if let Some(unread) = self.survey.services.unread(namespace) {
            return vec![Step::unread(Link::Service, "services", unread)];
        }
        let (labelled, others): (Vec<&Service>, Vec<&Service>) =
            self.services(namespace).partition(|service| is_labelled(&service.metadata));
        let Some(pod) = self.pod(subject) else {
            let names: Vec<_> = labelled.iter().map(|service| name_of(service)).collect();
            let text = if names.is_empty() { "none has the label".to_owned() } else { some(&names) };
            return vec![Step::unknown(Link::Service, format!("{text}; which pods they select is not looked at"))];
        };
        let selecting = |services: &[&'_ Service]| -> Vec<String> {
            let selecting = services.iter().filter(|service| selects(service, pod));
            selecting.map(|service| name_of(service).to_owned()).collect()
        };
        let (good, without) = (selecting(&labelled), selecting(&others));
        if let Some(name) = good.first() {
            let found = labelled.iter().find(|service| publishes_not_ready(service) && selects(service, pod));
            let service = match found {
                Some(service) => publishes(namespace, name_of(service)),
                None => Step::holds(Link::Service, format!("{name} has the label")),
            };
            return vec![service, Step::holds(Link::Selector, format!("{name} selects the pod"))];
        }
        if let Some(name) = without.first() {
            let service = others.iter().find(|service| name_of(service) == name).map(|service| &service.metadata);
            let value = service.and_then(|metadata| label(metadata, DISCOVERY_LABEL));
            let has = value.map_or_else(|| "no such label".to_owned(), |value| format!("the value {value:?}"));
            return vec![Step::breaks(
                Link::Service,
                Failure::ServiceWithoutLabel,
                format!("{name} selects the pod, and is not labelled {DISCOVERY_LABEL}=true: it has {has}"),
                format!("`kubectl -n {namespace} label service {name} {DISCOVERY_LABEL}=true --overwrite`"),
            )];
        }
        let Some(nearest) = labelled.iter().min_by_key(|service| misses(service, pod)) else {
            return vec![Step::breaks(
                Link::Service,
                Failure::NoService,
                format!(
                    "no Service in namespace {namespace} is labelled {DISCOVERY_LABEL}=true, and none selects the pod"
                ),
                "apply one that selects the pod and has the label: `discovery inject` writes it for a Deployment",
            )];
        };
        let name = name_of(nearest);
        let wanted = unfulfilled(nearest, pod);
        let (key, value) = wanted.unwrap_or_default();
        let has = label(&pod.metadata, key).map_or_else(|| "no such label".to_owned(), |has| format!("{key}={has}"));
        let (text, advice) = match wanted {
            None => (
                format!("{name} has the label, and an empty selector"),
                format!("give {name} a selector, or make its EndpointSlices yourself"),
            ),
            Some(_) => (
                format!("{name} selects {key}={value}, and the pod has {has}"),
                format!("correct the selector of {name}, or the labels in the pod template"),
            ),
        };
        vec![
            Step::holds(Link::Service, format!("{name} has the label")),
            Step::breaks(Link::Selector, Failure::SelectsOthers, text, advice),
        ]
    }

    /// Why no slice with the label holds a pod that is selected and lives.
    fn no_slice(&self, subject: &Subject<'_>) -> Step {
        let namespace = subject.namespace;
        if let Some(unread) = self.survey.slices.unread(namespace) {
            return Step::unread(Link::Slice, "endpointslices", unread);
        }
        if let Some((slice, _)) = self.endpoints(subject, false).first() {
            let name = place(&slice.metadata).1;
            return Step::breaks(
                Link::Slice,
                Failure::SliceWithoutLabel,
                format!("{name} holds the pod, and is not labelled {DISCOVERY_LABEL}=true"),
                format!(
                    "the EndpointSlice controller copies the labels of a Service in a moment; a slice made by hand is \
                     labelled by hand: `kubectl -n {namespace} label endpointslice {name} {DISCOVERY_LABEL}=true --overwrite`"
                ),
            );
        }
        let address = self.pod(subject).and_then(|pod| pod.status.as_ref()).and_then(|status| status.pod_ip.as_deref());
        let holds = |slice: &&EndpointSlice| {
            let mut addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
            place(&slice.metadata).0 == namespace && addresses.any(|one| Some(one.as_str()) == address)
        };
        let anonymous = self.survey.slices.objects.iter().filter(|slice| is_labelled(&slice.metadata)).find(holds);
        match anonymous {
            Some(slice) => Step::breaks(
                Link::Slice,
                Failure::SliceNamesNoPod,
                format!("{} holds the pod's address, and no targetRef that names the pod", place(&slice.metadata).1),
                "give the endpoint a targetRef with the pod's kind, name and uid, or let a Service's selector make the slice",
            ),
            None => Step::breaks(
                Link::Slice,
                Failure::NotInSlice,
                "no EndpointSlice holds the pod, although a Service selects it",
                "in a moment it should; else look at the log of kube-controller-manager, and whether the pod's node \
                 exists: `kubectl get nodes`",
            ),
        }
    }

    /// Whether a slice says that the pod is ready, and the uids of those that are.
    fn ready_step<'a>(&self, subject: &Subject<'_>, held: &[Held<'a>]) -> (Step, BTreeSet<&'a str>) {
        let mut claims: BTreeMap<&str, Vec<Held<'a>>> = BTreeMap::new();
        for (slice, endpoint) in held {
            let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref()).unwrap_or_default();
            claims.entry(uid).or_default().push((slice, endpoint));
        }
        let is_ready = |(_, endpoint): &Held<'_>| state(endpoint, self.survey.unknown_is_ready) == Said::Ready;
        let terminates = |(_, endpoint): &Held<'_>| is_terminating(endpoint);
        let all = claims.iter();
        let ready = all.filter(|(_, held)| held.iter().any(is_ready) && !held.iter().any(terminates));
        let ready: BTreeSet<&str> = ready.map(|(uid, _)| *uid).collect();
        if !ready.is_empty() {
            return (Step::holds(Link::Ready, "the slice says that it is ready"), ready);
        }
        // What is said of this pod, or else of whichever there is.
        let own = self.pod(subject).and_then(|pod| pod.metadata.uid.as_deref());
        let said = own.and_then(|uid| claims.get(uid)).or_else(|| claims.values().next());
        let said = said.map(Vec::as_slice).unwrap_or_default();
        (self.why_not_ready(subject, said), ready)
    }

    fn why_not_ready(&self, subject: &Subject<'_>, said: &[Held<'_>]) -> Step {
        let (namespace, name) = (subject.namespace, subject.pod);
        let of = |wanted: fn(&Endpoint) -> bool| {
            said.iter().find(|(_, endpoint)| wanted(endpoint)).map(|(slice, _)| place(&slice.metadata).1)
        };
        if let Some(slice) = of(is_terminating) {
            return Step::breaks(
                Link::Ready,
                Failure::Terminating,
                format!("{slice} says that it is terminating"),
                "nothing, if that was meant: what terminates is not discovered",
            );
        }
        if let Some(slice) = of(|endpoint| state(endpoint, false) == Said::Nothing) {
            return Step::breaks(
                Link::Ready,
                Failure::ReadinessUnknown,
                format!("{slice} does not say whether it is ready, which counts as not ready"),
                "whoever makes the slice should set `conditions.ready`; or set DYN_DISCOVERY_KUBERNETES_UNKNOWN_READINESS=ready",
            );
        }
        let why = self.pod(subject).map(|pod| unready(pod, None)).filter(|why| !why.is_empty());
        Step::breaks(
            Link::Ready,
            Failure::NotReady,
            why.unwrap_or_else(|| "the slice says that it is not ready".to_owned()),
            format!(
                "`kubectl -n {namespace} describe pod {name}` shows the probe's answers, `kubectl -n {namespace} logs {name}` the rest"
            ),
        )
    }

    fn uid_step(&self, subject: &Subject<'_>, ready: &BTreeSet<&str>) -> Step {
        let uids: Vec<&str> = ready.iter().copied().collect();
        let [uid] = uids.as_slice() else {
            return Step::breaks(
                Link::Uid,
                Failure::TwoUids,
                format!("slices say that {} pods of this name are ready, of uid {}", uids.len(), uids.join(" and ")),
                "which of them is outdated cannot be known, so neither is discovered: if it lasts, delete the slice that \
                 is made by hand, or look at the log of kube-controller-manager",
            );
        };
        match self.pod(subject).map(|pod| pod.metadata.uid.as_deref().unwrap_or_default()) {
            Some(own) if own != *uid => Step::breaks(
                Link::Uid,
                Failure::AnotherUid,
                format!("the slice speaks of uid {uid}, and the pod has {own}: an earlier pod had this name"),
                "in a moment the EndpointSlice controller corrects it; a slice made by hand names its pod by hand",
            ),
            Some(_) => Step::holds(Link::Uid, "it is this pod"),
            None if uid.is_empty() => Step::breaks(
                Link::Uid,
                Failure::SliceNamesNoPod,
                "the endpoint's targetRef has no uid",
                "whoever makes the slice should set it",
            ),
            None => Step::unknown(Link::Uid, format!("the slice speaks of uid {uid}, and the pod cannot be read")),
        }
    }
}

fn is_broken(steps: &[Step]) -> bool {
    steps.iter().any(|step| step.state == State::Breaks)
}

fn name_of(service: &Service) -> &str {
    place(&service.metadata).1
}

fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false)
}

fn publishes(namespace: &str, name: &str) -> Step {
    let patch = r#"{"spec":{"publishNotReadyAddresses":false}}"#;
    Step::warns(
        Link::Service,
        Failure::PublishesNotReady,
        format!("{name} has the label and publishNotReadyAddresses: its pods are discovered before they are ready"),
        format!(
            "use another Service for that, without the label, or `kubectl -n {namespace} patch service {name} -p '{patch}'`"
        ),
    )
}

/// How many terms of the selector the pod does not fulfil. An empty selector is the farthest from selecting it.
fn misses(service: &Service, pod: &Pod) -> usize {
    let selector =
        service.spec.as_ref().and_then(|spec| spec.selector.as_ref()).filter(|selector| !selector.is_empty());
    let missed = |selector: &BTreeMap<String, String>| {
        selector.iter().filter(|(name, value)| label(&pod.metadata, name) != Some(value.as_str())).count()
    };
    selector.map_or(usize::MAX, missed)
}

fn label_text(what: &str, pod: &Pod) -> String {
    match label(&pod.metadata, DISCOVERY_LABEL) {
        Some(value) => format!("{what} has {DISCOVERY_LABEL}={value:?}, and true is what counts"),
        None => format!("{what} has no label {DISCOVERY_LABEL}=true"),
    }
}

#[derive(PartialEq, Eq)]
enum Said {
    Ready,
    NotReady,
    Nothing,
}

fn state(endpoint: &Endpoint, unknown_is_ready: bool) -> Said {
    match endpoint.conditions.as_ref().and_then(|conditions| conditions.ready) {
        Some(true) => Said::Ready,
        Some(false) => Said::NotReady,
        None if unknown_is_ready => Said::Ready,
        None => Said::Nothing,
    }
}

fn is_terminating(endpoint: &Endpoint) -> bool {
    endpoint.conditions.as_ref().and_then(|conditions| conditions.terminating).unwrap_or(false)
}
