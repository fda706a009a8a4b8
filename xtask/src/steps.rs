//! What each task runs, in which order.

use std::process::{Command, ExitCode};
use std::time::Instant;

use crate::toolchain::{cargo, has, prepare, succeeds, tell_disk};

/// Everything that has to hold before a change lands.
///
/// Every step runs, whatever became of those before it. The tests come last and nothing is printed after them: whoever
/// judges a run by its closing lines reads those of the test runner, and the exit code tells of all steps.
pub(crate) fn test() -> ExitCode {
    prepare();
    tell_disk();
    let mut failed = Vec::new();

    step("format", cargo().args(["fmt", "--all", "--check"]), &mut failed);
    step(
        "lints",
        cargo().args(["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]),
        &mut failed,
    );
    step(
        "documentation",
        cargo().args(["doc", "--workspace", "--all-features", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"),
        &mut failed,
    );

    // Before the tests, whose deadlines do not allow for a build of ten minutes.
    step("servers", cargo().args(["run", "--quiet", "--package", "discovery-testbed", "--", "build"]), &mut failed);

    // The tests break their servers, and this one is somebody's: it is judged by what can be seen from outside.
    if std::env::var_os("ETCD_ENDPOINTS").is_some_and(|endpoints| !endpoints.is_empty()) {
        let arguments = ["run", "--quiet", "--package", "discovery-cli", "--", "conformance", "--backend", "etcd"];
        step("the etcd that ETCD_ENDPOINTS names", cargo().args(arguments), &mut failed);
    }

    for name in &failed {
        println!("\n== {name}: FAILED, see above");
    }
    println!("\n== tests");
    let passed = succeeds(cargo().args(["test", "--workspace", "--all-features", "--no-fail-fast"]));
    exit(passed && failed.is_empty())
}

/// The guard on the public API, or its snapshots written anew. Both are the tests in `tests/guards/api.rs`.
pub(crate) fn api(bless: bool) -> ExitCode {
    let mut guard = cargo();
    guard.args(["test", "--quiet", "--package", "xtask", "--test", "guards", "--", "api::", "--nocapture"]);
    if bless {
        guard.env("XTASK_BLESS", "1");
    }
    exit(succeeds(&mut guard))
}

/// `cargo deny check`, which needs the network for its advisories.
pub(crate) fn deny() -> ExitCode {
    if !has("deny") {
        eprintln!("cargo-deny is not installed: cargo install cargo-deny --locked");
        return ExitCode::FAILURE;
    }
    exit(succeeds(cargo().args(["deny", "check"])))
}

/// Servers for people. The crate that tests get theirs from does it.
pub(crate) fn testbed(arguments: &[&str]) -> ExitCode {
    let mut testbed = cargo();
    testbed.args(["run", "--quiet", "--package", "discovery-testbed", "--"]).args(arguments);
    match testbed.status() {
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        Err(error) => {
            eprintln!("cannot run cargo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn step(name: &'static str, command: &mut Command, failed: &mut Vec<&'static str>) {
    println!("\n== {name}");
    let start = Instant::now();
    let passed = succeeds(command);
    let verdict = if passed { "ok" } else { "FAILED" };
    println!("== {name}: {verdict} after {:.1} s", start.elapsed().as_secs_f64());
    if !passed {
        failed.push(name);
    }
}

pub(crate) fn exit(passed: bool) -> ExitCode {
    if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
