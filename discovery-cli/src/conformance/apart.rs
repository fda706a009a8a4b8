//! The suite in a process of its own, for stores that outlive it: cases that are stopped in their midst go on writing until
//! their process ends, so what they wrote is removed after that.

use tokio::process::Command;

use super::STOPPED;
use super::room::Room;
use crate::failure::{Failure, Outcome};
use crate::signals::StopSignals;

/// Runs this very command again, its stores within a room that is removed at the end, whatever the end is.
pub(super) async fn run(room: Room) -> Outcome {
    let within = room.name();
    let ended = suite(within).await;
    match (ended, room.remove().await) {
        (ended, Ok(())) => ended,
        (Ok(()), left) => left,
        // Both are said: what the run came to decides the exit code.
        (ended, Err(left)) => {
            left.report();
            ended
        }
    }
}

async fn suite(within: std::ffi::OsString) -> Outcome {
    let failed = |what: &str, error: std::io::Error| Failure::failed(format!("conformance: {what}: {error}"));
    let mut signals = StopSignals::listen()?;
    let program = std::env::current_exe().map_err(|error| failed("no program", error))?;
    let mut suite = Command::new(program)
        .args(std::env::args_os().skip(1))
        .arg("--within")
        .arg(within)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed("not started", error))?;
    let ended = tokio::select! {
        ended = suite.wait() => ended.map(Ok),
        by = signals.stop() => suite.kill().await.map(|()| Err(by)),
    };
    match ended.map_err(|error| failed("not ended", error))? {
        Err(by) => Err(Failure::Stopped(STOPPED.to_owned(), by)),
        Ok(status) if status.success() => Ok(()),
        Ok(status) => match status.code().and_then(|code| u8::try_from(code).ok()) {
            Some(code) => Err(Failure::Told(code)),
            None => Err(Failure::failed(STOPPED)),
        },
    }
}
