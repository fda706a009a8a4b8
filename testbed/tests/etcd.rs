//! etcd servers of the testbed: what is done to them, and what a client sees of it.

use std::process::Command;
use std::time::Duration;

use discovery_testbed::{Authority, Certificate, Etcd, EtcdCluster, EtcdOptions, EtcdTls, Program, Result};
use tokio::time::timeout;

/// The value of `key`, or an empty line.
async fn value(etcd: &Etcd, key: &str) -> Result<String> {
    Ok(etcd.ctl(["get", "--print-value-only", key]).await?.trim().to_owned())
}

#[tokio::test]
async fn data_outlives_a_kill_and_a_restart_but_no_wipe() -> Result<()> {
    let etcd = Etcd::start().await?;
    let (endpoint, first) = (etcd.endpoint(), etcd.pid());
    etcd.ctl(["put", "key", "kept"]).await?;

    etcd.kill().await?;
    assert_eq!(etcd.pid(), None);
    assert!(etcd.ctl(["--command-timeout=1s", "get", "key"]).await.is_err());
    etcd.restart().await?;
    assert_ne!(etcd.pid(), first);
    assert_eq!((etcd.endpoint(), value(&etcd, "key").await?), (endpoint.clone(), "kept".to_owned()));

    etcd.stop().await?;
    etcd.stop().await?;
    etcd.restart().await?;
    assert_eq!(value(&etcd, "key").await?, "kept");

    etcd.wipe().await?;
    assert_eq!((etcd.endpoint(), value(&etcd, "key").await?), (endpoint, String::new()));
    Ok(())
}

#[tokio::test]
async fn a_paused_server_answers_nobody_and_can_be_stopped_and_killed() -> Result<()> {
    let etcd = Etcd::start().await?;
    let ask = || etcd.ctl(["--command-timeout=1s", "put", "key", "value"]);
    etcd.pause()?;
    assert!(ask().await.is_err());
    etcd.resume()?;
    etcd.wait().await?;
    ask().await?;
    etcd.pause()?;
    etcd.stop().await?;
    etcd.restart().await?;
    etcd.pause()?;
    etcd.kill().await?;
    assert!(etcd.pause().is_err(), "nothing runs");
    Ok(())
}

#[tokio::test]
async fn a_compaction_leaves_no_history() -> Result<()> {
    let etcd = Etcd::start().await?;
    for value in ["one", "two"] {
        etcd.ctl(["put", "key", value]).await?;
    }
    let revision = etcd.compact().await?;
    let old = etcd.ctl(["get", "--rev", &(revision - 1).to_string(), "key"]).await;
    assert!(old.expect_err("compacted").to_string().contains("compacted"));
    assert_eq!(value(&etcd, "key").await?, "two");
    Ok(())
}

