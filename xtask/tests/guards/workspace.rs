//! The workspace as cargo and git know it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the root").to_owned()
}

/// The text of a file named from the root.
pub(crate) fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What a command, run in the root, prints.
pub(crate) fn output(command: &mut Command) -> String {
    let output = command.current_dir(root()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// The cargo that runs these tests.
pub(crate) fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// What `deny.toml` says that the guards act on too.
#[derive(Deserialize)]
pub(crate) struct Deny {
    pub(crate) graph: Graph,
    pub(crate) licenses: Licences,
}

/// The graph that is looked at.
#[derive(Deserialize)]
pub(crate) struct Graph {
    pub(crate) targets: Vec<String>,
}

/// The rules for licences. A key that only cargo-deny would act on is refused here, lest the two disagree.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Licences {
    pub(crate) allow: Vec<String>,
    #[serde(rename = "unused-allowed-license")]
    pub(crate) _unused: String,
}

/// `deny.toml`.
pub(crate) fn deny() -> Deny {
    toml::from_str(&read("deny.toml")).unwrap_or_else(|error| panic!("deny.toml: {error}"))
}

/// `cargo metadata`: what is built for the targets of `deny.toml`, tests included.
#[derive(Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    workspace_members: BTreeSet<String>,
}

/// One package of the graph.
#[derive(Deserialize)]
pub(crate) struct Package {
    id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) license: Option<String>,
    pub(crate) rust_version: Option<String>,
    pub(crate) targets: Vec<Target>,
    pub(crate) features: BTreeMap<String, Vec<String>>,
    /// The registries that it may go to: an empty list for a package that stays here.
    publish: Option<Vec<String>>,
}

/// One target of a package.
#[derive(Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
}

impl Metadata {
    /// Reads it.
    pub(crate) fn read() -> Self {
        let mut command = cargo();
        command.args(["metadata", "--format-version", "1", "--all-features"]);
        for target in deny().graph.targets {
            command.args(["--filter-platform", &target]);
        }
        serde_json::from_str(&output(&mut command)).expect("cargo metadata writes JSON")
    }

    /// The workspace's own packages.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }
}

impl Package {
    /// Whether others can depend on it.
    pub(crate) fn is_library(&self) -> bool {
        let stays = self.publish.as_ref().is_some_and(Vec::is_empty);
        !stays && self.targets.iter().any(|target| target.kind.iter().any(|kind| kind == "lib"))
    }
}
