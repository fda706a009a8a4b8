//! How xtask answers what it does not know, and that what it runs is there.

use std::process::Command;

/// A soak that ran no test would end well.
#[test]
fn every_target_of_a_soak_has_its_test() {
    for target in ["discovery-conformance", "discovery-etcd", "discovery-k8s"] {
        let path = format!("{}/../{target}/tests/randomised.rs", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).expect(&path);
        assert!(text.contains("\nfn histories_keep_the_contract()"), "{path}: the test that `cargo xtask soak` runs");
    }
}

#[test]
fn unknown_tasks_and_flags_answer_the_usage_and_2() {
    for arguments in [
        &[][..],
        &["nonsense"],
        &["test", "--nonsense"],
        &["api", "--bless", "more"],
        &["soak", "nonsense"],
        &["soak", "file", "--seconds"],
        &["soak", "--seed", "one"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_xtask")).args(arguments).output().expect("xtask starts");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("usage: cargo xtask TASK"), "{arguments:?}");
    }
}
