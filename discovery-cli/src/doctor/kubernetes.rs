//! What can go wrong with a Kubernetes cluster and the pods in it. Reads only.

use std::collections::BTreeMap;

use discovery_core::{Environment, Error, ErrorKind};
use discovery_k8s::{Cluster, Definition, Diagnosis, Explanation, Failure, Link, Mode, Permission, Purpose, Step};

use super::{Finding, decode};

/// How many names a line has.
const NAMES: usize = 3;

pub(super) async fn look() -> Vec<Finding> {
    let cluster = match Cluster::connect(&Environment::process()).await {
        Ok(cluster) => cluster,
        Err(error) => return vec![Finding::wrong("cluster", error.to_string())],
    };
    let diagnosis = cluster.diagnose().await;
    let Ok(_) = diagnosis.version else { return Vec::new() };
    let mut findings = set_up(&diagnosis);
    let survey = cluster.survey(None).await;
    match survey.unreadable() {
        Some(error) => findings.push(Finding::poor("pods", format!("cannot be looked at: {error}"))),
        None => {
            let all = survey.explain_all(decode);
            findings.extend(own(&diagnosis, &all));
            findings.extend(pods(&all));
        }
    }
    findings
}

/// What a process needs of the cluster.
fn set_up(diagnosis: &Diagnosis) -> Vec<Finding> {
    let mut findings = vec![definition(diagnosis), identity(diagnosis)];
    findings.extend(permissions(diagnosis));
    findings.push(policy(diagnosis));
    findings
}

fn definition(diagnosis: &Diagnosis) -> Finding {
    const WHAT: &str = "definition";
    match &diagnosis.definition {
        Err(error) => Finding::poor(WHAT, error.to_string()),
        Ok(Definition::Absent) => Finding::wrong(
            WHAT,
            "the cluster does not know DynamoWorkerMetadata: `discovery crd | kubectl apply --server-side -f -`",
        ),
        Ok(Definition::Atomic) => Finding::good(WHAT, "DynamoWorkerMetadata as `discovery crd` prints it"),
        Ok(Definition::Granular) => Finding::good(
            WHAT,
            "DynamoWorkerMetadata as NVIDIA Dynamo defines it: works; with that of `discovery crd` objects take half the space",
        ),
        Ok(Definition::Closed) => Finding::wrong(
            WHAT,
            "DynamoWorkerMetadata is defined so that records are lost when they are written (spec.data lacks \
             x-kubernetes-preserve-unknown-fields): `discovery crd | kubectl apply --server-side --force-conflicts -f -`",
        ),
    }
}

/// Missing, it hinders nobody who only watches.
fn identity(diagnosis: &Diagnosis) -> Finding {
    let environment = Environment::process();
    let is_told = |name: &&str| environment.is_set(name);
    if let Some(error) = no_such_pod(diagnosis) {
        return Finding::wrong("identity", error.message());
    }
    match &diagnosis.identity {
        Err(_) if !["KUBERNETES_SERVICE_HOST", "POD_NAME", "POD_UID", "POD_NAMESPACE"].iter().any(is_told) => {
            Finding::good(
                "identity",
                "none, outside of a pod: to register from here set POD_NAME, POD_UID and POD_NAMESPACE to those of one",
            )
        }
        Ok(identity) => Finding::good(
            "identity",
            format!(
                "pod {} of uid {} in namespace {}, which registers as {} with instance id {}",
                identity.pod,
                identity.uid,
                identity.namespace,
                identity.resource,
                identity.instance()
            ),
        ),
        Err(error) => Finding::poor("identity", error.to_string()),
    }
}

/// Why no registration can be made with an identity that is complete.
fn no_such_pod(diagnosis: &Diagnosis) -> Option<&Error> {
    let error = diagnosis.pod.as_ref().err()?;
    (diagnosis.identity.is_ok() && error.kind() == ErrorKind::InvalidConfig).then_some(error)
}

/// The namespace to register in.
fn own_namespace(diagnosis: &Diagnosis) -> Option<&str> {
    let registering = diagnosis.permissions.iter().find(|permission| permission.purpose == Purpose::Register);
    registering?.namespace.as_deref()
}

/// The command that lets workers of the own namespace do what theirs do, as their mode needs it.
fn rbac(diagnosis: &Diagnosis) -> String {
    let namespace = own_namespace(diagnosis).unwrap_or("NAMESPACE");
    let mode = if diagnosis.mode == Mode::Container { " --mode container" } else { "" };
    format!("`discovery rbac --namespace {namespace}{mode} | kubectl apply -f -`")
}

