//! Users, passwords and certificates: what works, what is refused, and that no secret is told.

mod common;

use std::fs;
use std::time::{Duration, Instant};

use common::*;
use discovery_core::backend::{Backend, Registrar, SessionRequest, Watcher};
use discovery_core::{Discovery, Environment, Error, ErrorKind, InstanceId, Query};
use discovery_dynamo::Endpoint;
use discovery_etcd::EtcdBackend;
use discovery_testbed::{Authority, CapturedLog, Certificate, Etcd, EtcdOptions, EtcdTls, Proxy};

const PASSWORD: &str = "correct-horse-battery";

async fn with_tls(authority: &Authority, demands_clients: bool) -> Etcd {
    let Certificate { certificate, key } = authority.server().unwrap();
    let tls = EtcdTls { authority: authority.certificate(), certificate, key, demands_clients };
    Etcd::start_with(EtcdOptions { tls: Some(tls), ..Default::default() }).await.unwrap()
}

/// Every kind of call.
async fn works(backend: &EtcdBackend) {
    let session = session(backend).await;
    put(&*session, &key(1), "1").await.unwrap();
    publish(&*session, vec![put_of(&key(2), "2"), put_of(&key(3), "3")], true)
        .await
        .into_iter()
        .for_each(|result| drop(result.unwrap()));
    session.renew().await.unwrap();
    session.renew().await.unwrap();
    let wanted = desired([(key(1), "1"), (key(2), "2"), (key(3), "3")]);
    assert!(session.verify(&wanted).await.unwrap().is_empty());
    assert_eq!(listed(backend, &endpoints()).await, wanted);
    let mut fold = Fold::open(backend, &endpoints(), None).await;
    assert_eq!(fold.values(), wanted);
    let barrier = backend.barrier(&endpoints()).await.unwrap().unwrap();
    fold.until("the barrier", |fold| backend.reached(fold.position.as_ref().unwrap(), &barrier)).await;
    backend.health().await.unwrap();
    session.close().await.unwrap();
    fold.until("the end", |fold| fold.entries.is_empty()).await;
}

/// What each kind of call answers where all are refused.
async fn refusals(backend: &EtcdBackend) -> Vec<Error> {
    vec![
        backend.list(&endpoints()).await.map(drop).unwrap_err(),
        backend.watch(&endpoints(), None).await.map(drop).unwrap_err(),
        backend.open(&SessionRequest::default()).await.map(drop).unwrap_err(),
        backend.barrier(&endpoints()).await.map(drop).unwrap_err(),
    ]
}

fn tells_nothing(shown: &str, secrets: &[&str]) {
    for secret in secrets {
        assert!(!shown.contains(secret), "{shown}");
    }
}

fn as_user(endpoint: &str, name: &str, password: &str) -> Environment {
    environment(endpoint).with("ETCD_AUTH_USERNAME", name).with("ETCD_AUTH_PASSWORD", password)
}

/// A user `worker` that may read and write below `v1/`, and nothing else.
async fn add_worker(etcd: &Etcd) {
    etcd.ctl(["role", "add", "discovery"]).await.unwrap();
    etcd.ctl(["role", "grant-permission", "discovery", "readwrite", "--prefix", "v1/"]).await.unwrap();
    etcd.ctl_with(["user", "add", "worker", "--interactive=false"], &format!("{PASSWORD}\n")).await.unwrap();
    etcd.ctl(["user", "grant-role", "worker", "discovery"]).await.unwrap();
}

/// A server that serves its users alone, of which `worker` may use the records.
async fn demanding() -> Etcd {
    let etcd = Etcd::start().await.unwrap();
    etcd.demand_password("root-secret").await.unwrap();
    add_worker(&etcd).await;
    etcd
}

