//! What the doctor says of an etcd that is broken in one way or another.

mod common;

use common::{Ended, Place, Running, eventually};
use discovery_testbed::{Authority, Etcd, EtcdCluster, EtcdOptions, EtcdTls, Proxy};
use rustix::process::Signal;
use serde_json::Value;

const SECRET: &str = "correct-horse-battery";

fn doctor(place: &Place, variables: &[(&str, &str)], words: &[&str]) -> Ended {
    let mut command = place.command(&["doctor"]);
    command.env("DYN_DISCOVERY_BACKEND", "etcd").args(words).envs(variables.iter().copied());
    let ended = Running::start(command).ended();
    for shown in [&ended.stdout, &ended.stderr] {
        assert!(!shown.contains(SECRET) && !shown.contains("PRIVATE KEY"), "{shown}");
    }
    ended
}

fn at(endpoints: &str) -> Ended {
    doctor(&Place::new(), &[("ETCD_ENDPOINTS", endpoints)], &[])
}

/// The line of this verdict that says all of this.
fn says(ended: &Ended, verdict: &str, words: &[&str]) {
    let line = ended
        .stdout
        .lines()
        .find(|line| line.split_whitespace().next() == Some(verdict) && words.iter().all(|word| line.contains(word)));
    assert!(line.is_some(), "{verdict} {words:?}: {}", ended.stdout);
}

/// It fails, and says this of what is wrong.
fn wrong(ended: &Ended, words: &[&str]) {
    assert!(ended.code == Some(1) && ended.stderr.contains("wrong"), "{ended:?}");
    says(ended, "WRONG", words);
}

async fn with_tls(authority: &Authority, demands_clients: bool) -> Etcd {
    let server = authority.server().unwrap();
    let (certificate, key) = (server.certificate, server.key);
    let tls = EtcdTls { authority: authority.certificate(), certificate, key, demands_clients };
    Etcd::start_with(EtcdOptions { tls: Some(tls), ..Default::default() }).await.unwrap()
}

#[tokio::test]
async fn a_well_etcd_is_fine_for_people_and_for_programs() {
    let etcd = Etcd::start().await.unwrap();
    let ended = at(&etcd.endpoint());
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{}", ended.stdout);
    assert!(ended.stdout.lines().all(|line| line.starts_with("ok")), "{}", ended.stdout);
    says(&ended, "ok", &["endpoint", &etcd.endpoint(), "leads", " ms", "KiB of 2 GiB stored"]);
    says(&ended, "ok", &["leases", "0 records under 0 leases"]);

    let ended = doctor(&Place::new(), &[("ETCD_ENDPOINTS", &etcd.endpoint())], &["--output", "json"]);
    let told: Vec<Value> = serde_json::from_str(&ended.stdout).unwrap();
    assert!(told.iter().all(|finding| finding["verdict"] == "ok" && finding["text"].is_string()), "{}", ended.stdout);
    let details = told.iter().find(|finding| finding["what"] == "endpoint").map(|finding| &finding["details"]).unwrap();
    assert_eq!(details["endpoint"], etcd.endpoint());
    assert_eq!(details["leader_id"], details["member_id"]);
    assert!(details["read_ms"].is_f64() && details["stored_bytes"].is_u64() && details["version"].is_string());
}

#[tokio::test]
async fn one_dead_member_of_three_is_poor_and_two_are_wrong() {
    let cluster = EtcdCluster::start().await.unwrap();
    let [first, _, third] = cluster.members() else { panic!("three members") };
    third.kill().await.unwrap();
    let mut ended = at(&cluster.endpoints());
    eventually("a leader among the others", || {
        ended = at(&cluster.endpoints());
        ended.code == Some(0)
    });
    assert!(!ended.stdout.contains("WRONG"), "{}", ended.stdout);
    says(&ended, "poor", &["endpoint ", &third.endpoint(), "nothing listens there"]);
    says(&ended, "poor", &["endpoints", "2 of 3 serve"]);

    first.kill().await.unwrap();
    eventually("the majority to be missed", || {
        ended = at(&cluster.endpoints());
        ended.stdout.contains("no leader")
    });
    wrong(&ended, &["endpoint ", &cluster.members()[1].endpoint(), "no leader", "do most of the members run"]);
    wrong(&ended, &["endpoints", "0 of 3 serve"]);
}

#[tokio::test]
async fn addresses_that_lead_nowhere_are_told_apart() {
    let etcd = Etcd::start().await.unwrap();
    let proxy = Proxy::to_port(etcd.port()).unwrap();
    let (closed, silent) = (proxy.address(), Proxy::to_port(etcd.port()).unwrap());
    drop(proxy);
    silent.stall();
    wrong(&at(&format!("http://{closed}")), &["endpoint", &closed.to_string(), "nothing listens there"]);
    // Too long for a name, so that nobody is asked for it.
    wrong(&at(&format!("http://{}:2379", "x".repeat(64))), &["endpoint", "does not resolve", "ETCD_ENDPOINTS"]);
    let silent = silent.address().to_string();
    wrong(&at(&format!("http://{silent}")), &["endpoint", &silent, "did not answer"]);
    etcd.pause().unwrap();
    wrong(&at(&etcd.endpoint()), &["endpoint", &etcd.endpoint(), "did not answer"]);
    wrong(&at("ftp://somewhere"), &["backend", "ftp://somewhere"]);
}

