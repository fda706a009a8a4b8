//! Which backend a handle is on.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use discovery_core::{BackendFactory, Discovery, Environment, ErrorKind, ExecutorKind, Registry, select};
use discovery_memory as _;

fn environment<const N: usize>(variables: [(&str, &str); N]) -> Environment {
    variables.into_iter().collect()
}

#[test]
fn the_environment_decides() {
    let choice = |variables: &[(&str, &str)]| {
        select(&variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()).unwrap().backend
    };
    assert_eq!(choice(&[]), "file");
    assert_eq!(choice(&[("DYN_DISCOVERY_BACKEND", "")]), "file");
    assert_eq!(choice(&[("ETCD_ENDPOINTS", "http://localhost:2379")]), "etcd");
    assert_eq!(choice(&[("KUBERNETES_SERVICE_HOST", "10.96.0.1")]), "kubernetes");
    assert_eq!(choice(&[("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("ETCD_ENDPOINTS", "x")]), "etcd");
    assert_eq!(choice(&[("DYN_DISCOVERY_BACKEND", "mem"), ("ETCD_ENDPOINTS", "x")]), "mem");
}

#[tokio::test]
async fn a_backend_is_built_by_its_name_or_alias() {
    for name in ["memory", "mem"] {
        let discovery = Discovery::builder()
            .environment(environment([("DYN_DISCOVERY_BACKEND", name)]))
            .executor(ExecutorKind::Current)
            .build()
            .await
            .expect("a handle");
        assert_eq!(discovery.backend_name(), "memory");
        discovery.health().await.expect("healthy");
    }
}

#[tokio::test]
async fn a_backend_that_is_not_linked_in_is_an_error_that_says_what_to_add() {
    for (variables, missing) in [
        (environment([("DYN_DISCOVERY_BACKEND", "consul")]), "consul"),
        (environment([("ETCD_ENDPOINTS", "http://localhost:2379")]), "discovery_etcd"),
        (environment([("KUBERNETES_SERVICE_HOST", "10.96.0.1")]), "discovery_k8s"),
    ] {
        let error = Discovery::builder().environment(variables).build().await.expect_err("not linked in");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        let line = error.to_string();
        assert!(line.contains(missing) && line.contains("memory") && !line.contains('\n'), "{line}");
    }
}

#[test]
fn two_backends_of_one_name_are_an_error_that_names_both() {
    let own = discovery_memory::FACTORY;
    let factory = |origin| BackendFactory::new("memory", origin, own.summary, own.connect).with_aliases(&["mem"]);
    let registry = Registry::empty().with(factory("one-crate")).with(factory("another-crate"));
    let error = registry.find("mem").expect_err("ambiguous").to_string();
    assert!(error.contains("one-crate") && error.contains("another-crate"), "{error}");
}

#[test]
fn settings_are_checked_and_never_shown() {
    let environment = environment([("SECRET", "s3cret"), ("TTL", "soon"), ("EMPTY", ""), ("GOOD", "1.5")]);
    assert!(!format!("{environment:?}").contains("s3cret"));
    assert_eq!(environment.get("EMPTY").unwrap(), None);
    let error = environment.seconds("TTL").expect_err("no number").to_string();
    assert!(error.contains("TTL") && error.contains("number of seconds"), "{error}");
    for (text, told) in [("1e99", "TTL=1e99 is more than 3153600000 seconds"), ("-1e99", "TTL=-1e99 is not a number")] {
        let error = environment.clone().with("TTL", text).seconds("TTL").expect_err("no such time").to_string();
        assert!(error.starts_with(told), "{error}");
    }
    assert_eq!(environment.seconds("GOOD").expect("a number").map(|d| d.as_millis()), Some(1500));
}

#[test]
fn what_is_not_unicode_is_an_error_as_text_and_itself_as_a_path() {
    let broken = OsString::from_vec(b"/tmp/\xff".to_vec());
    let environment = Environment::default().with("PLACE", broken.clone()).with("DYN_DISCOVERY_BACKEND", &broken);
    for error in [
        environment.get("PLACE").expect_err("no text"),
        environment.seconds("PLACE").expect_err("no text"),
        select(&environment).expect_err("no text"),
    ] {
        let line = error.to_string();
        assert!(error.kind() == ErrorKind::InvalidConfig && line.contains("is not Unicode"), "{line}");
        assert!(line.starts_with("PLACE") || line.starts_with("DYN_DISCOVERY_BACKEND"), "{line}");
    }
    assert_eq!(environment.path("PLACE").map(|path| path.as_os_str()), Some(&*broken));
    assert!(environment.is_set("PLACE") && !environment.is_set("OTHER"));
}
