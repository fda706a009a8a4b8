//! What a command and the keeper say to each other: a line each way, over a connection on 127.0.0.1.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Report;

/// No line is longer.
const LINE: u64 = 1 << 20;
/// How long whoever has connected may take to say what it wants.
const QUESTION: Duration = Duration::from_secs(5);

/// What is asked of the keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ask {
    /// How the servers are.
    Status,
    /// Start those that have ended, then tell how they are.
    Start,
}

/// What the keeper answers: how the servers are, or what was in vain.
pub(super) type Answer = Result<Report, String>;

/// Asks the keeper that listens on this port.
pub(super) async fn ask(port: u16, ask: Ask, patience: Duration) -> io::Result<Answer> {
    let exchange = async {
        let mut stream = BufReader::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?);
        say(&mut stream, &ask).await?;
        hear(&mut stream).await
    };
    timeout(patience, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// What whoever has connected asks.
pub(super) async fn asked(stream: &mut BufReader<TcpStream>) -> io::Result<Ask> {
    timeout(QUESTION, hear(stream)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

pub(super) async fn say(stream: &mut BufReader<TcpStream>, what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.flush().await
}

async fn hear<T: serde::de::DeserializeOwned>(stream: &mut BufReader<TcpStream>) -> io::Result<T> {
    let mut line = String::new();
    stream.take(LINE).read_line(&mut line).await?;
    Ok(serde_json::from_str(&line)?)
}
