//! Manifests made discoverable, against golden files, and what is refused.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Ended, Place};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/inject")
}

fn inject(place: &Place, arguments: &[&str], manifest: &str) -> Ended {
    place.start_with_input(&[&["inject"], arguments].concat(), manifest).ended()
}

#[test]
fn manifests_are_injected_as_the_golden_files_say_and_once() {
    let place = Place::new();
    let mut cases = Vec::new();
    for entry in fs::read_dir(golden()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if name.ends_with(".injected.yaml") {
            continue;
        }
        let expected = fs::read_to_string(path.with_extension("injected.yaml")).unwrap();
        let ended = place.run(&["inject", "-f", path.to_str().unwrap()]);
        assert_eq!((ended.code, &ended.stdout), (Some(0), &expected), "{name}: {}", ended.stderr);
        let again = inject(&place, &[], &expected);
        assert_eq!((again.code, &again.stdout), (Some(0), &expected), "{name}, a second time: {}", again.stderr);
        cases.push(name);
    }
    assert_eq!(cases.len(), 6, "{cases:?}");
}

#[test]
fn what_is_left_to_do_is_said() {
    let place = Place::new();
    for (name, told) in [
        (
            "statefulset",
            "StatefulSet engine: runs under the ServiceAccount engine, which needs what `discovery rbac --namespace models --service-account engine` prints",
        ),
        ("containers", "`discovery rbac --mode container`"),
        ("etcd", "container worker: ETCD_ENDPOINTS is not set"),
        ("aliases", "written anew, without its comments"),
        ("deployment", "is ready once its program answers at port 9091, /health, as DYN_SYSTEM_PORT tells it to"),
    ] {
        let ended = place.run(&["inject", "-f", golden().join(name).with_extension("yaml").to_str().unwrap()]);
        assert!(ended.stderr.starts_with("discovery: ") && ended.stderr.contains(told), "{ended:?}");
    }
}

const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  annotations: {}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: main
          env: [{name: A, value: a}]
        - name: side
";

#[test]
fn flags_choose_what_a_manifest_does_not() {
    let place = Place::new();
    let flags = ["--container", "side", "--health-port", "8000", "--service-account", "mine"];
    let ended = inject(&place, &flags, DEPLOYMENT);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let (main, side) = ended.stdout.split_once("name: side").unwrap();
    assert!(!main.contains("POD_NAME") && side.contains("POD_NAME"), "{ended:?}");
    assert!(side.contains("port: 8000") && side.contains("serviceAccountName: mine"), "{ended:?}");
    assert!(ended.stderr.contains("`discovery rbac --service-account mine`"), "{ended:?}");

    let ended = inject(&place, &["--no-probe"], DEPLOYMENT);
    assert!(ended.stdout.contains("POD_NAME"), "{ended:?}");
    assert!(!ended.stdout.contains("readinessProbe") && !ended.stdout.contains("DYN_SYSTEM_PORT"), "{ended:?}");
}

/// A manifest of two workloads.
fn two(first: &str, second: &str) -> String {
    format!("{first}---\n{second}")
}

#[test]
fn services_are_told_apart_by_namespace_and_by_what_they_select() {
    let place = Place::new();
    let of = |namespace: &str| DEPLOYMENT.replace("  name: web\n", &format!("  name: web\n  namespace: {namespace}\n"));
    let foreign = "---\napiVersion: v1\nkind: Service\nmetadata: {name: web-discovery, namespace: a}\n";
    let ended = inject(&place, &[], &(of("b") + foreign));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let ended = inject(&place, &[], &two(&of("a"), &of("b")));
    assert_eq!((ended.code, ended.stdout.matches("name: web-discovery").count()), (Some(0), 2), "{ended:?}");

    let stateful = DEPLOYMENT.replace("kind: Deployment", "kind: StatefulSet").replace("app: web", "app: store");
    let ended = inject(&place, &[], &two(DEPLOYMENT, &stateful));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.stdout.matches("name: web-discovery").count(), 1, "{ended:?}");
    assert_eq!(ended.stdout.matches("name: web-statefulset-discovery").count(), 1, "{ended:?}");
    let again = inject(&place, &[], &ended.stdout);
    assert_eq!((again.code, &again.stdout), (Some(0), &ended.stdout), "{again:?}");
    // One that selects the pods of both is enough for both.
    let same = DEPLOYMENT.replace("kind: Deployment", "kind: StatefulSet");
    let ended = inject(&place, &[], &two(DEPLOYMENT, &same));
    assert_eq!((ended.code, ended.stdout.matches("kind: Service\n").count()), (Some(0), 1), "{ended:?}");
}

