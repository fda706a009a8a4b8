//! What `doctor` says of a real cluster, line by line.

use serde_json::json;

use crate::common::Ended;
use crate::space::{LABEL, Space, until};
use crate::{REGISTER, resource, space};

/// The only line that begins like this.
#[track_caller]
fn line<'a>(doctor: &'a Ended, begin: &str) -> &'a str {
    let mut lines = doctor.stdout.lines().filter(|line| line.starts_with(begin));
    let line = lines.next().unwrap_or_else(|| panic!("{begin}: {doctor:?}"));
    assert_eq!(lines.next(), None, "{doctor:?}");
    line
}

/// Waits until `doctor` has a line that begins like this, and answers it.
async fn told(space: &Space, begin: &str) -> String {
    let mut last = space.run(&["doctor"]);
    let holds = async || {
        last = space.run(&["doctor"]);
        last.stdout.lines().any(|line| line.starts_with(begin))
    };
    until(begin, holds).await.unwrap_or_else(|| panic!("{begin}: {last:?}"));
    line(&last, begin).to_owned()
}

#[tokio::test]
async fn who_registers_here_is_told_and_what_is_missing_to_know_it() {
    let space = space("identity").await;
    let namespace = space.namespace.as_str();
    space.service("web").await;
    let uid = space.pod("web-0", "web", true).await;
    let outside = space.run(&["doctor"]);
    assert_eq!(
        line(&outside, "ok     identity"),
        "ok     identity      none, outside of a pod: to register from here set POD_NAME, POD_UID and POD_NAMESPACE to those of one"
    );
    assert!(!outside.stdout.contains("this pod"), "{outside:?}");
    let half = space.run_with(&["doctor"], &[("POD_NAME", "web-0"), ("POD_NAMESPACE", namespace)]);
    let said = line(&half, "poor   identity");
    let add = "POD_UID is missing, without which nothing can be registered: add to the container \
               `env: [{name: POD_UID, valueFrom: {fieldRef: {fieldPath: metadata.uid}}}]`";
    assert!(said.contains(add), "{said}");
    let identity = [("POD_NAME", "web-0"), ("POD_UID", uid.as_str()), ("POD_NAMESPACE", namespace)];
    let container = [&identity[..], &[("DYN_KUBE_DISCOVERY_MODE", "container")]].concat();
    let container = space.run_with(&["doctor"], &container);
    let said = line(&container, "poor   identity");
    assert!(said.contains("add `env: [{name: CONTAINER_NAME, value: THE_NAME}]`"), "{said}");

    // As a pod that was before, and as none.
    for (variable, value) in [("POD_UID", "8e16b467"), ("POD_NAME", "web-9")] {
        let doctor = space.run_with(&["doctor"], &[&identity[..], &[(variable, value)]].concat());
        assert_eq!(doctor.code, Some(1), "{doctor:?}");
        let said = line(&doctor, "WRONG  identity");
        assert!(said.contains("there is no pod \"web-") && said.contains(&format!("{value:?}")), "{said}");
        assert!(said.contains("Check POD_NAME and POD_UID") && !doctor.stdout.contains("this pod "), "{doctor:?}");
    }
    let blank = space.run_with(&["doctor"], &[&identity[..], &[("POD_NAMESPACE", "default ")]].concat());
    let said = line(&blank, "poor   identity");
    assert!(said.contains("POD_NAMESPACE is \"default \""), "{said}");

    let silent = space.run_with(&["doctor"], &identity);
    let said = line(&silent, "poor   this pod");
    assert!(said.starts_with("poor   this pod      is not discovered: there is no resource web-0: "), "{said}");
    assert!(said.ends_with("`discovery doctor` in the pod checks its permissions"), "{said}");
    let worker = space.in_pod("web-0", &uid, &REGISTER).await;
    let instance = worker.line();
    space.until_explained("web-0", &[]).await;
    let doctor = space.run_with(&["doctor"], &identity);
    assert_eq!(doctor.code, Some(0), "{doctor:?}");
    assert_eq!(
        line(&doctor, "ok     identity"),
        format!(
            "ok     identity      pod web-0 of uid {uid} in namespace {namespace}, which registers as web-0 with instance id {instance}"
        )
    );
    assert_eq!(line(&doctor, "ok     this pod"), "ok     this pod      is discovered");
    // With the pod's own token it sees less, says so, and sees that.
    let own = space.in_pod("web-0", &uid, &["doctor"]).await.ended();
    assert_eq!(own.code, Some(0), "{own:?}");
    assert_eq!(
        line(&own, "ok     policy"),
        "ok     policy        this identity may not look at it: an administrator's `discovery doctor` does"
    );
    assert_eq!(line(&own, "ok     this pod"), "ok     this pod      is discovered");
}

