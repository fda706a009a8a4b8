//! What a probe is told, over real connections.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use discovery_core::{Discovery, ErrorKind, Registration};
use discovery_dynamo::Endpoint;
use discovery_health::{HealthServer, HealthSettings, Readiness};
use discovery_memory::Cluster;
use http_body_util::BodyExt;
use hyper::client::conn::http1::handshake;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// Far more than anything here takes.
const DEADLINE: Duration = Duration::from_secs(60);

async fn serve(readiness: &Readiness) -> HealthServer {
    HealthServer::start(HealthSettings::new("127.0.0.1:0"), readiness.clone()).await.unwrap()
}

/// Asks as a probe does: a connection for each request.
async fn ask(server: SocketAddr, method: Method, path: &str) -> (StatusCode, String) {
    let asked = async {
        let stream = TcpStream::connect(server).await.unwrap();
        let (mut client, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        let request = Request::builder().method(method).uri(path).header("host", "probe").body(String::new()).unwrap();
        let answered = async {
            let response = client.send_request(request).await.unwrap();
            let status = response.status();
            (status, response.into_body().collect().await.unwrap().to_bytes())
        };
        let (answer, ended) = tokio::join!(answered, connection);
        ended.unwrap();
        answer
    };
    let (status, body) = timeout(DEADLINE, asked).await.expect("an answer in time");
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn health(server: &HealthServer) -> (u16, String) {
    let (status, body) = ask(server.address(), Method::GET, "/health").await;
    let body: Value = serde_json::from_str(&body).unwrap();
    let because = body["because"].as_array().into_iter().flatten().map(|line| line.as_str().unwrap());
    (status.as_u16(), because.collect::<Vec<_>>().join("; "))
}

async fn eventually(server: &HealthServer, wanted: u16) -> String {
    let start = Instant::now();
    loop {
        let (status, because) = health(server).await;
        if status == wanted {
            return because;
        }
        assert!(start.elapsed() < DEADLINE, "in vain within {DEADLINE:?}: {wanted}, but {status}: {because}");
        // A pause between two looks, not a wait for something to have happened.
        sleep(Duration::from_millis(5)).await;
    }
}

async fn handle(cluster: &Cluster) -> Discovery {
    let backend = Arc::new(cluster.connect_with_ttl(Duration::from_millis(300)));
    Discovery::builder().with_backend(backend).build().await.unwrap()
}

async fn register(discovery: &Discovery, name: &str) -> Arc<Registration<Endpoint>> {
    Arc::new(discovery.register(Endpoint::new("a", "b", name).tcp("h:1")).await.unwrap())
}

#[tokio::test]
async fn the_application_has_the_first_word() {
    let readiness = Readiness::new();
    let server = serve(&readiness).await;
    assert_eq!(health(&server).await, (503, "starting".to_owned()));
    readiness.ready();
    assert_eq!(health(&server).await, (200, String::new()));
    readiness.not_ready("draining");
    assert_eq!(health(&server).await, (503, "draining".to_owned()));
    // Who is not ready lives.
    let live = ask(server.address(), Method::GET, "/live").await;
    assert_eq!(live, (StatusCode::OK, "{\"status\":\"live\"}\n".to_owned()));
}

#[tokio::test]
async fn only_what_a_probe_asks_is_answered() {
    let readiness = Readiness::new();
    readiness.ready();
    let server = serve(&readiness).await;
    for (method, path, status) in [
        (Method::GET, "/health?verbose", 200),
        (Method::HEAD, "/health", 200),
        (Method::HEAD, "/live", 200),
        (Method::POST, "/health", 405),
        (Method::DELETE, "/live", 405),
        (Method::GET, "/", 404),
        (Method::POST, "/healthy", 404),
    ] {
        let (answered, body) = ask(server.address(), method.clone(), path).await;
        assert_eq!(answered.as_u16(), status, "{method} {path}");
        assert_eq!(body.is_empty(), method == Method::HEAD, "{method} {path}: {body}");
    }
}

#[tokio::test]
async fn ready_while_every_required_record_is_stored() {
    let cluster = Cluster::new();
    let discovery = handle(&cluster).await;
    let (one, other) = (register(&discovery, "one").await, register(&discovery, "other").await);
    let readiness = Readiness::new();
    readiness.require(&one);
    readiness.require(&other);
    let server = serve(&readiness).await;
    assert_eq!(health(&server).await, (503, "starting".to_owned()));
    readiness.ready();
    assert_eq!(health(&server).await, (200, String::new()));

    cluster.outage();
    let because = eventually(&server, 503).await;
    assert!(because.contains(&format!("{} is lost: ", one.key())), "{because}");
    cluster.restore();
    assert_eq!(eventually(&server, 200).await, "");
    assert!(discovery.shutdown(DEADLINE).await.is_clean());
}

#[tokio::test]
async fn whether_others_see_it_is_not_asked() {
    let cluster = Cluster::with_readiness();
    let backend = Arc::new(cluster.connect());
    cluster.set_ready(&backend, false);
    let discovery = Discovery::builder().with_backend(Arc::clone(&backend) as _).build().await.unwrap();
    let mine = register(&discovery, "mine").await;
    let seen = discovery.list::<Endpoint>(Endpoint::in_component("a", "b")).await.unwrap();
    assert!(seen.is_empty() && cluster.record_count() == 1, "stored, and not visible");
    let readiness = Readiness::new();
    readiness.require(&mine);
    readiness.ready();
    assert_eq!(health(&serve(&readiness).await).await, (200, String::new()));
}

#[tokio::test]
async fn a_record_that_is_not_wanted_any_more_is_not_looked_at_and_not_kept() {
    let cluster = Cluster::new();
    let discovery = handle(&cluster).await;
    let (withdrawn, dropped) = (register(&discovery, "withdrawn").await, register(&discovery, "dropped").await);
    let readiness = Readiness::new();
    readiness.require(&withdrawn);
    readiness.require(&dropped);
    readiness.ready();
    let server = serve(&readiness).await;
    withdrawn.deregister().await.unwrap();
    assert_eq!(health(&server).await, (200, String::new()));
    drop(dropped);
    timeout(DEADLINE, cluster.wait_until(|cluster| cluster.record_count() == 0)).await.expect("it is withdrawn");
    assert_eq!(health(&server).await, (200, String::new()));
    // What is not stored counts only while somebody wants it.
    cluster.outage();
    assert_eq!(health(&server).await, (200, String::new()));
}

#[tokio::test]
async fn those_who_ask_nothing_make_room() {
    let readiness = Readiness::new();
    readiness.ready();
    let server = serve(&readiness).await;
    let mut idle = Vec::new();
    for _ in 0..64 {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        stream.write_all(b"GET /hea").await.unwrap();
        idle.push(stream);
    }
    // There are more than the server holds: this one waits until the others are cut.
    assert_eq!(health(&server).await, (200, String::new()));
    let mut rest = Vec::new();
    // Cut, in order or not.
    let _ = timeout(DEADLINE, idle[0].read_to_end(&mut rest)).await.expect("it is cut");
    assert!(!rest.starts_with(b"HTTP/1.1 200"), "{rest:?}");
}

#[tokio::test]
async fn a_shutdown_answers_who_is_connected_and_accepts_nobody() {
    let readiness = Readiness::new();
    readiness.ready();
    let server = serve(&readiness).await;
    let address = server.address();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /live HTTP/1.1\r\n").await.unwrap();
    // Accepted in order: once a later one is answered, this one is held.
    assert_eq!(ask(address, Method::GET, "/health").await.0, StatusCode::OK);
    let rest = async {
        stream.write_all(b"host: probe\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let ((), answer) = timeout(DEADLINE, async { tokio::join!(server.shutdown(), rest) }).await.expect("an end");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn dropped_it_is_gone() {
    let server = serve(&Readiness::new()).await;
    let address = server.address();
    let mut stream = TcpStream::connect(address).await.unwrap();
    drop(server);
    let mut rest = Vec::new();
    // Cut, in order or not.
    let _ = timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("it is cut");
    assert!(rest.is_empty());
}

#[tokio::test]
async fn an_address_of_nobody_is_refused_with_what_to_do() {
    let taken = serve(&Readiness::new()).await;
    for address in [taken.address().to_string(), "192.0.2.1:0".to_owned(), "nonsense".to_owned()] {
        let error = HealthServer::start(HealthSettings::new(address.clone()), Readiness::new()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains(&address) && error.to_string().contains("give an address"), "{error}");
    }
}
