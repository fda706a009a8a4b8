//! What the pod has stored: from the resource to the values of its records.

use discovery_core::{Key, Result};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::Step;
use super::index::{Index, Subject, place, reference};
use super::pod::some;
use super::words::{Failure, Link};
use crate::config::{MODE_VARIABLE, Mode};
use crate::document::Document;
use crate::identity;
use crate::resource::{Resource, pod_owner};

impl Index<'_> {
    /// The links of the resource, up to the first that breaks, and the records that are shown.
    pub(super) fn records_of(
        &self,
        subject: &Subject<'_>,
        decode: &impl Fn(&Key, &[u8]) -> Result<()>,
    ) -> (Vec<Step>, Vec<Key>) {
        let Some(resource) = self.stored(subject.namespace, &subject.resource) else {
            return (vec![self.no_resource(subject)], Vec::new());
        };
        let since = resource.metadata.creation_timestamp.as_ref().map(|time| format!(", made {}", time.0));
        let text = format!("{} is there{}", subject.resource, since.unwrap_or_default());
        let mut steps = vec![Step::holds(Link::Resource, text)];
        match self.owner_step(subject, resource) {
            Ok(owner) => steps.push(owner),
            Err(broken) => {
                steps.push(broken);
                if self.join.shown(&subject.resource()).is_none() {
                    return (steps, Vec::new());
                }
            }
        }
        if let Some(collision) = self.collision(subject) {
            steps.push(collision);
            return (steps, Vec::new());
        }
        let (rest, readable) = self.entries(resource, decode);
        steps.extend(rest);
        let is_shown = |key: &Key| {
            let shown = self.join.shown(&subject.resource());
            shown.is_some_and(|document| document.entries.contains_key(key))
        };
        (steps, readable.into_iter().filter(is_shown).collect())
    }

    fn no_resource(&self, subject: &Subject<'_>) -> Step {
        let Subject { namespace, pod, resource, .. } = subject;
        if let Some(unread) = self.survey.resources.unread(namespace) {
            return match unread.is_absent {
                true => Step::breaks(
                    Link::Resource,
                    Failure::NoDefinition,
                    "the cluster does not know the resource type DynamoWorkerMetadata",
                    "`discovery crd | kubectl apply --server-side -f -`",
                ),
                false => Step::unread(Link::Resource, "dynamoworkermetadatas", unread),
            };
        }
        let uid = self.pod(subject).and_then(|pod| pod.metadata.uid.as_deref());
        let owned: Vec<&str> =
            self.owned_by(namespace, pod, uid).iter().map(|resource| place(&resource.metadata).1).collect();
        if !owned.is_empty() {
            let (theirs, ours) = match self.survey.mode {
                Mode::Pod => ("container", "pod"),
                Mode::Container => ("pod", "container"),
            };
            return Step::breaks(
                Link::Resource,
                Failure::OtherMode,
                format!("there is no resource {resource}, but {}: the pod registers in {theirs} mode", some(&owned)),
                format!(
                    "one mode for all: {MODE_VARIABLE}={theirs} here and in every reader, or {MODE_VARIABLE}={ours} in the pod"
                ),
            );
        }
        let (why, advice) = self.pod(subject).and_then(|pod| never_will(pod, subject.container)).unwrap_or_else(|| {
            let log = subject.container.map(|container| format!(" -c {container}")).unwrap_or_default();
            (
                "the process has not registered anything, has withdrawn it, or cannot write it".to_owned(),
                format!("`kubectl -n {namespace} logs {pod}{log}` says which; `discovery doctor` in the pod checks its permissions"),
            )
        });
        Step::breaks(Link::Resource, Failure::NoResource, format!("there is no resource {resource}: {why}"), advice)
    }

    /// Whether the resource belongs to the pod that is there, or whom others take for it.
    fn owner_step(&self, subject: &Subject<'_>, resource: &Resource) -> Result<Step, Step> {
        let Subject { namespace, pod: name, .. } = subject;
        let remove =
            format!("`kubectl -n {namespace} delete dwm {}`: a process that lives puts its own back", subject.resource);
        let Some(owner) = pod_owner(&resource.metadata) else {
            let text = "it belongs to no pod: readers pass over it, and nothing will collect it";
            return Err(Step::breaks(Link::Owner, Failure::NoOwner, text, remove));
        };
        let foreign =
            |text: String, advice: String| Err(Step::breaks(Link::Owner, Failure::AnotherOwner, text, advice));
        let Some(pod) = self.pod(subject) else {
            let text = format!("it belongs to pod {} of uid {}", owner.name, owner.uid);
            return match self.join.ready(&subject.resource()) {
                Some(ready) if **ready != owner.uid => {
                    let text = format!("{text}, and the one that is ready has {ready}");
                    foreign(text, format!("the process that is ready replaces it when it registers; else {remove}"))
                }
                Some(_) => Ok(Step::holds(Link::Owner, "it belongs to the pod that is ready")),
                None => Ok(Step::unknown(Link::Owner, text)),
            };
        };
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        if owner.uid == uid {
            return Ok(Step::holds(Link::Owner, "it belongs to this pod"));
        }
        if owner.name != *name {
            let text = format!("it belongs to pod {} of uid {}", owner.name, owner.uid);
            return foreign(
                text,
                format!("the process there says that it is {name}: check its POD_NAME and POD_UID; {remove}"),
            );
        }
        foreign(
            format!("it belongs to uid {}, and the pod has {uid}: an earlier pod of this name left it", owner.uid),
            format!("the new pod's process replaces it when it registers: `kubectl -n {namespace} logs {name}`"),
        )
    }

    fn collision(&self, subject: &Subject<'_>) -> Option<Step> {
        let own = subject.resource();
        let same: Vec<_> = self.join.of_one_id(&own).collect();
        if same.len() < 2 || !same.contains(&&own) {
            return None;
        }
        let others: Vec<String> =
            same.iter().filter(|one| ***one != own).map(|one| format!("{}/{}", one.namespace, one.name)).collect();
        let others: Vec<&str> = others.iter().map(String::as_str).collect();
        Some(Step::breaks(
            Link::Instance,
            Failure::IdCollision,
            format!("its name stands for the same instance id as {}: none of them is discovered", some(&others)),
            "give the pods other names: the id follows from the name alone, not from the namespace",
        ))
    }

    /// The links of what the resource holds, and the records that can be read.
    fn entries(&self, resource: &Resource, decode: &impl Fn(&Key, &[u8]) -> Result<()>) -> (Vec<Step>, Vec<Key>) {
        let set_right =
            "a process that lives sets its resource right within 10 s: is it stopped, or another implementation's?";
        let Some(Document { entries, unread }) = resource.data().map(|data| Document::of(&data)) else {
            let text = "spec.data is no map: readers that saw an earlier value keep that, others see nothing";
            return (vec![Step::breaks(Link::Entries, Failure::InvalidData, text, set_right)], Vec::new());
        };
        if entries.is_empty() && unread.is_empty() {
            let advice = "the process has withdrawn its records: it drains, or its application does not serve now";
            return (vec![Step::breaks(Link::Entries, Failure::NoEntries, "it holds no record", advice)], Vec::new());
        }
        let unread: Vec<&str> = unread.iter().map(String::as_str).collect();
        let unreadable = format!("{} of its entries name no record: {}", unread.len(), some(&unread));
        let advice = "whoever writes them should follow discovery_dynamo::layout; NVIDIA Dynamo's own readers may pass over the whole resource for one";
        if entries.is_empty() {
            return (vec![Step::breaks(Link::Entries, Failure::UnreadableEntries, unreadable, advice)], Vec::new());
        }
        let mut steps = vec![Step::holds(Link::Entries, count(entries.keys()))];
        if !unread.is_empty() {
            steps.push(Step::warns(Link::Entries, Failure::UnreadableEntries, unreadable, advice));
        }
        let own = reference(&resource.metadata);
        let holder = |key: &Key| self.join.holder(key).filter(|holder| **holder != own);
        for (key, holder) in entries.keys().filter_map(|key| Some((key, holder(key)?))) {
            steps.push(Step::warns(
                Link::Entries,
                Failure::KeyTaken,
                format!("{key} is shown from the resource {}/{}", holder.namespace, holder.name),
                "two processes use one id: let discovery choose it, or end one of them",
            ));
        }
        let (read, failed): (Vec<_>, Vec<_>) =
            entries.iter().map(|(key, value)| (key, decode(key, value))).partition(|(_, decoded)| decoded.is_ok());
        let failed: Vec<_> = failed.iter().filter_map(|(_, decoded)| decoded.as_ref().err()).collect();
        let advice = "readers skip them: correct the program that writes them";
        steps.push(match failed.first() {
            None => Step::holds(Link::Decoded, "all of them can be read"),
            Some(first) => {
                let text = format!("{} of {} values cannot be read, as {first}", failed.len(), entries.len());
                let step = if read.is_empty() { Step::breaks } else { Step::warns };
                step(Link::Decoded, Failure::Undecodable, text, advice)
            }
        });
        (steps, read.into_iter().map(|(key, _)| key).filter(|key| holder(key).is_none()).cloned().collect())
    }
}

