//! Whether a server is healthy, asked over HTTP.

use std::str::FromStr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// How many probes in a row it takes to change an opinion.
const IN_A_ROW: u32 = 2;
/// The longest time that one probe may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// No status line is longer.
const STATUS_LINE: usize = 1024;

/// `http://HOST:PORT/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProbeUrl {
    /// As it stands in the `Host` header.
    host: String,
    /// What to connect to.
    address: String,
    target: String,
}

impl FromStr for ProbeUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected http://HOST:PORT/PATH".to_owned();
        let rest = text.strip_prefix("http://").ok_or_else(expected)?;
        let split = rest.find(['/', '?']).unwrap_or(rest.len());
        let (host, target) = rest.split_at(split);
        if target.contains('#') || text.chars().any(|c| c.is_control() || c.is_whitespace()) || host.contains('@') {
            return Err(expected());
        }
        // The colons of an IPv6 address stand in brackets.
        let after_brackets = host.rfind(']').map_or(0, |bracket| bracket + 1);
        let (name, port) = match host[after_brackets..].rfind(':') {
            Some(colon) => {
                let (name, port) = host.split_at(after_brackets + colon);
                (name, port[1..].parse::<u16>().map_err(|_| expected())?)
            }
            None => (host, 80),
        };
        if name.is_empty() || port == 0 {
            return Err(expected());
        }
        let slash = if target.starts_with('/') { "" } else { "/" };
        Ok(Self { host: host.to_owned(), address: format!("{name}:{port}"), target: format!("{slash}{target}") })
    }
}

impl ProbeUrl {
    /// Asks once: `Ok` for 2xx and 3xx, else why not.
    async fn ask(&self) -> Result<(), String> {
        let reach = |error: std::io::Error| format!("{}: {error}", self.address);
        let mut stream = TcpStream::connect(&self.address).await.map_err(reach)?;
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: discovery\r\nAccept: */*\r\nConnection: close\r\n\r\n",
            self.target, self.host
        );
        stream.write_all(request.as_bytes()).await.map_err(reach)?;
        let mut answer = Vec::new();
        while !answer.contains(&b'\n') && answer.len() < STATUS_LINE {
            if stream.read_buf(&mut answer).await.map_err(reach)? == 0 {
                break;
            }
        }
        let status = status_of(&answer).ok_or_else(|| format!("{}: the answer is not HTTP", self.address))?;
        if (200..400).contains(&status) { Ok(()) } else { Err(format!("{} answers {status}", self.address)) }
    }
}

fn status_of(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|byte| *byte == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    words.next()?.starts_with("HTTP/").then_some(())?;
    words.next()?.parse().ok()
}

/// Seconds above zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interval(pub(crate) Duration);

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        match seconds {
            Some(interval) if interval >= Duration::from_millis(10) => Ok(Self(interval)),
            _ => Err("expected a number of seconds, at least 0.01".to_owned()),
        }
    }
}

/// What is known of a server's health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    Unknown,
    Good,
    Bad(String),
}

/// One probe does not make an opinion, but for the first good one.
#[derive(Debug)]
struct Opinion {
    health: Health,
    against: u32,
}

impl Opinion {
    /// Takes one probe's outcome; answers whether the opinion changed.
    fn hear(&mut self, outcome: Result<(), String>) -> bool {
        let agrees = matches!((&self.health, &outcome), (Health::Good, Ok(())) | (Health::Bad(_), Err(_)));
        if agrees {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let first = self.health == Health::Unknown;
        if !first && self.against < IN_A_ROW {
            return false;
        }
        self.against = 0;
        self.health = match outcome {
            Ok(()) => Health::Good,
            Err(cause) => Health::Bad(cause),
        };
        true
    }
}

/// Probes for as long as anybody listens.
pub(crate) async fn probe(url: ProbeUrl, every: Duration, health: watch::Sender<Health>) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut opinion = Opinion { health: Health::Unknown, against: 0 };
    let follow = async {
        loop {
            ticks.tick().await;
            let outcome = timeout(PATIENCE, url.ask()).await;
            let outcome = outcome.unwrap_or_else(|_| Err(format!("{}: no answer within {PATIENCE:?}", url.address)));
            if opinion.hear(outcome) {
                health.send_replace(opinion.health.clone());
            }
        }
    };
    tokio::select! {
        () = follow => {}
        () = health.closed() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_or_refused() {
        let read = |text: &str| text.parse::<ProbeUrl>().map(|url| (url.address, url.host, url.target));
        let parts = |a: &str, b: &str, c: &str| Ok((a.to_owned(), b.to_owned(), c.to_owned()));
        assert_eq!(read("http://h:81/a/b?c=d"), parts("h:81", "h:81", "/a/b?c=d"));
        assert_eq!(read("http://h"), parts("h:80", "h", "/"));
        assert_eq!(read("http://h?x"), parts("h:80", "h", "/?x"));
        assert_eq!(read("http://[::1]:9/x"), parts("[::1]:9", "[::1]:9", "/x"));
        assert_eq!(read("http://[::1]/x"), parts("[::1]:80", "[::1]", "/x"));
        for wrong in [
            "https://h/",
            "h:80/x",
            "http://",
            "http://:80/",
            "http://h:0/",
            "http://h:x/",
            "http://u@h/",
            "http://h/a b",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_status_line_is_read_or_refused() {
        assert_eq!(status_of(b"HTTP/1.1 204 No Content\r\n"), Some(204));
        assert_eq!(status_of(b"HTTP/1.0 503"), Some(503));
        assert_eq!(status_of(b"SSH-2.0-x\r\n"), None);
        assert_eq!(status_of(b""), None);
        assert_eq!(status_of(b"HTTP/1.1 \xff\r\n"), None);
    }

    #[test]
    fn one_probe_does_not_make_an_opinion_but_for_the_first() {
        let bad = || Err("refused".to_owned());
        let mut opinion = Opinion { health: Health::Unknown, against: 0 };
        let heard: Vec<_> = [Ok(()), bad(), Ok(()), bad(), bad(), Ok(()), bad(), Ok(()), Ok(())]
            .into_iter()
            .map(|outcome| opinion.hear(outcome))
            .collect();
        assert_eq!(heard, [true, false, false, false, true, false, false, false, true]);
    }
}
