//! The manifests as the tools render them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;

/// Objects by version, kind, namespace and name.
pub(crate) type Objects = BTreeMap<String, Value>;

/// The directory of the manifests.
pub(crate) fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The program `render`, built once.
static RENDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("render");
    let mut build = Command::new("go");
    build.args(["build", "-trimpath", "-o"]).arg(&program).arg(".").current_dir(directory().join("render"));
    let built = build.output().unwrap_or_else(|error| {
        panic!("go: {error}: kustomize and Helm are built with Go 1.26 or newer, https://go.dev/dl")
    });
    assert!(built.status.success(), "deploy/render: {}", String::from_utf8_lossy(&built.stderr));
    program
});

pub(crate) fn helm(namespace: &str, settings: &[&str]) -> Objects {
    let chart = directory().join("chart");
    let arguments = ["helm".as_ref(), chart.as_os_str(), namespace.as_ref()];
    objects(&render(arguments.into_iter().chain(settings.iter().map(OsStr::new))))
}

pub(crate) fn render<'a>(arguments: impl IntoIterator<Item = &'a OsStr>) -> String {
    let output = Command::new(&*RENDER).args(arguments).output().expect("render starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The objects in a text, each of which is there once.
pub(crate) fn objects(text: &str) -> Objects {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let mut objects = Objects::new();
    for object in documents.into_iter().filter(|document| !document.is_null()) {
        let field = |of: &Value, name: &str| of[name].as_str().unwrap_or_default().to_owned();
        let (version, kind) = (field(&object, "apiVersion"), field(&object, "kind"));
        let (namespace, name) = (field(&object["metadata"], "namespace"), field(&object["metadata"], "name"));
        let id = format!("{version} {kind} {namespace}/{name}");
        assert!(objects.insert(id.clone(), object).is_none(), "twice: {id}");
    }
    objects
}
