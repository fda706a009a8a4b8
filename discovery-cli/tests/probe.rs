//! Registered while a server is healthy.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;

use common::{Place, Running, eventually};
use rustix::process::Signal;

/// A server that answers every request with the status of the moment.
fn serve(status: Arc<AtomicU16>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read > 0) {
                request.extend(byte);
            }
            let path = request.starts_with(b"GET /health?deep=1 HTTP/1.1\r\n");
            let status = if path { status.load(Ordering::SeqCst) } else { 404 };
            // Whoever asked may have read enough.
            let _ = write!(stream, "HTTP/1.1 {status} x\r\nContent-Length: 0\r\n\r\n");
        }
    });
    format!("http://{address}/health?deep=1")
}

#[test]
fn a_record_comes_and_goes_with_its_servers_health() {
    let place = Place::new();
    let status = Arc::new(AtomicU16::new(503));
    let url = serve(Arc::clone(&status));
    let watch = place.start(&["watch", "--output", "json"]);
    assert_eq!(watch.json()["change"], "synced");
    let arguments = ["register", "endpoint", "a/b/c", "--tcp", "h:1", "--probe", &url, "--probe-interval", "0.02"];
    let mut worker = place.start(&arguments);
    let told = worker.told();
    assert!(told.contains("not healthy") && told.contains("503"), "{told}");

    status.store(200, Ordering::SeqCst);
    let id = worker.line();
    assert_eq!(watch.json()["change"], "added");
    assert!(worker.told().contains("is registered"));
    status.store(500, Ordering::SeqCst);
    assert_eq!(watch.json()["change"], "removed");
    let told = worker.told();
    assert!(told.contains("is withdrawn") && told.contains("500"), "{told}");
    status.store(302, Ordering::SeqCst);
    let back = watch.json();
    assert_eq!((&back["change"], &back["instance_id"]), (&"added".into(), &id.into()));

    worker.signal(Signal::TERM);
    assert_eq!(worker.wait().code(), Some(0));
    assert_eq!(watch.json()["change"], "removed");
}

#[test]
fn a_worker_that_never_was_healthy_ends_in_order() {
    let place = Place::new();
    // Nobody listens there: the port was free a moment ago, and is not given out again so soon.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{address}/");
    let mut worker = place.start(&["register", "endpoint", "a/b/c", "--tcp", "h:1", "--probe", &url]);
    let told = worker.told();
    assert!(told.contains("not healthy") && told.contains("refused"), "{told}");
    worker.signal(Signal::INT);
    assert_eq!(worker.wait().code(), Some(0));
}

/// The answer of a health endpoint: its status, and what it says.
fn health(address: &str, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

#[test]
fn its_own_probe_is_answered_as_the_record_stands() {
    let place = Place::new();
    let status = Arc::new(AtomicU16::new(503));
    let url = serve(Arc::clone(&status));
    // Free a moment ago, and not given out again so soon.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let arguments = ["register", "endpoint", "a/b/c", "--tcp", "h:1", "--health", &address, "--probe", &url];
    let mut worker = place.start(&[&arguments[..], &["--probe-interval", "0.02"]].concat());
    assert!(worker.told().contains("503"));
    let (code, body) = health(&address, "/health").expect("an answer");
    assert!(code == 503 && body.contains("answers 503"), "{code} {body}");
    assert_eq!(health(&address, "/live").expect("an answer").0, 200);

    status.store(200, Ordering::SeqCst);
    worker.line();
    assert_eq!(health(&address, "/health").expect("an answer"), (200, "{\"status\":\"ready\"}\n".to_owned()));
    status.store(500, Ordering::SeqCst);
    eventually("it is not ready", || health(&address, "/health").is_some_and(|(code, _)| code == 503));
    status.store(200, Ordering::SeqCst);
    eventually("it is ready again", || health(&address, "/health").is_some_and(|(code, _)| code == 200));

    worker.signal(Signal::TERM);
    assert_eq!(worker.wait().code(), Some(0));
    assert!(health(&address, "/live").is_none());
}

#[test]
fn the_environment_asks_for_the_endpoints_too() {
    let place = Place::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let start = |port: &str| {
        let mut command = place.command(&["register", "endpoint", "a/b/c", "--tcp", "h:1"]);
        command.env("DYN_SYSTEM_PORT", port).env("DYN_SYSTEM_HOST", "127.0.0.1");
        Running::start(command)
    };
    let worker = start(&port);
    worker.line();
    assert_eq!(health(&format!("127.0.0.1:{port}"), "/health").expect("an answer").0, 200);
    // Two cannot have one port, and the second says so.
    start(&port).ended().assert_fails(2, "no health endpoint at 127.0.0.1");
    start("http").ended().assert_fails(2, "DYN_SYSTEM_PORT");
}
