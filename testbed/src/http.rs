//! Asks a server on this machine how it is.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// No answer to a question of this sort is longer.
const MOST: u64 = 64 * 1024;

/// Whether a plain `GET` is answered with 200, in a time that a server which is well keeps easily.
pub(crate) async fn is_well(address: SocketAddr, path: &str) -> bool {
    timeout(Duration::from_secs(5), get(address, path))
        .await
        .is_ok_and(|answer| answer.is_ok_and(|status| status == 200))
}

/// Asks by a plain `GET`, and answers the status. Cancel-safe.
pub(crate) async fn get(address: SocketAddr, path: &str) -> io::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MOST).read_to_end(&mut answer).await?;
    let status =
        answer.strip_prefix(b"HTTP/1.1 ").and_then(|rest| std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok());
    status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not an answer of HTTP"))
}
