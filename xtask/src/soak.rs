//! Long randomised runs of the conformance suite: which backend's test target does them, and what it is told.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::steps::exit;
use crate::toolchain::{cargo, succeeds};

/// How many seconds they go on where nobody says.
const SECONDS: u64 = 600;

/// The name of the test, which is the same in each target.
const TEST: &str = "histories_keep_the_contract";

/// The test target that does a backend's runs.
struct Target {
    backend: &'static str,
    package: &'static str,
    test: &'static str,
}

/// The first is meant where none is named.
const TARGETS: &[Target] = &[
    Target { backend: "memory", package: "discovery-conformance", test: "randomised" },
    Target { backend: "file", package: "discovery-conformance", test: "randomised" },
    Target { backend: "etcd", package: "discovery-etcd", test: "randomised" },
    Target { backend: "etcd-cluster", package: "discovery-etcd", test: "randomised" },
    Target { backend: "kubernetes", package: "discovery-k8s", test: "randomised" },
    Target { backend: "kubernetes-containers", package: "discovery-k8s", test: "randomised" },
];

/// What `cargo xtask soak` is asked for.
pub(crate) struct Soak {
    target: &'static Target,
    seconds: Option<u64>,
    seed: Option<u64>,
}

impl Soak {
    /// `[BACKEND] [--seconds N] [--seed S]`; nothing where it is anything else.
    pub(crate) fn parse(arguments: &[&str]) -> Option<Self> {
        let mut soak = Self { target: &TARGETS[0], seconds: None, seed: None };
        let mut rest = arguments;
        if let [backend, after @ ..] = rest
            && let Some(target) = TARGETS.iter().find(|target| target.backend == *backend)
        {
            (soak.target, rest) = (target, after);
        }
        while let [option, value, after @ ..] = rest {
            let place = match *option {
                "--seconds" => &mut soak.seconds,
                "--seed" => &mut soak.seed,
                _ => return None,
            };
            *place = Some(value.parse().ok()?);
            rest = after;
        }
        rest.is_empty().then_some(soak)
    }

    /// Does the runs, optimised, because there are many.
    pub(crate) fn run(&self) -> ExitCode {
        let Target { backend, package, test } = self.target;
        // A seed alone is a run that somebody does again.
        let seconds = self.seconds.or(self.seed.is_none().then_some(SECONDS));
        let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs());
        let seed = self.seed.unwrap_or(clock);
        let mut runner = cargo();
        runner.args(["test", "--release", "--package", package, "--test", test, "--", TEST, "--exact", "--nocapture"]);
        runner.env("DYN_DISCOVERY_BACKEND", backend).env("DYN_DISCOVERY_CONFORMANCE_SEED", seed.to_string());
        runner.env("DYN_DISCOVERY_CONFORMANCE_SECONDS", seconds.map(|seconds| seconds.to_string()).unwrap_or_default());
        exit(succeeds(&mut runner))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Of a test that is called otherwise Cargo would run none, and that is a success.
    #[test]
    fn each_target_has_the_test_that_does_the_runs() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for Target { backend, package, test } in TARGETS {
            let tests = root.join(package).join("tests");
            let places = [tests.join(format!("{test}.rs")), tests.join(test).join("main.rs")];
            let text = places.iter().find_map(|place| std::fs::read_to_string(place).ok());
            let text = text.unwrap_or_else(|| panic!("{backend}: {package} has no target {test}"));
            let lines: Vec<_> = text.lines().collect();
            let at = lines.iter().position(|line| line.starts_with(&format!("fn {TEST}(")));
            let at = at.unwrap_or_else(|| panic!("{backend}: {package}: {test} has no test {TEST}"));
            assert!(lines[..at].iter().rev().take_while(|line| line.starts_with('#')).any(|line| *line == "#[test]"));
        }
    }
}
