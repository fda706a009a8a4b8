//! Registered while a server is healthy.

mod common;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;

use common::Place;
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
