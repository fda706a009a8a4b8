//! What is said of endpoints that cannot be used.

mod common;

use common::*;
use discovery_core::ErrorKind;
use discovery_etcd::{Config, diagnose};
use discovery_testbed::{Authority, Certificate, Etcd, EtcdOptions, EtcdTls, Proxy};

async fn findings(environment: discovery_core::Environment) -> Vec<discovery_etcd::Finding> {
    diagnose(&Config::from_environment(&environment).unwrap()).await
}

#[tokio::test]
async fn each_endpoint_says_who_it_is_or_why_it_cannot_be_used() {
    let well = Etcd::start().await.unwrap();
    let silent = Proxy::to_port(well.port()).unwrap();
    silent.stall();
    let refusing = Proxy::to_port(well.port()).unwrap();
    let refused = refusing.address();
    drop(refusing);
    // Too long for a name, so that nobody is asked for it.
    let nameless = "x".repeat(64);
    let list = format!("{},http://{},http://{refused},http://{nameless}:2379", well.endpoint(), silent.address());
    let found = findings(environment(&list)).await;
    let member = found[0].outcome.as_ref().unwrap();
    assert!(member.version.starts_with("3.") && member.problems.is_empty(), "{member:?}");
    assert!(member.leader == Some(member.id) && member.latency.is_some(), "{member:?}");
    let texts: Vec<_> = found[1..].iter().map(|finding| finding.outcome.as_ref().unwrap_err().to_string()).collect();
    for (text, hint) in texts.iter().zip(["did not answer", "nothing listens", "does not resolve"]) {
        assert!(text.contains(hint), "{text} should say: {hint}");
    }
}

#[tokio::test]
async fn users_certificates_and_alarms_are_told_apart() {
    let locked = Etcd::start().await.unwrap();
    locked.demand_password("root-secret").await.unwrap();
    let found = findings(environment(&locked.endpoint())).await;
    let shown = format!("{:?}", found[0].outcome);
    assert!(shown.contains("ETCD_AUTH_USERNAME"), "{shown}");
    let wrong = environment(&locked.endpoint()).with("ETCD_AUTH_USERNAME", "root").with("ETCD_AUTH_PASSWORD", "guess");
    let error = findings(wrong).await.remove(0).outcome.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert!(!format!("{error:?}").contains("guess"));

    let authority = Authority::new("an authority").unwrap();
    let Certificate { certificate, key: private } = authority.server().unwrap();
    let tls = EtcdTls { authority: authority.certificate(), certificate, key: private, demands_clients: false };
    let secure = Etcd::start_with(EtcdOptions { tls: Some(tls), ..Default::default() }).await.unwrap();
    let error = findings(environment(&secure.endpoint())).await.remove(0).outcome.unwrap_err();
    assert!(error.to_string().contains("ETCD_AUTH_CA"), "{error}");
    let plain = Etcd::start().await.unwrap();
    let error = findings(environment(&plain.endpoint().replace("http", "https"))).await.remove(0).outcome.unwrap_err();
    assert!(error.to_string().contains("speaks no TLS"), "{error}");

    let small = Etcd::start_with(EtcdOptions { quota: Some(2 << 20), ..Default::default() }).await.unwrap();
    let backend = backend(&small.endpoint()).await;
    let session = session(&backend).await;
    let value = vec![b'1'; 500_000];
    for id in 0.. {
        if put(&*session, &key(id), &value).await.is_err() {
            break;
        }
    }
    let member = findings(environment(&small.endpoint())).await.remove(0).outcome.unwrap();
    assert!(member.problems.iter().any(|problem| problem.contains("NOSPACE")), "{member:?}");
}

#[tokio::test]
async fn a_member_without_a_leader_says_so() {
    let cluster = discovery_testbed::EtcdCluster::start().await.unwrap();
    for member in &cluster.members()[1..] {
        member.kill().await.unwrap();
    }
    until("the leader to be missed", || async {
        let found = findings(environment(&cluster.members()[0].endpoint())).await.remove(0);
        let shown = format!("{:?}", found.outcome);
        shown.contains("no leader")
    })
    .await;
}
