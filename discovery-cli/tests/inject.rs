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
