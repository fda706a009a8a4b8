//! The process in the background that holds the servers.

use std::io::{self, BufRead, Write};
use std::net::Ipv4Addr;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::io::BufReader;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::place::{Place, State};
use super::servers::Servers;
use super::talk::{Answer, Ask, asked, say};
use super::{Kind, Report};
use crate::error::{Error, Result};

/// What the keeper prints when its servers answer.
pub(super) const READY: &str = "ready";
/// What it then hears from whoever started it, if that is still there.
pub(super) const KEEP: &str = "keep";

/// Starts the servers of this kind and holds them until SIGTERM. For a process of its own, which leaves its session.
///
/// # Errors
/// They do not start, another process keeps them, or whoever started this one has gone meanwhile.
pub async fn keep(kind: Kind) -> Result<()> {
    // The end of the terminal, and an interrupt typed there, are not for it. It fails where that is so already.
    let _ = rustix::process::setsid();
    let place = Place::of(kind)?;
    let Some(_lock) = place.claim()? else {
        return Err(Error::new(format!("{kind} is up already")));
    };
    let mut end = signal(SignalKind::terminate()).map_err(|error| Error::because("SIGTERM", error))?;
    let mut servers = None;
    let outcome = tokio::select! {
        outcome = hold(kind, &place, &mut servers) => outcome,
        _ = end.recv() => Ok(()),
    };
    let stopped = match servers {
        Some(servers) => servers.stop().await,
        None => Ok(()),
    };
    place.clear()?;
    outcome.and(stopped)
}

/// Ends with a failure only.
async fn hold(kind: Kind, place: &Place, servers: &mut Option<Servers>) -> Result<()> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut state = State { pid: rustix::process::getpid().as_raw_nonzero().get(), port: None, since };
    place.write(&state)?;
    let files = place.files();
    std::fs::create_dir_all(&files).map_err(|error| Error::because(files.display(), error))?;
    let mut wanted = wanted();
    let unwanted = || Error::new("whoever asked for them has gone");
    let servers: &Servers = tokio::select! {
        started = Servers::start(kind, &files) => servers.insert(started?),
        _ = &mut wanted => return Err(unwanted()),
    };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.map_err(|error| Error::because("a port for the keeper", error))?;
    let told = writeln!(io::stdout(), "{READY}").and_then(|()| io::stdout().flush());
    if told.is_err() || wanted.await != Ok(true) {
        return Err(unwanted());
    }
    state.port = listener.local_addr().ok().map(|address| address.port());
    place.write(&state)?;
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            // Whoever asked may have gone.
            let _ = answer(servers, stream).await;
        }
    }
}

/// Whether whoever started this process says that it is to stay, or has gone without a word.
fn wanted() -> oneshot::Receiver<bool> {
    let (sender, receiver) = oneshot::channel();
    // Not a task: a read that waits would keep the runtime from ending.
    thread::spawn(move || {
        let mut line = String::new();
        let heard = io::stdin().lock().read_line(&mut line);
        // It may have ended meanwhile for another reason.
        let _ = sender.send(heard.is_ok() && line.trim_end() == KEEP);
    });
    receiver
}

async fn answer(servers: &Servers, stream: TcpStream) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let started = match asked(&mut stream).await? {
        Ask::Status => Ok(()),
        Ask::Start => servers.start_again().await,
    };
    let answer: Answer = match started {
        Ok(()) => Ok::<Report, String>(servers.report().await),
        Err(error) => Err(error.to_string()),
    };
    say(&mut stream, &answer).await
}
