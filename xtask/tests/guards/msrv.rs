//! The oldest Rust that the workspace promises builds its dependencies too.

use crate::workspace::Metadata;

#[test]
fn no_dependency_needs_a_newer_rust_than_the_workspace() {
    let metadata = Metadata::read();
    let ours = metadata.members().find_map(|package| package.rust_version.as_deref()).expect("rust-version");
    let newer: Vec<String> = metadata
        .packages
        .iter()
        .filter_map(|package| Some((package, package.rust_version.as_deref()?)))
        .filter(|(_, theirs)| version(theirs) > version(ours))
        .map(|(package, theirs)| format!("{} {} needs {theirs}", package.name, package.version))
        .collect();
    assert!(newer.is_empty(), "the workspace promises Rust {ours}: {newer:#?}");
}

#[test]
fn every_member_promises_the_same_rust() {
    let metadata = Metadata::read();
    let mut promised: Vec<_> = metadata.members().map(|package| package.rust_version.as_deref()).collect();
    promised.dedup();
    assert_eq!(promised.len(), 1, "{promised:?}");
    assert!(promised[0].is_some());
}

fn version(text: &str) -> Vec<u32> {
    let mut parts: Vec<u32> = text.split('.').map(|part| part.parse().expect("a number")).collect();
    parts.resize(3, 0);
    parts
}