#[test]
fn a_port_of_a_sidecar_is_not_given_away() {
    let place = Place::new();
    let first = |policy: &str| {
        let first = format!("initContainers: [{{name: proxy, {policy} ports: [{{containerPort: 9090}}]}}]");
        DEPLOYMENT.replace("      containers:", &format!("      {first}\n      containers:"))
    };
    let ended = inject(&place, &[], &first("restartPolicy: Always,"));
    assert!(ended.stdout.contains("port: 9091"), "{ended:?}");
    // One that has ended when the others begin needs it no more.
    let ended = inject(&place, &[], &first(""));
    assert!(ended.stdout.contains("port: 9090"), "{ended:?}");
}

#[test]
fn a_file_s_mode_stays_what_it_is() {
    let place = Place::new();
    let aliased = DEPLOYMENT
        .replace("{matchLabels: {app: web}}", "{matchLabels: &labels {app: web}}")
        .replace("{labels: {app: web}}", "{labels: *labels}")
        .replace(
            "      containers:",
            "      volumes: [{name: v, secret: {secretName: s, defaultMode: 0400}}]\n      containers:",
        );
    let ended = inject(&place, &[], &aliased);
    ended.assert_fails(
        2,
        "0400 means something else once the document is written anew, as the alias *labels makes necessary",
    );
    assert_eq!(ended.stdout, "");
    let ended = inject(&place, &[], &aliased.replace("0400", "256"));
    assert!(ended.stdout.contains("defaultMode: 256\n"), "{ended:?}");
}