#[tokio::test]
async fn tls_with_certificates_and_a_password_are_demanded() -> Result<()> {
    let authority = Authority::new("the test's own")?;
    let server = authority.server()?;
    let tls = EtcdTls {
        authority: authority.certificate(),
        certificate: server.certificate,
        key: server.key,
        demands_clients: true,
    };
    let etcd = Etcd::start_with(EtcdOptions { tls: Some(tls), ..EtcdOptions::default() }).await?;
    etcd.demand_password("not-a-secret").await?;
    etcd.ctl(["put", "key", "value"]).await?;
    etcd.restart().await?;
    assert_eq!(value(&etcd, "key").await?, "value");

    let client = authority.client("a-client")?;
    let stranger = |certificate: Option<&Certificate>| {
        let mut etcdctl = Command::new("env");
        etcdctl.args(Program::Etcdctl.command().expect("etcdctl"));
        etcdctl.arg(format!("--endpoints={}", etcd.endpoint())).arg("--cacert").arg(authority.certificate());
        if let Some(Certificate { certificate, key, .. }) = certificate {
            etcdctl.arg("--cert").arg(certificate).arg("--key").arg(key);
        }
        let output = etcdctl.args(["--command-timeout=2s", "get", "key"]).output().expect("etcdctl runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (let_in, said) = stranger(None);
    assert!(!let_in, "no certificate was shown: {said}");
    let (let_in, said) = stranger(Some(&client));
    assert!(!let_in, "no password was given");
    assert!(said.contains("user name is empty") || said.contains("permission denied"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_quota_raises_the_alarm_and_the_server_still_counts_as_started() -> Result<()> {
    let etcd = Etcd::start_with(EtcdOptions { quota: Some(1 << 20), ..EtcdOptions::default() }).await?;
    let large = "x".repeat(100_000);
    let mut refused = None;
    for n in 0..100 {
        if let Err(error) = etcd.ctl_with(["put", &format!("key-{n}")], &large).await {
            refused = Some(error.to_string());
            break;
        }
    }
    assert!(refused.expect("it grew over its quota").contains("database space exceeded"));
    assert!(etcd.ctl(["alarm", "list"]).await?.contains("NOSPACE"));
    etcd.restart().await
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let flags = vec!["--no-such-flag".to_owned()];
    let error = Etcd::start_with(EtcdOptions { flags, ..EtcdOptions::default() }).await.expect_err("refused");
    let error = error.to_string();
    assert!(error.starts_with("etcd ended before it answered\nthe end of its log:\n"), "{error}");
    assert!(error.contains("no-such-flag"), "{error}");
}

#[tokio::test]
async fn a_cluster_survives_its_leader_and_not_two_members() -> Result<()> {
    let cluster = EtcdCluster::start().await?;
    let leader = cluster.leader().await?;
    let (other, third) = ((leader + 1) % 3, (leader + 2) % 3);
    cluster.move_leader(other).await?;
    assert_eq!(cluster.leader().await?, other);

    let members = cluster.members();
    members[leader].ctl(["put", "key", "kept"]).await?;
    members[other].kill().await?;
    assert_ne!(cluster.leader().await?, other);
    assert_eq!(value(&members[third], "key").await?, "kept");

    members[leader].kill().await?;
    let alone = members[third].ctl(["--command-timeout=2s", "put", "other", "late"]).await;
    assert!(alone.is_err(), "one of three is no majority: {alone:?}");

    cluster.launch()?;
    cluster.wait().await?;
    assert_eq!(value(&members[other], "key").await?, "kept");
    cluster.wipe().await?;
    assert_eq!(value(&members[leader], "key").await?, "");
    Ok(())
}

#[tokio::test]
async fn a_member_that_is_isolated_hears_nothing_of_the_others_until_it_rejoins() -> Result<()> {
    let cluster = EtcdCluster::start_divisible().await?;
    let members = cluster.members();
    let leader = cluster.leader().await?;
    members[leader].ctl(["put", "key", "old"]).await?;
    let stored = async |index: usize| members[index].ctl(["get", "key", "--print-value-only", "--consistency=s"]).await;
    for member in members {
        assert_eq!(value(member, "key").await?, "old");
    }
    // The one that has most to say to the others.
    cluster.isolate(leader)?;
    let other = (leader + 1) % 3;
    let written = async { while members[other].ctl(["put", "key", "new"]).await.is_err() {} };
    timeout(Duration::from_secs(120), written).await.expect("the others choose another leader");
    assert_eq!(stored(leader).await?.trim(), "old", "it answers clients, with what it had");
    let fresh = members[leader].ctl(["--command-timeout=2s", "get", "key"]).await;
    assert!(fresh.is_err(), "nothing that only a majority knows: {fresh:?}");
    cluster.rejoin();
    cluster.wait().await?;
    assert_eq!(value(&members[leader], "key").await?, "new");
    Ok(())
}

#[tokio::test]
async fn a_cluster_keeps_the_options_that_it_was_given() -> Result<()> {
    let times = (Duration::from_millis(200), Duration::from_millis(2_000));
    let options = EtcdOptions { heartbeat_and_election: Some(times), ..EtcdOptions::default() };
    let cluster = EtcdCluster::start_with(options).await?;
    for member in cluster.members() {
        let log = std::fs::read_to_string(member.log()).expect("a log");
        assert!(log.contains(r#""election-timeout":"2s""#), "{}", member.log_tail());
    }
    assert_eq!(cluster.endpoints().split(',').count(), 3);
    Ok(())
}