#[tokio::test]
async fn a_user_works_with_no_more_than_its_prefix() {
    let etcd = demanding().await;
    let backend = connect(as_user(&etcd.endpoint(), "worker", PASSWORD)).await.unwrap();
    works(&backend).await;
    tells_nothing(&format!("{backend:?}"), &[PASSWORD]);

    let outside = as_user(&etcd.endpoint(), "worker", PASSWORD).with("DYN_DISCOVERY_ETCD_PREFIX", "elsewhere");
    let anonymous = environment(&etcd.endpoint());
    let wrong = as_user(&etcd.endpoint(), "worker", "guessed-password");
    for environment in [outside, anonymous, wrong] {
        let backend = connect(environment).await.unwrap();
        for error in refusals(&backend).await {
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
            tells_nothing(&format!("{error} {error:?}"), &[PASSWORD, "guessed-password"]);
        }
    }
}

#[tokio::test]
async fn a_reader_needs_no_more_than_what_it_reads() {
    let etcd = demanding().await;
    let owner = connect(as_user(&etcd.endpoint(), "worker", PASSWORD)).await.unwrap();
    etcd.ctl(["role", "add", "reading"]).await.unwrap();
    let read = ["role", "grant-permission", "reading", "read", "--prefix", "v1/instances/dynamo/"];
    etcd.ctl(read).await.unwrap();
    etcd.ctl_with(["user", "add", "reader", "--interactive=false"], &format!("{PASSWORD}\n")).await.unwrap();
    etcd.ctl(["user", "grant-role", "reader", "reading"]).await.unwrap();
    let reader = connect(as_user(&etcd.endpoint(), "reader", PASSWORD)).await.unwrap();
    let mut empty = Fold::open(&reader, &endpoints(), None).await;
    // Nothing was there that proves the history.
    assert!(empty.reopen(&reader, &endpoints()).await);
    let session = session(&owner).await;
    put(&*session, &key(1), "1").await.unwrap();
    let barrier = reader.barrier(&endpoints()).await.unwrap().unwrap();
    let mut fold = Fold::open(&reader, &endpoints(), None).await;
    fold.until("the barrier", |fold| reader.reached(fold.position.as_ref().unwrap(), &barrier)).await;
    assert_eq!(fold.values(), desired([(key(1), "1")]));
}

#[tokio::test]
async fn a_session_that_cannot_be_opened_leaves_no_lease_and_the_next_one_works() {
    let etcd = demanding().await;
    etcd.ctl(["role", "revoke-permission", "discovery", "--prefix", "v1/"]).await.unwrap();
    etcd.ctl(["role", "grant-permission", "discovery", "read", "--prefix", "v1/"]).await.unwrap();
    let backend = connect(as_user(&etcd.endpoint(), "worker", PASSWORD)).await.unwrap();
    let request = SessionRequest::new(None, Some(InstanceId(77)));
    for _ in 0..3 {
        let error = backend.open(&request).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    }
    assert_eq!(etcd.ctl(["lease", "list"]).await.unwrap().lines().count(), 1, "the headline alone");
    assert_eq!(backend.lease(), None);
    etcd.ctl(["role", "grant-permission", "discovery", "readwrite", "--prefix", "v1/"]).await.unwrap();
    until("a session", || async { backend.open(&request).await.is_ok() }).await;
    assert!(backend.lease().is_some());
}

#[tokio::test]
async fn who_gives_up_waiting_for_a_silent_member_comes_to_the_next_one() {
    let etcd = demanding().await;
    let silent = Proxy::to_port(etcd.port()).unwrap();
    silent.stall();
    // Signing in takes an answer, so that connecting takes two seconds there.
    let list = format!("http://{},{}", silent.address(), etcd.endpoint());
    let backend = with_first_of(as_user(&list, "worker", PASSWORD)).await;
    let patience = Duration::from_millis(1_200);
    until("a list from the other member", || async {
        tokio::time::timeout(patience, backend.list(&endpoints())).await.is_ok_and(|listed| listed.is_ok())
    })
    .await;
    until("a session at the other member", || async {
        tokio::time::timeout(patience, backend.open(&SessionRequest::default()))
            .await
            .is_ok_and(|opened| opened.is_ok())
    })
    .await;
}