#[test]
fn what_cannot_be_made_discoverable_is_refused() {
    let place = Place::new();
    let annotated = |name: &str, value: &str| {
        DEPLOYMENT.replace("annotations: {}", &format!("annotations: {{nvidia.com/{name}: {value}}}"))
    };
    let env = |variable: &str| DEPLOYMENT.replace("{name: A, value: a}", variable);
    let pod = |line: &str| DEPLOYMENT.replace("      containers:", &format!("      {line}\n      containers:"));
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: web-discovery}\nspec: {selector: {app: web}}\n";
    let cases: [(String, &[&str], &str); 19] = [
        (annotated("dynamo-discovery-backend", "consul"), &[], r#"is "consul": allowed are "kubernetes" and "etcd""#),
        (annotated("dynamo-kube-discovery-mode", "node"), &[], r#"is "node": allowed are "pod" and "container""#),
        (String::new(), &[], "holds no Deployment and no StatefulSet"),
        ("kind: Pod\n---\n# nothing\n".into(), &[], "holds no Deployment and no StatefulSet"),
        ("a: 1\n---\na: [\n".into(), &[], "document 2: no YAML"),
        ("a: 1\na: 2\n".into(), &[], "duplicate"),
        (DEPLOYMENT.replace("name: web", "labels: {}"), &[], "a Deployment has no metadata.name"),
        (DEPLOYMENT.replace("name: web", "name: web.shop"), &[], r#""web.shop-discovery" is no name for a Service"#),
        (DEPLOYMENT.replace("matchLabels: {app: web}", "matchExpressions: []"), &[], "matchLabels is empty"),
        (DEPLOYMENT.replace("matchLabels: {app: web}", "matchLabels: {app: w}"), &[], "make them agree"),
        (DEPLOYMENT.replace("[{name: A, value: a}]", "text"), &[], "spec.template.spec.containers.0.env is no list"),
        (DEPLOYMENT.to_owned() + service, &[], "the Service web-discovery is there"),
        (env("{name: POD_NAME, value: web-0}"), &[], r#"container main: POD_NAME is set to "web-0", and has to be"#),
        (env("{name: DYN_DISCOVERY_BACKEND, value: etcd}"), &[], r#"is set to "etcd", and has to be "kubernetes""#),
        (env("{name: DYN_KUBE_DISCOVERY_MODE, value: container}"), &[], "by the annotation"),
        (env("{name: DYN_SYSTEM_PORT, value: \"-1\"}"), &[], "--no-probe"),
        (pod("automountServiceAccountToken: false"), &[], "automountServiceAccountToken is false"),
        (DEPLOYMENT.to_owned(), &["--container", "x"], r#"no container is called "x": there are main, side"#),
        (DEPLOYMENT.to_owned(), &["--container", "main", "--container", "side"], "a pod registers as one"),
    ];
    for (manifest, flags, told) in cases {
        let ended = inject(&place, flags, &manifest);
        ended.assert_fails(2, told);
        assert_eq!(ended.stdout, "", "{manifest}");
    }
    place.run(&["inject", "-f", "/nowhere/x.yaml"]).assert_fails(2, "/nowhere/x.yaml: No such file");
    let label = DEPLOYMENT
        .replace("{labels: {app: web}}", "{labels: {app: web, nvidia.com/dynamo-discovery-enabled: \"false\"}}");
    inject(&place, &[], &label).assert_fails(2, "remove it");
    // A secret is not shown.
    let secret = env("{name: POD_UID, valueFrom: {secretKeyRef: {name: s, key: k}}}");
    inject(&place, &[], &secret).assert_fails(2, "POD_UID is set to something else");
}

#[test]
fn what_the_api_server_would_refuse_is_refused() {
    let place = Place::new();
    let etcd = DEPLOYMENT.replace("annotations: {}", "annotations: {nvidia.com/dynamo-discovery-backend: etcd}");
    let with = |from: &str, to: &str| {
        assert!(etcd.contains(from), "{from}");
        etcd.replace(from, to)
    };
    let field = "{name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}";
    for (manifest, told) in [
        (etcd.split("  template").next().unwrap().to_owned(), "Deployment web: it has no spec.template: add it"),
        (with("  selector: {matchLabels: {app: web}}\n", ""), "spec.selector.matchLabels is empty"),
        (with("matchLabels: {app: web}", "matchLabels: {app: w}"), "the label app, which its pods do not have so"),
        (with("matchLabels: {app: web}", "matchLabels: {app: 5}"), "spec.selector.matchLabels.app is 5"),
        (with("{labels: {app: web}}", "{labels: {app: web, x: 1}}"), "metadata.labels.x is 1, which is no text: quote"),
        (with("name: web\n", "name: Web_1\n"), "metadata.name is \"Web_1\""),
        (with("  name: web\n", "  name: web\n  namespace: 5\n"), "metadata.namespace is 5"),
        (with("- name: side", "- image: x"), "spec.template.spec.containers.1.name is missing"),
        (with("- name: side", "- side"), "spec.template.spec.containers.1 is no mapping"),
        (with("- name: side", "-"), "spec.template.spec.containers.1 is no mapping"),
        (with("name: side", "name: main"), "two containers are called \"main\""),
        (with("[{name: A, value: a}]", "[A]"), "spec.template.spec.containers.0.env.0 is no mapping"),
        (with("{name: A, value: a}", "{value: a}"), "spec.template.spec.containers.0.env.0 has no name"),
        (with("value: a}", "value: 1}"), "spec.template.spec.containers.0.env.0.value is 1"),
        (DEPLOYMENT.replace("{name: A, value: a}", &format!("{field}, {{name: POD_NAME, value: b}}")), "set twice"),
    ] {
        let ended = inject(&place, &[], &manifest);
        ended.assert_fails(2, told);
        assert_eq!(ended.stdout, "", "{manifest}");
    }
    // What is no YAML is told without words of the library that reads it.
    for (manifest, told) in [
        (format!("{etcd}---\na: 1\na: 2\n"), "document 2: no YAML: duplicate mapping key `a`"),
        (format!("{etcd}...\ntext\n"), "document 1: no YAML: "),
        (format!("{etcd}text\n"), "line 15"),
    ] {
        let ended = inject(&place, &[], &manifest);
        ended.assert_fails(2, told);
        for word in ["Policy", "Options", "from_str", "Option<"] {
            assert!(!ended.stderr.contains(word), "{ended:?}");
        }
    }
}

#[test]
fn what_is_to_be_applied_is_printed() {
    let place = Place::new();
    let crd = place.run(&["crd"]);
    assert_eq!((crd.code, crd.stdout.as_str()), (Some(0), discovery_deploy::CRD));
    let rbac = place.run(&["rbac"]);
    assert_eq!(rbac.code, Some(0));
    assert_eq!(
        rbac.stdout,
        discovery_deploy::rbac(None, None, discovery_deploy::Mode::Pod) + "---\n" + discovery_deploy::ADMISSION
    );
    let flags = ["rbac", "-n", "team", "--service-account", "mine", "--mode", "container", "--no-admission-policy"];
    let rbac = place.run(&flags);
    assert_eq!(rbac.stdout, discovery_deploy::rbac(Some("team"), Some("mine"), discovery_deploy::Mode::Container));
    place.run(&["rbac", "--namespace", "a\nb: c"]).assert_fails(2, "lower case");
    place.run(&["rbac", "--mode", "node"]).assert_fails(2, "pod, container");
}