#[tokio::test]
async fn advice_on_permissions_is_for_the_mode_and_the_namespace() {
    let (space, other) = (space("mode").await, space("mode").await);
    let uid = space.pod("web-0", "web", true).await;
    let token = space.cluster.token_of_pod(&space.namespace, "discovery-worker", "web-0", &uid).await.unwrap();
    let kubeconfig = space.cluster.save(&space.cluster.kubeconfig().with_token(&token)).unwrap();
    let doctor = |namespace: &str| {
        let environment = [
            ("POD_NAME", "web-0"),
            ("POD_UID", &uid),
            ("POD_NAMESPACE", &space.namespace),
            ("DYN_KUBE_DISCOVERY_MODE", "container"),
            ("CONTAINER_NAME", "main"),
            ("DYN_DISCOVERY_KUBERNETES_NAMESPACES", namespace),
        ];
        space.start_as(kubeconfig.clone(), &["doctor"], &environment).ended()
    };
    let own = doctor(&space.namespace);
    let said = line(&own, "WRONG  discovering");
    let advice =
        format!("pods: `discovery rbac --namespace {} --mode container | kubectl apply -f -`", space.namespace);
    assert!(said.contains(&advice), "{said}");
    // Its Role is for workers of that namespace.
    let elsewhere = doctor(&other.namespace);
    let said = line(&elsewhere, "WRONG  discovering");
    assert!(said.contains("discovery-reader") && !said.contains("discovery rbac"), "{said}");
    let rbac = space.place.run(&["rbac", "--namespace", &space.namespace, "--mode", "container"]);
    space.cluster.apply(&rbac.stdout).await.unwrap();
    until("the advice has helped", async || doctor(&space.namespace).code == Some(0)).await.unwrap();
}

#[tokio::test]
async fn pods_that_nobody_discovers_are_named_with_the_reason_and_what_to_do() {
    let space = space("doctor").await;
    let namespace = space.namespace.as_str();
    space.service("web").await;
    let uid = space.pod("web-0", "web", true).await;
    space.apply(resource("web-0", "web-0", &uid)).await;
    for n in 1..5 {
        space.pod(&format!("web-{n}"), "web", true).await;
    }
    // Ready, and nothing stored.
    let said = told(&space, "poor   pods          no-resource: ").await;
    let named = format!(
        "poor   pods          no-resource: {namespace}/web-1, {namespace}/web-2, {namespace}/web-3 and 1 more: there is no \
         resource web-1: "
    );
    assert!(said.starts_with(&named), "{said}");
    assert!(said.contains(&format!("`kubectl -n {namespace} logs web-1`")), "{said}");
    let doctor = space.run(&["doctor"]);
    assert_eq!(line(&doctor, "ok     pods"), "ok     pods          1 discovered of 5 that take part", "{doctor:?}");

    // Without a pod, and of nobody, so that nobody collects it.
    let mut orphan = resource("gone", "gone", "x");
    orphan["metadata"]["ownerReferences"] = json!([]);
    space.apply(orphan).await;
    told(&space, &format!("poor   pods          no-such-pod: {namespace}/gone: ")).await;
    let said = told(&space, &format!("poor   pods          no-owner: {namespace}/gone: it belongs to no pod: ")).await;
    space.obey(&said).await;
    let doctor = space.run(&["doctor"]);
    assert!(!doctor.stdout.contains("gone"), "{doctor:?}");

    space.kubectl(&["label", "service", "web", &format!("{LABEL}=yes"), "--overwrite"]).await;
    let begin = format!(
        "poor   pods          service-without-label: {namespace}/web-0: web selects the pod, and is not labelled "
    );
    let said = told(&space, &begin).await;
    assert!(said.contains(r#"it has the value "yes""#), "{said}");
    space.obey(&said).await;
    told(&space, "ok     pods          1 discovered of 5").await;
}

#[tokio::test]
async fn two_namespaces_whose_pods_have_one_name_are_told() {
    let mut spaces = [space("twin").await, space("twin").await];
    spaces.sort_by(|a, b| a.namespace.cmp(&b.namespace));
    for space in &spaces {
        space.service("web").await;
        let uid = space.pod("web-0", "web", true).await;
        space.apply(resource("web-0", "web-0", &uid)).await;
        space.until_explained("web-0", &[]).await;
    }
    let [one, two] = spaces.each_ref().map(|space| space.namespace.as_str());
    let both = format!("{one},{two}");
    let doctor = spaces[0].run_with(&["doctor"], &[("DYN_DISCOVERY_KUBERNETES_NAMESPACES", &both)]);
    assert_eq!(doctor.code, Some(1), "{doctor:?}");
    let said = line(&doctor, "WRONG");
    let begin = format!(
        "WRONG  pods          id-collision: {one}/web-0, {two}/web-0: its name stands for the same instance id as \
         {two}/web-0: none of them is discovered: give the pods other names"
    );
    assert!(said.starts_with(&begin), "{said}");
    assert_eq!(line(&doctor, "ok     pods"), "ok     pods          0 discovered of 2 that take part");
    // Each of them alone is fine.
    told(&spaces[0], "ok     pods          1 discovered of 1").await;
}