/// How many records of each kind.
fn count<'a>(keys: impl Iterator<Item = &'a Key>) -> String {
    let mut counts = std::collections::BTreeMap::<&str, usize>::new();
    for key in keys {
        *counts.entry(key.kind()).or_default() += 1;
    }
    counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ")
}

/// What in a pod's manifest keeps its process from ever registering here, and what to change.
fn never_will(pod: &Pod, container: Option<&str>) -> Option<(String, String)> {
    let spec = pod.spec.as_ref()?;
    let of = |one: &&Container| container.is_none_or(|name| name == one.name);
    let containers: Vec<&Container> =
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).filter(of).collect();
    let has = |one: &Container, name: &str| one.env.iter().flatten().any(|env| env.name == name);
    let value = |name: &str| {
        let all = containers.iter().flat_map(|one| one.env.iter().flatten()).filter(|env| env.name == name);
        all.filter_map(|env| env.value.as_deref()).find(|value| !value.is_empty())
    };
    // What comes from elsewhere is not known here.
    if containers.iter().any(|one| one.env_from.as_ref().is_some_and(|from| !from.is_empty())) {
        return None;
    }
    let kubernetes = "set DYN_DISCOVERY_BACKEND=kubernetes in its container, as `discovery inject` does".to_owned();
    match value(discovery_core::BACKEND_VARIABLE) {
        Some("kubernetes" | "k8s") => {}
        Some(other) => return Some((format!("its container uses the backend {other}"), kubernetes)),
        None if value("ETCD_ENDPOINTS").is_some() => {
            return Some(("its container has ETCD_ENDPOINTS, which chooses etcd".to_owned(), kubernetes));
        }
        None => {}
    }
    if spec.automount_service_account_token == Some(false) {
        let text = "no token of its ServiceAccount is mounted into it".to_owned();
        return Some((text, "remove automountServiceAccountToken: false from the pod template".to_owned()));
    }
    let podinfo = spec.volumes.iter().flatten().any(|volume| {
        let projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        // A token and an authority are projected into every pod; its name and uid only where the manifest asks.
        let files = projected.filter_map(|source| source.downward_api.as_ref()).any(|api| api.items.is_some());
        volume.downward_api.is_some() || files
    });
    let named = ["POD_NAME", "POD_UID", "POD_NAMESPACE"];
    let complete = |one: &&Container| named.iter().all(|name| has(one, name));
    if !podinfo && !containers.iter().any(complete) {
        let missing: Vec<&str> =
            named.into_iter().filter(|name| !containers.iter().any(|one| has(one, name))).collect();
        let missing = if missing.is_empty() { named.to_vec() } else { missing };
        let text = format!("its container does not know which pod it is: {} missing", missing.join(", "));
        return Some((
            text,
            format!("add to the container `{}`, as `discovery inject` does", identity::manifest(&missing)),
        ));
    }
    None
}
