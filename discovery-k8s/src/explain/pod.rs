//! What a pod's own object says: whether it lives, and why it is not ready.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodCondition};

use super::Step;
use super::index::{Index, Subject};
use super::words::{Failure, Link};

impl Index<'_> {
    /// Whether the pod can be in an EndpointSlice at all.
    pub(super) fn pod_step(&self, subject: &Subject<'_>) -> Step {
        let Subject { namespace, pod: name, .. } = subject;
        match self.pod(subject) {
            Some(pod) => living(pod, namespace),
            None => match self.survey.pods.unread(namespace) {
                Some(unread) => Step::unknown(Link::Pod, unread.error.to_string()),
                None => self.missing(subject, namespace, name),
            },
        }
    }

    fn missing(&self, subject: &Subject<'_>, namespace: &str, name: &str) -> Step {
        let text = format!("there is no pod {name} in namespace {namespace}");
        let like = self.pods_like(namespace, name);
        let advice = if self.stored(namespace, &subject.resource).is_some() {
            format!(
                "its resource is left behind: the garbage collector removes it within a minute, and else \
                 `kubectl -n {namespace} delete dwm {}`",
                subject.resource
            )
        } else if like.is_empty() {
            "check the name and the namespace (-n)".to_owned()
        } else {
            format!("name one that is there: {}", some(&like))
        };
        Step::breaks(Link::Pod, Failure::NoSuchPod, text, advice)
    }
}

/// The first few of a list.
pub(super) fn some(names: &[&str]) -> String {
    const SHOWN: usize = 5;
    let more = names.len().saturating_sub(SHOWN);
    let shown = names[..names.len() - more].join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

fn living(pod: &Pod, namespace: &str) -> Step {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let spec = pod.spec.as_ref();
    let status = pod.status.as_ref();
    let breaks = |failure, text, advice| Step::breaks(Link::Pod, failure, text, advice);
    if let Some(since) = &pod.metadata.deletion_timestamp {
        let text = format!("it is being deleted, due {}", since.0);
        return breaks(
            Failure::Terminating,
            text,
            "nothing, if that was meant: what terminates is not discovered".to_owned(),
        );
    }
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    if matches!(phase, "Succeeded" | "Failed") {
        let reason = status.and_then(|status| status.reason.as_deref()).map(|reason| format!(" ({reason})"));
        let text = format!("it has ended: {phase}{}", reason.unwrap_or_default());
        let advice =
            format!("`kubectl -n {namespace} delete pod {name}`, so that its Deployment or StatefulSet makes another");
        return breaks(Failure::PodFinished, text, advice);
    }
    let Some(node) = spec.and_then(|spec| spec.node_name.as_deref()) else {
        let why = condition(pod, "PodScheduled").and_then(|condition| condition.message.as_deref());
        let text = format!("no node has been found for it{}", why.map(|why| format!(": {why}")).unwrap_or_default());
        return breaks(
            Failure::NotScheduled,
            text,
            format!("`kubectl -n {namespace} describe pod {name}` says what it waits for"),
        );
    };
    let Some(address) = status.and_then(|status| status.pod_ip.as_deref()) else {
        let why = unready(pod, None);
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        let text = format!("it has no address yet on {node}{why}");
        return breaks(
            Failure::NoAddress,
            text,
            format!("`kubectl -n {namespace} describe pod {name}` says what fails"),
        );
    };
    let uid = pod.metadata.uid.as_deref().unwrap_or_default();
    Step::holds(Link::Pod, format!("{phase} on {node} with address {address}, uid {uid}"))
}

pub(super) fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// What a pod's status says of a container, a sidecar among them.
pub(super) fn container_status<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    statuses(pod).find(|status| status.name == container)
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    status
        .into_iter()
        .flat_map(|status| status.container_statuses.iter().chain(&status.init_container_statuses).flatten())
}

/// Why the pod, or one container of it, is not ready, as far as its status tells. Empty where it tells nothing.
pub(super) fn unready(pod: &Pod, container: Option<&str>) -> String {
    let of_interest = statuses(pod).filter(|status| {
        container.is_none_or(|name| name == status.name) && !status.ready && !has_done_its_part(status)
    });
    let mut told: Vec<String> = of_interest.map(why).collect();
    if container.is_none() {
        let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
        let closed = gates
            .filter(|gate| condition(pod, &gate.condition_type).is_none_or(|condition| condition.status != "True"));
        told.extend(closed.map(|gate| format!("the readiness gate {} is not True", gate.condition_type)));
    }
    told.join("; ")
}

/// An init container that has ended well.
fn has_done_its_part(status: &ContainerStatus) -> bool {
    let ended = status.state.as_ref().and_then(|state| state.terminated.as_ref());
    ended.is_some_and(|ended| ended.exit_code == 0)
}

fn why(status: &ContainerStatus) -> String {
    let state = status.state.as_ref();
    let waiting = state.and_then(|state| state.waiting.as_ref());
    let ended = state.and_then(|state| state.terminated.as_ref());
    let message = |text: Option<&str>| text.map(|text| format!(" ({text})")).unwrap_or_default();
    let what = match (waiting, ended) {
        (Some(waiting), _) => {
            format!(
                "waits: {}{}",
                waiting.reason.as_deref().unwrap_or("no reason told"),
                message(waiting.message.as_deref())
            )
        }
        (_, Some(ended)) => format!("ended with code {}{}", ended.exit_code, message(ended.reason.as_deref())),
        _ if status.started == Some(false) => "has not passed its startup probe".to_owned(),
        _ => "runs, and its readiness probe does not pass".to_owned(),
    };
    let restarts = match status.restart_count {
        0 => String::new(),
        1 => ", restarted once".to_owned(),
        count => format!(", restarted {count} times"),
    };
    format!("container {} {what}{restarts}", status.name)
}