#[tokio::test]
async fn a_user_that_is_not_asked_for_is_not_used() {
    let etcd = Etcd::start().await.unwrap();
    works(&connect(as_user(&etcd.endpoint(), "worker", PASSWORD)).await.unwrap()).await;
}

#[tokio::test]
async fn a_restarted_server_forgets_its_tokens_and_nobody_notices() {
    let etcd = demanding().await;
    let backend = connect(as_user(&etcd.endpoint(), "worker", PASSWORD)).await.unwrap();
    let session = session(&backend).await;
    put(&*session, &key(1), "1").await.unwrap();
    let mut fold = Fold::open(&backend, &endpoints(), None).await;
    etcd.restart().await.unwrap();
    fold.failure("the end of the server").await;
    until("a renewal", || async { session.renew().await.is_ok() }).await;
    put(&*session, &key(1), "2").await.unwrap();
    let mut second = Fold::open(&backend, &endpoints(), fold.position.as_ref()).await;
    second.until("the update", |fold| fold.entries.contains_key(&key(1))).await;
    assert_eq!(listed(&backend, &endpoints()).await, desired([(key(1), "2")]));
}

#[tokio::test]
async fn a_token_that_has_run_out_is_replaced_and_nobody_notices() {
    let options = EtcdOptions {
        flags: ["--auth-token-ttl=2", "--log-level=debug"].map(str::to_owned).into(),
        ..Default::default()
    };
    let etcd = Etcd::start_with(options).await.unwrap();
    etcd.demand_password("root-secret").await.unwrap();
    add_worker(&etcd).await;
    let network = Proxy::to_port(etcd.port()).unwrap();
    let backend = connect(as_user(&behind([&network]), "worker", PASSWORD)).await.unwrap();
    assert!(listed(&backend, &endpoints()).await.is_empty());
    drop(Fold::open(&backend, &endpoints(), None).await);
    let session = backend.open(&SessionRequest::new(Some(DEADLINE), None)).await.unwrap();
    session.renew().await.unwrap();
    assert_eq!(network.connections(), 3);
    until("the token of each connection to run out", || async {
        let log = fs::read_to_string(etcd.log()).unwrap();
        log.lines().filter(|line| line.contains("deleted a simple token") && line.contains("worker")).count() >= 3
    })
    .await;
    assert!(listed(&backend, &endpoints()).await.is_empty());
    Fold::open(&backend, &endpoints(), None).await;
    session.renew().await.unwrap();
    assert_eq!(network.connections(), 3, "nothing connects anew for it");
}

#[tokio::test]
async fn a_permission_that_is_taken_away_ends_the_watch_and_comes_back() {
    let etcd = demanding().await;
    let backend = connect(as_user(&etcd.endpoint(), "worker", PASSWORD)).await.unwrap();
    let session = session(&backend).await;
    put(&*session, &key(1), "1").await.unwrap();
    let mut fold = Fold::open(&backend, &endpoints(), None).await;
    etcd.ctl(["user", "revoke-role", "worker", "discovery"]).await.unwrap();
    let start = std::time::Instant::now();
    // The first failure may be that users changed; what comes after says why.
    let mut error = fold.failure("the refusal").await;
    assert!(start.elapsed() < backend.bounds().recovery, "{:?}: {error}", start.elapsed());
    while error.kind() != ErrorKind::PermissionDenied {
        assert!(error.is_temporary(), "{error}");
        error = match backend.watch(&endpoints(), fold.position.as_ref()).await {
            Ok(_) => panic!("opened without permission"),
            Err(error) => error,
        };
    }
    error = put(&*session, &key(2), "2").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    etcd.ctl(["user", "grant-role", "worker", "discovery"]).await.unwrap();
    until("a write", || async { put(&*session, &key(2), "2").await.is_ok() }).await;
    let mut second = Fold::open(&backend, &endpoints(), fold.position.as_ref()).await;
    second.until("the write", |fold| fold.entries.contains_key(&key(2))).await;
}

