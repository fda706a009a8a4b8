//! How xtask answers what it does not know.

use std::process::Command;

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