/// One finding for each purpose.
fn permissions(diagnosis: &Diagnosis) -> Vec<Finding> {
    let of = |purpose: Purpose, what: &'static str| {
        let of: Vec<&Permission> =
            diagnosis.permissions.iter().filter(|permission| permission.purpose == purpose).collect();
        if let Some(error) = of.iter().find_map(|permission| permission.allowed.as_ref().err()) {
            return Finding::poor(what, format!("cannot be looked at: {error}"));
        }
        let missing: Vec<&&Permission> =
            of.iter().filter(|permission| !matches!(permission.allowed, Ok(true))).collect();
        let Some(first) = missing.first() else {
            return Finding::good(
                what,
                format!("allowed {}: {}", place(of[0].namespace.as_deref()), verbs(of.iter().copied())),
            );
        };
        let place = place(first.namespace.as_deref());
        let text = format!("not allowed {place}: {}", verbs(missing.iter().map(|permission| **permission)));
        let advice = match &first.namespace {
            None => "grant it by a ClusterRole, or name namespaces in DYN_DISCOVERY_KUBERNETES_NAMESPACES".to_owned(),
            Some(name) if own_namespace(diagnosis) == Some(name) => {
                format!("{}, and run under its ServiceAccount", rbac(diagnosis))
            }
            // No pod runs under another namespace's ServiceAccount.
            Some(_) => "bind this process's ServiceAccount to a Role there that reads alone: discovery-reader in \
                        docs/kubernetes.md, \"Permissions\""
                .to_owned(),
        };
        let text = format!("{text}: {advice}");
        // Who is no pod does not register.
        match purpose == Purpose::Register && diagnosis.identity.is_err() {
            true => Finding::poor(what, text),
            false => Finding::wrong(what, text),
        }
    };
    vec![of(Purpose::Register, "registering"), of(Purpose::Discover, "discovering")]
}

fn place(namespace: Option<&str>) -> String {
    namespace.map_or_else(|| "in the whole cluster".to_owned(), |name| format!("in namespace {name}"))
}

/// `get, list of pods; ...`
fn verbs<'a>(permissions: impl Iterator<Item = &'a Permission>) -> String {
    let mut by_resource: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for permission in permissions {
        let verbs = by_resource.entry(permission.resource).or_default();
        if !verbs.contains(&permission.verb) {
            verbs.push(permission.verb);
        }
    }
    let told = by_resource.iter().map(|(resource, verbs)| format!("{} {resource}", verbs.join(", ")));
    told.collect::<Vec<_>>().join("; ")
}

fn policy(diagnosis: &Diagnosis) -> Finding {
    match &diagnosis.policy {
        Ok(true) => Finding::good("policy", "a pod writes its own resource and no other's"),
        Ok(false) => Finding::poor(
            "policy",
            format!(
                "none keeps pods of one ServiceAccount from writing each other's resources: {} (Kubernetes 1.30)",
                rbac(diagnosis)
            ),
        ),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Finding::good("policy", "this identity may not look at it: an administrator's `discovery doctor` does")
        }
        Err(error) => Finding::poor("policy", error.to_string()),
    }
}

/// What becomes of the pods that take part.
fn pods(all: &[Explanation]) -> Vec<Finding> {
    let discovered = all.iter().filter(|one| one.is_discovered()).count();
    let mut findings = vec![Finding::good("pods", format!("{discovered} discovered of {} that take part", all.len()))];
    // Of each failure the first, and how many there are.
    let mut sorts: BTreeMap<Failure, Vec<(&Explanation, &Step)>> = BTreeMap::new();
    for one in all {
        for (failure, step) in one.steps.iter().filter_map(|step| Some((step.failure?, step))) {
            if !is_told_elsewhere(one, failure) {
                sorts.entry(failure).or_default().push((one, step));
            }
        }
    }
    for (failure, those) in sorts {
        let shown: Vec<_> =
            those.iter().take(NAMES).map(|(one, _)| format!("{}/{}", one.namespace, one.resource)).collect();
        let more = those.len() - shown.len();
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let step = those[0].1;
        let text = format!("{}: {}{more}: {}: {}", failure.as_str(), shown.join(", "), step.text, step.advice);
        findings.push(match failure {
            Failure::IdCollision | Failure::InvalidData => Finding::wrong("pods", text),
            _ => Finding::poor("pods", text),
        });
    }
    findings
}

fn is_told_elsewhere(one: &Explanation, failure: Failure) -> bool {
    match failure {
        Failure::NoDefinition => true,
        // It may be about to register.
        Failure::NoResource => one.breaks().any(|step| step.link < Link::Resource),
        _ => false,
    }
}

/// The pod that this process is in, where it is in one and can see it.
fn own(diagnosis: &Diagnosis, all: &[Explanation]) -> Option<Finding> {
    let identity = diagnosis.identity.as_ref().ok().filter(|_| no_such_pod(diagnosis).is_none())?;
    let own = all.iter().find(|one| one.namespace == identity.namespace && one.resource == identity.resource)?;
    Some(match own.breaks().next() {
        Some(step) => Finding::poor("this pod", format!("is not discovered: {}: {}", step.text, step.advice)),
        None if own.is_discovered() => Finding::good("this pod", "is discovered"),
        None => Finding::good("this pod", "cannot be judged with these permissions"),
    })
}
