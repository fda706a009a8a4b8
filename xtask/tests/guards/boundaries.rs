//! What each crate may depend on, directly or through others, in its library and its build script.

use std::collections::BTreeSet;

use crate::workspace::{Metadata, cargo, output};

/// Transports and clients of stores, by name or by the start of a name before a hyphen.
const HEAVY: &[&str] = &[
    "etcd",
    "h2",
    "hyper",
    "inotify",
    "k8s",
    "kube",
    "native-tls",
    "notify",
    "openssl",
    "prost",
    "redis",
    "reqwest",
    "rustls",
    "tonic",
    "tungstenite",
];

struct Boundary {
    package: &'static str,
    features: &'static [&'static str],
    /// Which of the workspace's own crates it may use, and with them what they may use; and which of `HEAVY` besides.
    may_use: &'static [&'static str],
}

const ALL: &[&str] = &["--all-features"];
const DEFAULT: &[&str] = &[];
const BARE: &[&str] = &["--no-default-features"];

/// One line for each crate of the workspace, xtask aside. See "Crates" in `docs/architecture.md`.
const BOUNDARIES: &[Boundary] = &[
    Boundary { package: "discovery-core", features: ALL, may_use: &[] },
    Boundary { package: "discovery-memory", features: ALL, may_use: &["discovery-core"] },
    Boundary { package: "discovery-file", features: ALL, may_use: &["discovery-core", "discovery-dynamo"] },
    Boundary {
        package: "discovery-etcd",
        features: ALL,
        may_use: &[
            "discovery-core",
            "discovery-dynamo",
            "etcd-client",
            "h2",
            "hyper",
            "hyper-timeout",
            "hyper-util",
            // Finds the system's authorities; no OpenSSL comes with it.
            "openssl-probe",
            "prost",
            "prost-build",
            "prost-derive",
            "prost-types",
            "rustls",
            "rustls-native-certs",
            "rustls-pki-types",
            "rustls-webpki",
            "tonic",
            "tonic-build",
            "tonic-prost",
            "tonic-prost-build",
        ],
    },
    // The Kubernetes client and its transport; no gRPC.
    Boundary {
        package: "discovery-k8s",
        features: ALL,
        may_use: &[
            "discovery-core",
            "discovery-dynamo",
            "h2",
            "hyper",
            "hyper-rustls",
            "hyper-timeout",
            "hyper-util",
            "k8s-openapi",
            "kube",
            "kube-client",
            "kube-core",
            // Finds the system's authorities; no OpenSSL comes with it.
            "openssl-probe",
            "rustls",
            "rustls-native-certs",
            "rustls-pki-types",
            "rustls-platform-verifier",
            "rustls-webpki",
        ],
    },
    Boundary { package: "discovery-dynamo", features: ALL, may_use: &["discovery-core"] },
    // The library. Its runner takes backends as optional dependencies.
    Boundary { package: "discovery-conformance", features: BARE, may_use: &["discovery-core"] },
    Boundary {
        package: "discovery-cli",
        features: DEFAULT,
        may_use: &[
            "discovery-conformance",
            "discovery-core",
            "discovery-deploy",
            "discovery-dynamo",
            "discovery-etcd",
            "discovery-file",
            "discovery-health",
            "discovery-k8s",
            "discovery-memory",
        ],
    },
    // The Kubernetes client, for the node that runs pods, and what names certificates.
    Boundary {
        package: "discovery-testbed",
        features: ALL,
        may_use: &[
            "h2",
            "hyper",
            "hyper-rustls",
            "hyper-timeout",
            "hyper-util",
            "k8s-openapi",
            "kube",
            "kube-client",
            "kube-core",
            "kube-runtime",
            "openssl-probe",
            "rustls",
            "rustls-native-certs",
            "rustls-pki-types",
            "rustls-platform-verifier",
            "rustls-webpki",
        ],
    },
    // A server for probes: HTTP/1, without a client and without TLS.
    Boundary { package: "discovery-health", features: ALL, may_use: &["discovery-core", "hyper", "hyper-util"] },
    Boundary { package: "discovery-deploy", features: ALL, may_use: &[] },
    // It looks into etcd past the backend, and draws.
    Boundary {
        package: "discovery-compare",
        features: ALL,
        may_use: &[
            "discovery-core",
            "discovery-deploy",
            "discovery-dynamo",
            "discovery-etcd",
            "discovery-file",
            "discovery-k8s",
            "discovery-memory",
            "discovery-peer-protocol",
            "discovery-testbed",
        ],
    },
    // The reference's side uses it too, with dependencies of its own.
    Boundary { package: "discovery-peer-protocol", features: ALL, may_use: &[] },
    Boundary { package: "discovery-redis", features: ALL, may_use: &["discovery-core", "redis"] },
    Boundary { package: "shelf", features: ALL, may_use: &["discovery-core"] },
];

