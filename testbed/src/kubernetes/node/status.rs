//! What is said of a pod and its containers?

use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

/// Where one container stands.
#[derive(Clone, Debug, Default)]
pub(super) struct ContainerState {
    pub(super) restarts: u32,
    pub(super) ready: bool,
    pub(super) now: Now,
    pub(super) before: Option<Ended>,
}

#[derive(Clone, Debug)]
pub(super) enum Now {
    Waiting { reason: &'static str, message: String },
    Running { pid: i32, since: Time },
    Ended(Ended),
}

impl Default for Now {
    fn default() -> Self {
        Self::Waiting { reason: "ContainerCreating", message: String::new() }
    }
}

/// How a process came to its end.
#[derive(Clone, Debug)]
pub(super) struct Ended {
    pub(super) pid: i32,
    pub(super) code: i32,
    pub(super) since: Time,
    pub(super) at: Time,
    pub(super) message: String,
}

/// Where all containers of a pod stand, in the order of the manifest.
#[derive(Clone, Debug)]
pub(super) struct States {
    containers: Vec<ContainerState>,
    /// Since when the pod is ready, or is not.
    since: Time,
}

pub(super) fn now() -> Time {
    Time(Timestamp::now())
}

impl States {
    pub(super) fn new(containers: usize) -> Self {
        Self { containers: vec![ContainerState::default(); containers], since: now() }
    }

    pub(super) fn change(&mut self, container: usize, change: impl FnOnce(&mut ContainerState)) {
        let before = self.ready();
        change(&mut self.containers[container]);
        if self.ready() != before {
            self.since = now();
        }
    }

    pub(super) fn all(&mut self, mut change: impl FnMut(&mut ContainerState)) {
        (0..self.containers.len()).for_each(|container| self.change(container, &mut change));
    }

    fn ready(&self) -> bool {
        self.containers.iter().all(|container| container.ready)
    }

    /// The phase. One whose containers will run again is `Running` even while none does.
    fn phase(&self) -> &'static str {
        let ended = |state: &ContainerState| match &state.now {
            Now::Ended(ended) => Some(ended.code),
            _ => None,
        };
        let never_ran = |state: &ContainerState| matches!(state.now, Now::Waiting { .. }) && state.before.is_none();
        let codes: Option<Vec<i32>> = self.containers.iter().map(ended).collect();
        match codes {
            Some(codes) if codes.iter().all(|&code| code == 0) => "Succeeded",
            Some(_) => "Failed",
            None if self.containers.iter().any(never_ran) => "Pending",
            None => "Running",
        }
    }

    /// The status of the pod, to be merged into what is there.
    pub(super) fn status(&self, pod: &Pod, address: Option<Ipv4Addr>) -> Value {
        let ready = self.ready();
        let since = self.since.clone();
        let condition = |kind: &str, holds: bool, since: &Time| json!({ "type": kind, "status": if holds { "True" } else { "False" }, "lastTransitionTime": since });
        let created = pod.metadata.creation_timestamp.clone().unwrap_or_else(now);
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers).zip(&self.containers);
        let containers: Vec<Value> = containers
            .map(|(container, state)| {
                let pid = match &state.now {
                    Now::Running { pid, .. } => Some(*pid),
                    Now::Ended(Ended { pid, .. }) => Some(*pid),
                    Now::Waiting { .. } => state.before.as_ref().map(|before| before.pid),
                };
                json!({
                    "name": container.name,
                    "image": container.image,
                    "imageID": container.image,
                    // What runs it, and its process here.
                    "containerID": pid.map(|pid| format!("process://{pid}")),
                    "restartCount": state.restarts,
                    "ready": state.ready,
                    "started": matches!(state.now, Now::Running { .. }),
                    "state": state.now.told(),
                    "lastState": state.before.as_ref().map_or_else(|| json!({}), |before| json!({ "terminated": before.told() })),
                })
            })
            .collect();
        let address = address.map(|address| address.to_string());
        json!({
            "phase": if address.is_some() { self.phase() } else { "Pending" },
            "hostIP": Ipv4Addr::LOCALHOST.to_string(),
            "podIP": address,
            "podIPs": address.iter().map(|ip| json!({ "ip": ip })).collect::<Vec<_>>(),
            "startTime": created,
            "conditions": [
                condition("PodScheduled", true, &created),
                condition("Initialized", true, &created),
                condition("ContainersReady", ready, &since),
                condition("Ready", ready, &since),
            ],
            "containerStatuses": containers,
        })
    }
}

impl Now {
    /// All three are named, so that a merge takes away what was there before.
    fn told(&self) -> Value {
        let mut told = json!({ "waiting": null, "running": null, "terminated": null });
        match self {
            Self::Waiting { reason, message } => told["waiting"] = json!({ "reason": reason, "message": message }),
            Self::Running { since, .. } => told["running"] = json!({ "startedAt": since }),
            Self::Ended(ended) => told["terminated"] = ended.told(),
        }
        told
    }
}

impl Ended {
    fn told(&self) -> Value {
        json!({
            "exitCode": self.code,
            "reason": if self.code == 0 { "Completed" } else { "Error" },
            "message": self.message,
            "startedAt": self.since,
            "finishedAt": self.at,
            "containerID": format!("process://{}", self.pid),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32) -> Now {
        Now::Ended(Ended { pid: 1, code, since: now(), at: now(), message: String::new() })
    }

    #[test]
    fn a_pod_is_what_its_containers_are() {
        let mut states = States::new(2);
        assert_eq!((states.phase(), states.ready()), ("Pending", false));
        states.all(|state| {
            state.now = Now::Running { pid: 1, since: now() };
            state.ready = true;
        });
        assert_eq!((states.phase(), states.ready()), ("Running", true));
        let since = states.since.clone();
        states.change(0, |state| state.restarts += 1);
        assert_eq!(states.since, since);
        states.change(0, |state| (state.now, state.ready) = (ended(137), false));
        assert_eq!((states.phase(), states.ready()), ("Running", false));
        assert!(states.since > since);
        states.change(1, |state| state.now = ended(0));
        assert_eq!(states.phase(), "Failed");
        states.all(|state| state.now = ended(0));
        assert_eq!(states.phase(), "Succeeded");
    }

    #[test]
    fn a_pod_has_no_phase_of_its_own_before_it_has_an_address() {
        let pod = Pod::default();
        assert_eq!(States::new(0).status(&pod, None)["phase"], "Pending");
        let status = States::new(0).status(&pod, Some(Ipv4Addr::new(10, 1, 2, 3)));
        assert_eq!((&status["podIP"], &status["podIPs"][0]["ip"]), (&json!("10.1.2.3"), &json!("10.1.2.3")));
    }
}