#[tokio::test]
async fn two_clusters_under_one_name_are_wrong() {
    let (one, two) = (Etcd::start().await.unwrap(), Etcd::start().await.unwrap());
    // Their ids come of their names and addresses.
    let ended = at(&format!("{},{}", one.endpoint(), two.endpoint()));
    wrong(&ended, &["endpoints", "2 clusters"]);
}

#[tokio::test]
async fn certificates_are_told_apart() {
    let (authority, other) = (Authority::new("an authority").unwrap(), Authority::new("another").unwrap());
    let (ca, other) = (authority.certificate(), other.certificate());
    let (ca, other) = (ca.to_str().unwrap(), other.to_str().unwrap());
    let place = Place::new();
    let plain = Etcd::start().await.unwrap();
    wrong(&at(&plain.endpoint().replace("http", "https")), &["endpoint", "speaks no TLS"]);

    let secure = with_tls(&authority, false).await;
    let endpoint = secure.endpoint();
    wrong(&at(&endpoint.replace("https", "http")), &["endpoint", "TLS", "https"]);
    wrong(&at(&endpoint), &["endpoint", "ETCD_AUTH_CA"]);
    let trusting = |ca| doctor(&place, &[("ETCD_ENDPOINTS", &endpoint), ("ETCD_AUTH_CA", ca)], &[]);
    wrong(&trusting(other), &["endpoint", "ETCD_AUTH_CA"]);
    assert_eq!(trusting(ca).code, Some(0));
    wrong(&trusting("/nowhere/ca.pem"), &["ETCD_AUTH_CA", "/nowhere/ca.pem"]);

    let mutual = with_tls(&authority, true).await;
    let ended = doctor(&place, &[("ETCD_ENDPOINTS", &mutual.endpoint()), ("ETCD_AUTH_CA", ca)], &[]);
    wrong(&ended, &["endpoint", "client", "certificate"]);
}

#[tokio::test]
async fn users_are_told_apart() {
    let etcd = Etcd::start().await.unwrap();
    etcd.demand_password(SECRET).await.unwrap();
    let (place, endpoint) = (Place::new(), etcd.endpoint());
    wrong(&at(&endpoint), &["endpoint", "ETCD_AUTH_USERNAME"]);
    let signed = |password| {
        let user =
            [("ETCD_ENDPOINTS", endpoint.as_str()), ("ETCD_AUTH_USERNAME", "root"), ("ETCD_AUTH_PASSWORD", password)];
        doctor(&place, &user, &[])
    };
    wrong(&signed("correct-horse-battery-staple"), &["endpoint", "ETCD_AUTH_USERNAME"]);
    assert_eq!(signed(SECRET).code, Some(0));

    etcd.ctl_with(["user", "add", "nobody", "--interactive=false"], &format!("{SECRET}\n")).await.unwrap();
    let user =
        [("ETCD_ENDPOINTS", endpoint.as_str()), ("ETCD_AUTH_USERNAME", "nobody"), ("ETCD_AUTH_PASSWORD", SECRET)];
    wrong(&doctor(&place, &user, &[]), &["endpoint", "permission denied", "grant"]);
}

#[tokio::test]
async fn a_full_database_is_wrong_and_says_how_to_make_room() {
    let etcd = Etcd::start_with(EtcdOptions { quota: Some(1 << 20), ..EtcdOptions::default() }).await.unwrap();
    let large = "x".repeat(200_000);
    let mut n = 0;
    while etcd.ctl_with(["put", &format!("key-{n}")], &large).await.is_ok() {
        n += 1;
        assert!(n < 100, "it grows beyond its quota");
    }
    wrong(&at(&etcd.endpoint()), &["endpoint", "NOSPACE", "defragment", "alarm disarm", "of 1 MiB stored"]);
}

#[tokio::test]
async fn leases_that_nobody_renews_and_records_without_one_are_poor() {
    let etcd = Etcd::start().await.unwrap();
    let place = Place::new();
    let register = |name: &str| {
        let mut command = place.command(&["register", "endpoint", name, "--tcp", "10.0.0.5:9000"]);
        command.env("DYN_DISCOVERY_BACKEND", "etcd").env("ETCD_ENDPOINTS", etcd.endpoint()).env("ETCD_LEASE_TTL", "9");
        Running::start(command)
    };
    let (renewing, stopped) = (register("a/b/renewing"), register("a/b/stopped"));
    renewing.line();
    stopped.line();
    says(&at(&etcd.endpoint()), "ok", &["leases", "2 records under 2 leases", "all renewed"]);

    let value = r#"{"type":"Endpoint","component":"b","endpoint":"c","namespace":"a","instance_id":7,"transport":{"tcp":"h:1"}}"#;
    etcd.ctl(["put", "v1/instances/a/b/c/7", value]).await.unwrap();
    let ended = at(&etcd.endpoint());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    says(&ended, "poor", &["leases", "1 records under no lease", "v1/instances/a/b/c/7", "etcdctl del"]);

    stopped.signal(Signal::STOP);
    let mut ended = ended;
    eventually("a lease that is not renewed", || {
        ended = at(&etcd.endpoint());
        ended.stdout.contains("not renewed")
    });
    says(&ended, "poor", &["leases", "; 1 not renewed", "v1/instances/a/b/stopped/", " s left of 9 s"]);
}
