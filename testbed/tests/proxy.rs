//! The ways in which the testbed's network fails.

use std::time::Duration;

use discovery_testbed::{Direction, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

/// Far beyond what a busy machine takes.
const SOON: Duration = Duration::from_secs(60);

/// Long enough that what passes would have been there.
const A_WHILE: Duration = Duration::from_millis(300);

/// A listener, a proxy to it, and both ends of a connection through it.
async fn connected() -> (TcpListener, Proxy, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let proxy = Proxy::to(listener.local_addr().expect("an address")).expect("a proxy");
    let (client, server) = connect(&listener, &proxy).await;
    (listener, proxy, client, server)
}

async fn connect(listener: &TcpListener, proxy: &Proxy) -> (TcpStream, TcpStream) {
    let client = TcpStream::connect(proxy.address()).await.expect("a connection");
    let (server, _) = timeout(SOON, listener.accept()).await.expect("in time").expect("a connection");
    (client, server)
}

async fn send(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.expect("sent");
}

async fn arrives(stream: &mut TcpStream, text: &str) {
    let mut got = vec![0; text.len()];
    timeout(SOON, stream.read_exact(&mut got)).await.expect("in time").expect("received");
    assert_eq!(got, text.as_bytes());
}

async fn nothing_arrives(stream: &mut TcpStream) {
    let got = timeout(A_WHILE, stream.read_u8()).await;
    assert!(got.is_err(), "{got:?}");
}

async fn is_reset(stream: &mut TcpStream) {
    let got = timeout(SOON, stream.read_u8()).await.expect("in time");
    assert_eq!(got.expect_err("no more bytes").kind(), std::io::ErrorKind::ConnectionReset);
}

async fn is_refused(proxy: &Proxy) {
    let refused = timeout(SOON, TcpStream::connect(proxy.address())).await.expect("in time");
    assert_eq!(refused.expect_err("refused").kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn bytes_pass_both_ways_and_so_does_the_end() {
    let (_listener, _proxy, mut client, mut server) = connected().await;
    send(&mut client, "ping").await;
    arrives(&mut server, "ping").await;
    client.shutdown().await.expect("closed one way");
    assert_eq!(timeout(SOON, server.read(&mut [0])).await.expect("in time").expect("the end"), 0);
    send(&mut server, "pong").await;
    drop(server);
    arrives(&mut client, "pong").await;
    assert_eq!(timeout(SOON, client.read(&mut [0])).await.expect("in time").expect("the end"), 0);
}

#[tokio::test]
async fn a_large_transfer_arrives_whole() {
    let (_listener, proxy, mut client, mut server) = connected().await;
    proxy.delay(Duration::from_millis(5));
    let sent: Vec<u8> = (0..20_000_000_u32).map(|n| (n % 251) as u8).collect();
    let copy = sent.clone();
    let writer = tokio::spawn(async move {
        client.write_all(&copy).await.expect("sent");
        client.shutdown().await.expect("closed");
    });
    let mut got = Vec::new();
    timeout(SOON, server.read_to_end(&mut got)).await.expect("in time").expect("received");
    assert!(got == sent);
    writer.await.expect("written");
}

#[tokio::test]
async fn a_cut_resets_and_refuses() {
    let (_listener, proxy, mut client, mut server) = connected().await;
    proxy.cut();
    is_reset(&mut client).await;
    is_reset(&mut server).await;
    is_refused(&proxy).await;
}

#[tokio::test]
async fn a_change_is_in_force_when_the_call_returns() {
    let (listener, proxy, _client, _server) = connected().await;
    // Many times, for what came too late would mostly be in time.
    for _ in 0..1000 {
        proxy.cut();
        is_refused(&proxy).await;
        proxy.heal();
        let (mut client, mut server) = connect(&listener, &proxy).await;
        proxy.reset();
        is_reset(&mut client).await;
        is_reset(&mut server).await;
        let (mut client, mut server) = connect(&listener, &proxy).await;
        send(&mut client, "ping").await;
        arrives(&mut server, "ping").await;
    }
}

/// A process that is being started has the port open for a moment after it was closed here.
#[tokio::test]
async fn a_port_that_is_given_back_late_is_waited_for() {
    let (listener, proxy, _client, _server) = connected().await;
    proxy.cut();
    let held = std::net::TcpListener::bind(proxy.address()).unwrap();
    let late = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        drop(held);
    });
    proxy.heal();
    late.join().unwrap();
    connect(&listener, &proxy).await;
}

#[tokio::test]
async fn reset_breaks_what_is_open_only() {
    let (listener, proxy, mut client, mut server) = connected().await;
    proxy.reset();
    is_reset(&mut client).await;
    is_reset(&mut server).await;
    connect(&listener, &proxy).await;
}

#[tokio::test]
async fn a_stall_is_half_open_and_loses_nothing() {
    let (listener, proxy, mut client, mut server) = connected().await;
    proxy.stall();
    send(&mut client, "ping").await;
    send(&mut server, "pong").await;
    tokio::join!(nothing_arrives(&mut client), nothing_arrives(&mut server));
    let mut late = timeout(SOON, TcpStream::connect(proxy.address())).await.expect("in time").expect("seems to open");
    send(&mut late, "late").await;
    assert!(timeout(A_WHILE, listener.accept()).await.is_err(), "the server must not see it");
    proxy.heal();
    arrives(&mut server, "ping").await;
    arrives(&mut client, "pong").await;
    let (mut server, _) = timeout(SOON, listener.accept()).await.expect("in time").expect("a connection");
    arrives(&mut server, "late").await;
}

#[tokio::test]
async fn a_stall_passes_on_no_end_of_a_connection() {
    let (_listener, proxy, mut client, server) = connected().await;
    proxy.stall();
    drop(server);
    nothing_arrives(&mut client).await;
    proxy.cut();
    is_reset(&mut client).await;
}

#[tokio::test]
async fn a_stall_towards_clients_lets_requests_through() {
    let (_listener, proxy, mut client, mut server) = connected().await;
    proxy.stall_only(Direction::ToClient);
    send(&mut client, "request").await;
    arrives(&mut server, "request").await;
    send(&mut server, "answer").await;
    nothing_arrives(&mut client).await;
    proxy.heal();
    arrives(&mut client, "answer").await;
}

#[tokio::test]
async fn a_delay_holds_for_its_direction_alone() {
    let (_listener, proxy, mut client, mut server) = connected().await;
    let by = Duration::from_secs(5);
    proxy.delay_only(Direction::ToServer, by);
    let start = Instant::now();
    send(&mut server, "pong").await;
    arrives(&mut client, "pong").await;
    assert!(start.elapsed() < by);
    let start = Instant::now();
    send(&mut client, "one").await;
    send(&mut client, "two").await;
    arrives(&mut server, "onetwo").await;
    assert!(start.elapsed() >= by);
}

#[tokio::test]
async fn a_limit_holds_for_each_connection_by_itself() {
    let (listener, proxy, mut client, mut server) = connected().await;
    let (mut other, mut other_server) = connect(&listener, &proxy).await;
    let text = "x".repeat(10_000);
    proxy.limit(Direction::ToClient, 2_000);
    let start = Instant::now();
    send(&mut server, &text).await;
    let received = async {
        while proxy.received(Direction::ToClient) < text.len() as u64 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, received).await.expect("taken in at once");
    // The other direction has no limit, and another connection waits for nothing but its own bytes.
    send(&mut client, &text).await;
    arrives(&mut server, &text).await;
    send(&mut other_server, "one").await;
    arrives(&mut other, "one").await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    arrives(&mut client, &text).await;
    assert!(start.elapsed() >= Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!((proxy.connections(), proxy.received(Direction::ToServer)), (2, text.len() as u64));
}

#[tokio::test]
async fn nobody_behind_it_shows_as_a_reset() {
    let (listener, proxy, _client, _server) = connected().await;
    drop(listener);
    match TcpStream::connect(proxy.address()).await {
        Ok(mut client) => is_reset(&mut client).await,
        // So soon that it had not yet seen that it was connected.
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }
}

#[tokio::test]
async fn dropping_it_resets_its_connections_and_frees_the_port() {
    let (_listener, proxy, mut client, mut server) = connected().await;
    let address = proxy.address();
    drop(proxy);
    is_reset(&mut client).await;
    is_reset(&mut server).await;
    TcpListener::bind(address).await.expect("the port is free");
}
