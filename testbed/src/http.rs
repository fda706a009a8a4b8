//! Asks a server on this machine how it is.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Whether a plain `GET` is answered with 200, in a time that a server which is well keeps easily.
pub(crate) async fn is_well(address: SocketAddr, path: &str) -> bool {
    let answer = async {
        let mut stream = TcpStream::connect(address).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.ok()?;
        Some(answer.starts_with(b"HTTP/1.1 200 "))
    };
    timeout(Duration::from_secs(5), answer).await.ok().flatten().unwrap_or(false)
}
