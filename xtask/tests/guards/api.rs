//! The public API of the libraries, against its snapshots in `docs/api`.
//!
//! The listing is made from the source with `syn`, not from rustdoc's JSON. The JSON knows more (what macros expand to,
//! auto traits, blanket implementations), but its format changes with nearly every compiler and stable does not offer
//! it: the guard would fail on a fresh machine for the compiler's sake. The source reads the same under every toolchain.
//! What follows from that: a public item must not come out of a macro, and `Send`, `Sync` and `Unpin` of public types
//! are asserted by tests of their own crates. A `pub` in a private module that nothing re-exports is not listed; rustc's
//! `unreachable_pub` finds it.

mod names;
mod source;
mod surface;
mod tests;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::workspace::{Metadata, root};
use names::Crate;

macro_rules! snapshots {
    ($($test:ident: $package:literal,)*) => {
        const GUARDED: &[&str] = &[$($package),*];

        $(
            #[test]
            fn $test() {
                compare($package);
            }
        )*
    };
}

snapshots! {
    core: "discovery-core",
    memory: "discovery-memory",
    file: "discovery-file",
    etcd: "discovery-etcd",
    k8s: "discovery-k8s",
    dynamo: "discovery-dynamo",
    conformance: "discovery-conformance",
    health: "discovery-health",
    deploy: "discovery-deploy",
}

#[test]
fn every_library_has_a_snapshot_and_nothing_else_has() {
    let metadata = Metadata::read();
    let libraries: BTreeSet<String> =
        metadata.members().filter(|package| package.is_library()).map(|package| package.name.clone()).collect();
    let guarded: BTreeSet<String> = GUARDED.iter().map(|&package| package.to_owned()).collect();
    assert_eq!(libraries, guarded, "libraries of the workspace, and those named in {}", file!());
    let snapshots: BTreeSet<String> = std::fs::read_dir(root().join("docs/api"))
        .expect("docs/api")
        .map(|entry| entry.expect("an entry of docs/api").file_name().to_string_lossy().into_owned())
        .map(|name| name.trim_end_matches(".txt").to_owned())
        .collect();
    assert!(snapshots.is_subset(&guarded), "docs/api holds what is no library: {snapshots:?}");
}

fn compare(package: &str) {
    // A crate lies in a directory of its name, or of its name without the project's.
    let short = package.trim_start_matches("discovery-");
    let directory = [package, short].map(|name| root().join(name)).into_iter().find(|directory| directory.is_dir());
    let items = source::read(&directory.expect("the crate's directory").join("src/lib.rs"));
    let listing = format!("// The public API of {package}, as `cargo xtask api --bless` wrote it.\n\n{}", list(items));
    let name = format!("docs/api/{package}.txt");
    let snapshot = root().join(&name);
    if std::env::var_os("XTASK_BLESS").is_some() {
        std::fs::write(&snapshot, listing).unwrap_or_else(|error| panic!("{name}: {error}"));
        return;
    }
    if std::fs::read_to_string(&snapshot).ok().as_ref() != Some(&listing) {
        let actual = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{package}.txt"));
        std::fs::write(&actual, listing).unwrap_or_else(|error| panic!("{}: {error}", actual.display()));
        panic!(
            "the public API of {package} is not what {name} says. If it is meant to be so, run `cargo xtask api --bless` \
             and commit {name}.\n{}",
            difference(&snapshot, &actual)
        );
    }
}

/// What git shows. It exits with 1 where there is a difference; what it prints is all that matters here.
fn difference(snapshot: &Path, actual: &Path) -> String {
    let snapshot = if snapshot.exists() { snapshot } else { Path::new("/dev/null") };
    let mut diff = Command::new("git");
    diff.args(["diff", "--no-index", "--no-color", "--unified=2", "--"]).args([snapshot, actual]);
    let output = diff.output().unwrap_or_else(|error| panic!("git diff: {error}"));
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn list(items: Vec<syn::Item>) -> String {
    surface::render(&surface::of(&Crate::new(items)))
}