#[tokio::test]
async fn tls_is_checked_against_the_authority_that_is_given() {
    let authority = Authority::new("the right one").unwrap();
    let etcd = with_tls(&authority, false).await;
    let trusting = |file: &std::path::Path| environment(&etcd.endpoint()).with("ETCD_AUTH_CA", file.to_str().unwrap());
    works(&connect(trusting(&authority.certificate())).await.unwrap()).await;
    // As text, and for an endpoint without a scheme.
    let text = fs::read_to_string(authority.certificate()).unwrap();
    let bare = etcd.endpoint().replace("https://", "");
    works(&connect(environment(&bare).with("ETCD_AUTH_CA", text)).await.unwrap()).await;

    let stranger = Authority::new("another one").unwrap();
    for environment in [trusting(&stranger.certificate()), environment(&etcd.endpoint())] {
        let backend = connect(environment).await.unwrap();
        for error in refusals(&backend).await {
            assert!(error.to_string().contains("ETCD_AUTH_CA"), "{error}");
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        }
    }
    // The same server by an address that is not in its certificate.
    let elsewhere = etcd.endpoint().replace("127.0.0.1", "[::ffff:127.0.0.1]");
    let trusted = environment(&elsewhere).with("ETCD_AUTH_CA", authority.certificate().to_str().unwrap());
    for error in refusals(&connect(trusted).await.unwrap()).await {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.to_string().contains("certificate does not fit"), "{error}");
    }
    // An authority that is replaced in place.
    let place = tempfile::NamedTempFile::new().unwrap();
    fs::copy(stranger.certificate(), place.path()).unwrap();
    let backend = connect(trusting(place.path())).await.unwrap();
    refusals(&backend).await;
    fs::copy(authority.certificate(), place.path()).unwrap();
    works(&backend).await;
    // Not encrypted.
    let backend = connect(environment(&etcd.endpoint().replace("https", "http"))).await.unwrap();
    for error in refusals(&backend).await {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_and_demanded_together_with_a_password() {
    let authority = Authority::new("the right one").unwrap();
    let etcd = with_tls(&authority, true).await;
    let client = authority.client("worker").unwrap();
    let trusting = environment(&etcd.endpoint()).with("ETCD_AUTH_CA", authority.certificate().to_str().unwrap());
    let with_client = |client: &Certificate| {
        trusting
            .clone()
            .with("ETCD_AUTH_CLIENT_CERT", client.certificate.to_str().unwrap())
            .with("ETCD_AUTH_CLIENT_KEY", client.key.to_str().unwrap())
    };
    works(&connect(with_client(&client)).await.unwrap()).await;
    let text = trusting
        .clone()
        .with("ETCD_AUTH_CLIENT_CERT", fs::read_to_string(&client.certificate).unwrap())
        .with("ETCD_AUTH_CLIENT_KEY", fs::read_to_string(&client.key).unwrap());
    let backend = connect(text).await.unwrap();
    works(&backend).await;
    let secret = fs::read_to_string(&client.key).unwrap();
    let secret = secret.lines().nth(1).unwrap();
    tells_nothing(&format!("{backend:?}"), &[secret]);

    let other = Authority::new("another one").unwrap();
    let stranger = other.client("worker").unwrap();
    for environment in [trusting.clone(), with_client(&stranger)] {
        for error in refusals(&connect(environment).await.unwrap()).await {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
            assert!(error.to_string().contains("certificate"), "{error}");
            tells_nothing(&format!("{error} {error:?}"), &[secret]);
        }
    }
    // The files of an authority go with it: a certificate that is not there is refused before any I/O.
    drop(other);
    assert_eq!(connect(with_client(&stranger)).await.unwrap_err().kind(), ErrorKind::InvalidConfig);

    // All of it at once, and nothing of it in the most talkative log.
    let log = CapturedLog::of_this_thread(tracing::Level::TRACE);
    etcd.demand_password("root-secret").await.unwrap();
    add_worker(&etcd).await;
    let both = with_client(&client).with("ETCD_AUTH_USERNAME", "worker").with("ETCD_AUTH_PASSWORD", PASSWORD);
    let backend = connect(both).await.unwrap();
    works(&backend).await;
    tells_nothing(&format!("{backend:?}"), &[secret, PASSWORD]);
    let log = log.text();
    assert!(log.contains("HEADERS"), "the log tells of what is sent");
    tells_nothing(&log, &[secret, PASSWORD]);
    // The server's tokens begin with sixteen letters and a dot.
    let token =
        |word: &str| word.find('.').is_some_and(|at| at == 16 && word[..at].chars().all(|c| c.is_ascii_alphabetic()));
    let words = log.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
    assert_eq!(words.into_iter().find(|word| token(word)), None);
}

#[tokio::test]
async fn users_may_come_to_be_demanded_while_a_handle_is_at_work() {
    let etcd = Etcd::start().await.unwrap();
    let backend = connect(as_user(&etcd.endpoint(), "worker", PASSWORD)).await.unwrap();
    // Nobody renews it while etcdctl is at work, which takes long on a busy machine.
    let session = backend.open(&SessionRequest::new(Some(DEADLINE), None)).await.unwrap();
    put(&*session, &key(1), "1").await.unwrap();
    session.renew().await.unwrap();
    add_worker(&etcd).await;
    etcd.demand_password("root-secret").await.unwrap();
    until("a renewal", || async { session.renew().await.is_ok() }).await;
    put(&*session, &key(2), "2").await.unwrap();
    assert_eq!(listed(&backend, &endpoints()).await, desired([(key(1), "1"), (key(2), "2")]));
}

/// Whatever is asked for first over a connection that was made before that.
#[tokio::test]
async fn nothing_fails_for_good_where_users_come_to_be_demanded() {
    let etcd = Etcd::start().await.unwrap();
    let handle = || async {
        let environment = as_user(&etcd.endpoint(), "worker", PASSWORD);
        Discovery::builder()
            .environment(environment)
            .backend("etcd")
            .ttl(Duration::from_secs(60))
            .build()
            .await
            .unwrap()
    };
    let (writing, opening, watching) = (handle().await, handle().await, handle().await);
    let endpoint = |name: &str| Endpoint::new("dynamo", "backend", name).tcp("10.0.0.5:9000");
    let _before = writing.register(endpoint("before")).await.unwrap();
    opening.health().await.unwrap();
    let before = watching.view::<Endpoint>(Query::path(["dynamo", "backend", "before"])).await.unwrap();
    assert_eq!(before.load().len(), 1);
    add_worker(&etcd).await;
    etcd.demand_password("root-secret").await.unwrap();
    let _written = writing.register(endpoint("written")).await.unwrap();
    let _opened = opening.register(endpoint("opened")).await.unwrap();
    let after = watching.view::<Endpoint>(Query::path(["dynamo", "backend", "written"])).await.unwrap();
    assert_eq!(after.load().len(), 1);
    for handle in [writing, opening, watching] {
        handle.shutdown(Duration::from_secs(5)).await;
    }
}

#[tokio::test]
async fn a_new_history_is_signed_in_to_anew_once_the_loss_of_the_old_one_is_proven() {
    let etcd = demanding().await;
    let backend = connect(as_user(&etcd.endpoint(), "worker", PASSWORD)).await.unwrap();
    let session = session(&backend).await;
    for value in 0..100 {
        put(&*session, &key(1), value.to_string()).await.unwrap();
    }
    // Every connection is signed in, late in this history.
    assert_eq!(listed(&backend, &endpoints()).await.len(), 1);
    backend.barrier(&endpoints()).await.unwrap();
    etcd.wipe().await.unwrap();
    etcd.demand_password("root-secret").await.unwrap();
    add_worker(&etcd).await;
    until("a proof of the loss", || async { backend.barrier(&endpoints()).await.is_ok() }).await;
    // etcd lets a token wait until it has come as far as where the token was given out.
    let begun = Instant::now();
    assert!(listed(&backend, &endpoints()).await.is_empty());
    assert!(begun.elapsed() < backend.bounds().recovery, "{:?}", begun.elapsed());
}
