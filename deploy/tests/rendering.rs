//! What kustomize, Helm and the program print is the same.

mod manifests;

use std::ffi::OsStr;
use std::path::Path;

use discovery_deploy::{ADMISSION, CRD, Mode, rbac};
use manifests::{Objects, directory, helm, objects, render};

fn kustomize(directory: &Path) -> Objects {
    objects(&render([OsStr::new("kustomize"), directory.as_os_str()]))
}

/// kustomize's rendering of an overlay.
fn overlay(text: &str) -> Objects {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory for an overlay");
    let whole = |path: &Path| path.canonicalize().expect("a path that is there");
    // kustomize takes relative paths only, and the target directory may be anywhere.
    let up = "../".repeat(whole(place.path()).components().count() - 1);
    let root = format!("{up}{}/", whole(&directory().join("..")).display().to_string().trim_start_matches('/'));
    std::fs::write(place.path().join("kustomization.yaml"), text.replace("ROOT/", &root)).expect("an overlay");
    kustomize(place.path())
}

fn printed(texts: &[&str]) -> Objects {
    objects(&texts.join("\n---\n"))
}

#[track_caller]
fn same(left: &Objects, right: &Objects) {
    assert_eq!(left.keys().collect::<Vec<_>>(), right.keys().collect::<Vec<_>>());
    for (id, object) in left {
        assert_eq!(object, &right[id], "{id}");
    }
}

#[test]
fn as_they_are() {
    let applied = kustomize(&directory());
    assert_eq!(applied.len(), 6, "{:?}", applied.keys());
    same(&applied, &helm("default", &[]));
    same(&applied, &printed(&[CRD, &rbac(None, None, Mode::Pod), ADMISSION]));
}

#[test]
fn in_another_namespace() {
    let applied = overlay("namespace: team-1\nresources: [ROOT/deploy/namespace]\n");
    assert!(applied.contains_key("rbac.authorization.k8s.io/v1 RoleBinding team-1/discovery-worker"), "{applied:?}");
    let mut rendered = helm("team-1", &[]);
    rendered.retain(|id, _| !id.contains(" /"));
    same(&applied, &rendered);
    same(&applied, &printed(&[&rbac(Some("team-1"), None, Mode::Pod)]));
}

#[test]
fn for_containers_that_register_each_for_itself() {
    let applied = overlay("resources: [ROOT/deploy]\ncomponents: [ROOT/deploy/namespace/container-mode]\n");
    assert_ne!(applied, kustomize(&directory()), "the component changes something");
    same(&applied, &helm("default", &["mode=container"]));
    same(&applied, &printed(&[CRD, &rbac(None, None, Mode::Container), ADMISSION]));
}

#[test]
fn for_another_service_account_and_without_the_policy() {
    let rendered = helm("default", &["serviceAccount.name=1234s", "admissionPolicy.enabled=false"]);
    assert_eq!(rendered.len(), 4, "{:?}", rendered.keys());
    same(&rendered, &printed(&[CRD, &rbac(None, Some("1234s"), Mode::Pod)]));
}

#[test]
fn with_the_example() {
    let applied = overlay("resources: [ROOT/deploy, ROOT/deploy/example]\n");
    assert_eq!(applied.len(), 8, "{:?}", applied.keys());
    same(&applied, &helm("default", &["example.enabled=true"]));
}

/// A name that reads as a number stays a name.
#[test]
fn names_are_quoted() {
    let rendered = helm("2e3", &["example.enabled=true", "admissionPolicy.enabled=false"]);
    assert!(rendered.contains_key("apps/v1 Deployment 2e3/example-worker"), "{:?}", rendered.keys());
    let printed = printed(&[&rbac(Some("2e3"), Some("12"), Mode::Container)]);
    assert!(printed.contains_key("v1 ServiceAccount 2e3/12"), "{:?}", printed.keys());
}

#[test]
#[should_panic(expected = "mode")]
fn an_unknown_mode_is_refused_by_the_chart() {
    helm("default", &["mode=node"]);
}
