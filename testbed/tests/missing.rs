//! A machine on which no server can be had.

use std::fs;
use std::process::Command;

/// What starts tests must end with an error there, and say what to install: they never pass by not running.
#[test]
fn without_servers_and_without_go_it_says_what_to_install() {
    // A target directory of its own, in which nothing was built yet.
    let target = tempfile::tempdir().expect("a directory");
    fs::write(target.path().join("CACHEDIR.TAG"), "").expect("the mark of a target directory");
    let program = target.path().join("discovery-testbed");
    fs::copy(env!("CARGO_BIN_EXE_discovery-testbed"), &program).expect("the program");
    let run = |etcd: Option<&str>| {
        let mut command = Command::new(&program);
        command.arg("build").env("PATH", "").env_remove("KUBEBUILDER_ASSETS").env_remove("ETCD_ENDPOINTS");
        command.envs(etcd.map(|endpoints| ("ETCD_ENDPOINTS", endpoints)));
        let output = command.output().expect("the program runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (done, said) = run(None);
    assert!(!done, "{said}");
    assert!(said.contains("there is no etcd on PATH") && said.contains("install Go 1.26"), "{said}");
    assert!(!said.contains("ETCD_ENDPOINTS"), "{said}");
    let (done, said) = run(Some("http://127.0.0.1:2379"));
    assert!(!done && said.contains("ETCD_ENDPOINTS names is left alone"), "{said}");
}