#[test]
fn core_knows_no_store_and_no_transport() {
    hold("discovery-core");
}

#[test]
fn memory_uses_core_alone() {
    hold("discovery-memory");
}

#[test]
fn file_uses_core_and_the_dynamo_kinds_alone() {
    hold("discovery-file");
}

#[test]
fn etcd_uses_its_client_and_no_other_store() {
    hold("discovery-etcd");
}

#[test]
fn kubernetes_uses_its_client_and_no_other_store() {
    hold("discovery-k8s");
}

#[test]
fn dynamo_uses_no_backend() {
    hold("discovery-dynamo");
}

#[test]
fn conformance_uses_core_alone() {
    hold("discovery-conformance");
}

#[test]
fn cli_brings_no_transport_of_its_own() {
    hold("discovery-cli");
}

#[test]
fn deploy_uses_nothing() {
    hold("discovery-deploy");
}

#[test]
fn health_uses_core_and_hyper_alone() {
    hold("discovery-health");
}

#[test]
fn redis_uses_core_and_its_client_alone() {
    hold("discovery-redis");
}

#[test]
fn shelf_uses_core_alone() {
    hold("shelf");
}

#[test]
fn comparison_uses_the_backends_and_no_other_store() {
    hold("discovery-compare");
}

#[test]
fn peer_protocol_uses_nothing_of_the_project() {
    hold("discovery-peer-protocol");
}

#[test]
fn testbed_knows_nothing_of_the_project_and_is_light() {
    hold("discovery-testbed");
}

#[test]
fn xtask_builds_nothing_but_itself() {
    assert_eq!(dependencies("xtask", ALL), BTreeSet::new());
}

#[test]
fn every_crate_has_a_boundary() {
    let metadata = Metadata::read();
    let members: BTreeSet<&str> = metadata.members().map(|package| package.name.as_str()).collect();
    let mut bounded: BTreeSet<&str> = BOUNDARIES.iter().map(|boundary| boundary.package).collect();
    bounded.insert("xtask");
    assert_eq!(members, bounded, "members of the workspace, and those named in {}", file!());
}

#[test]
fn heavy_names_are_told_from_similar_ones() {
    assert!(
        ["tonic", "tonic-build", "hyper-util", "kube", "k8s-openapi", "etcd-client", "h2"].iter().all(|n| heavy(n))
    );
    assert!(!["tower", "h2o", "kubelet", "serde"].iter().any(|name| heavy(name)));
}

fn boundary_of(package: &str) -> Option<&'static Boundary> {
    BOUNDARIES.iter().find(|boundary| boundary.package == package)
}

/// What a package may use by itself, and through the workspace's own crates that it may use.
fn allowed(boundary: &Boundary) -> BTreeSet<&'static str> {
    let through = boundary.may_use.iter().filter_map(|&name| boundary_of(name)).flat_map(allowed);
    boundary.may_use.iter().copied().chain(through).collect()
}

fn hold(package: &str) {
    let boundary = boundary_of(package).expect("a boundary");
    let allowed = allowed(boundary);
    let metadata = Metadata::read();
    let members: BTreeSet<&str> = metadata.members().map(|package| package.name.as_str()).collect();
    let refused: Vec<String> = dependencies(package, boundary.features)
        .into_iter()
        .filter(|name| (heavy(name) || members.contains(&name[..])) && !allowed.contains(&name[..]))
        .collect();
    assert!(refused.is_empty(), "{package} must not depend on {refused:?}; `cargo tree -p {package} -i NAME` says how");
}

fn heavy(name: &str) -> bool {
    HEAVY.iter().any(|heavy| name.strip_prefix(heavy).is_some_and(|rest| rest.is_empty() || rest.starts_with('-')))
}

fn dependencies(package: &str, features: &[&str]) -> BTreeSet<String> {
    let mut tree = cargo();
    tree.args(["tree", "--package", package, "--edges", "normal,build", "--prefix", "none", "--format", "{p}"]);
    let mut names: BTreeSet<String> = output(tree.args(features))
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect();
    assert!(names.remove(package), "cargo tree does not list {package} itself: {names:?}");
    names
}
