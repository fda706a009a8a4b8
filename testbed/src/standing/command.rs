//! Up, down and status.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::keeper::{KEEP, READY};
use super::place::{Keeper, Place, State};
use super::talk::{Ask, ask};
use super::{Kind, Report};
use crate::client;
use crate::error::{Error, Result};
use crate::server::{PATIENCE, PAUSE};

/// Longer than it takes to find that three servers do not answer.
const ANSWER: Duration = Duration::from_secs(20);
/// How long a keeper may take to end its servers.
const FAREWELL: Duration = Duration::from_secs(20);

/// What [`status`] finds of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Found {
    /// It is not up.
    Down,
    /// It is not up any more: its keeper was killed, or the machine restarted. [`up`] and [`down`] clear up after it.
    Left,
    /// It is being started.
    Starting,
    /// It is up.
    Up {
        /// The process that holds it.
        keeper: i32,
        /// For how long.
        since: Duration,
        /// What its keeper tells, or why that is not known.
        report: std::result::Result<Report, String>,
    },
}

/// Starts servers of this kind, or those of them that have ended, and answers when they answer. A process that ends before
/// that leaves nothing that was not up.
///
/// # Errors
/// There is no program for them and none can be built, or they do not start: the error shows why.
pub async fn up(kind: Kind) -> Result<Report> {
    let place = Place::of(kind)?;
    let _turn = place.turn()?;
    // Here, where progress is seen, and not by the keeper.
    for &program in kind.programs() {
        client::command(program).await?;
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        match place.keeper()? {
            Keeper::Lives(_, Some(State { port: Some(port), .. })) => {
                return heard(kind, port, Ask::Start, PATIENCE).await;
            }
            // Another command had begun to start it and was interrupted: it ends when it finds that.
            Keeper::Lives(..) if Instant::now() >= deadline => {
                return Err(Error::new(format!("the keeper of {kind} does not get on: {}", ends_it(kind))));
            }
            Keeper::Lives(..) => sleep(PAUSE).await,
            Keeper::Gone => clear(&place).await?,
            Keeper::None => launch(kind, &place).await?,
        }
    }
}

fn ends_it(kind: Kind) -> String {
    format!("`cargo xtask testbed down {kind}` ends it")
}

/// Removes what a keeper has left that was killed. Its servers end by themselves, and write until they have.
async fn clear(place: &Place) -> Result<()> {
    let deadline = Instant::now() + FAREWELL;
    while let Err(error) = place.clear() {
        if Instant::now() >= deadline {
            return Err(error);
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// Starts the keeper and waits until its servers answer.
async fn launch(kind: Kind, place: &Place) -> Result<()> {
    let failed = |error: std::io::Error| Error::because(format!("starting the keeper of {kind}"), error);
    let program = std::env::current_exe().map_err(failed)?;
    let log = File::create(place.log()).map_err(failed)?;
    let mut keeper = Command::new(program);
    keeper.args(["keep", kind.name()]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
    let mut keeper = keeper.spawn().map_err(failed)?;
    let (told, say) = (keeper.stdout.take(), keeper.stdin.take());
    let heard = tokio::task::spawn_blocking(move || {
        let mut line = String::new();
        told.map_or(Ok(0), |told| BufReader::new(told).read_line(&mut line)).map(|_| line)
    });
    let line = heard.await.map_err(|error| failed(error.into()))?.map_err(failed)?;
    if line.trim_end() == READY {
        return say.map_or(Ok(()), |mut say| writeln!(say, "{KEEP}")).map_err(failed);
    }
    // It has closed its output, which it does at its end alone.
    let _ = keeper.wait();
    let log = fs::read_to_string(place.log()).unwrap_or_default();
    Err(Error::new(format!("{kind} does not start: {}", log.trim())))
}

async fn heard(kind: Kind, port: u16, question: Ask, patience: Duration) -> Result<Report> {
    let doing = || format!("the keeper of {kind} does not answer: {}", ends_it(kind));
    let answer = ask(port, question, patience).await.map_err(|error| Error::because(doing(), error))?;
    answer.map_err(|cause| Error::because(kind, cause))
}

/// Ends the servers of this kind and removes their data. Answers whether there was anything to end or to remove.
/// Cancelled, it may have done so in part; repeated, it does the rest.
///
/// # Errors
/// The keeper cannot be signalled, or what it left cannot be removed.
pub async fn down(kind: Kind) -> Result<bool> {
    let place = Place::of(kind)?;
    let _turn = place.turn()?;
    let mut found = false;
    loop {
        match place.keeper()? {
            Keeper::None => return Ok(found),
            Keeper::Gone => clear(&place).await?,
            Keeper::Lives(..) => end(kind, &place).await?,
        }
        found = true;
    }
}

/// Ends the keeper, which ends its servers first; one that does not is killed, and its servers end without it.
async fn end(kind: Kind, place: &Place) -> Result<()> {
    let Some(process) = place.process()? else { return Ok(()) };
    for signal in [Signal::TERM, Signal::KILL] {
        process.signal(signal)?;
        // One that was stopped hears nothing before.
        process.signal(Signal::CONT)?;
        let deadline = Instant::now() + FAREWELL;
        while Instant::now() < deadline {
            if place.process()?.is_none() {
                return Ok(());
            }
            sleep(PAUSE).await;
        }
    }
    Err(Error::new(format!("the keeper of {kind} does not end")))
}

/// What there is of this kind. Changes nothing.
///
/// # Errors
/// The state cannot be read.
pub async fn status(kind: Kind) -> Result<Found> {
    let place = Place::of(kind)?;
    Ok(match place.keeper()? {
        Keeper::None => Found::Down,
        Keeper::Gone => Found::Left,
        Keeper::Lives(pid, Some(State { port: Some(port), since, .. })) => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let report = heard(kind, port, Ask::Status, ANSWER).await.map_err(|error| error.to_string());
            Found::Up {
                keeper: pid.as_raw_nonzero().get(),
                since: now.saturating_sub(Duration::from_secs(since)),
                report,
            }
        }
        Keeper::Lives(..) => Found::Starting,
    })
}
