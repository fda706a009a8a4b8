//! The suite in a process of its own, for a backend that keeps files: cases that are stopped in their midst go on writing
//! until their process ends, so what they wrote is removed after that.

use tokio::process::Command;

use super::STOPPED;
use crate::failure::{Failure, Outcome};
use crate::signals::StopSignals;

/// Runs this very command again, its stores within a directory that is removed at the end, whatever the end is.
pub(super) async fn run() -> Outcome {
    let failed = |what: &str, error: std::io::Error| Failure::failed(format!("conformance: {what}: {error}"));
    let root = tempfile::Builder::new().prefix("discovery-conformance-").tempdir();
    let root = root.map_err(|error| failed("no temporary directory", error))?;
    let mut signals = StopSignals::listen()?;
    let program = std::env::current_exe().map_err(|error| failed("no program", error))?;
    let mut suite = Command::new(program)
        .args(std::env::args_os().skip(1))
        .arg("--within")
        .arg(root.path())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed("not started", error))?;
    let ended = tokio::select! {
        ended = suite.wait() => ended.map(Some),
        () = signals.stop() => suite.kill().await.map(|()| None),
    };
    root.close().map_err(|error| failed("its directory could not be removed", error))?;
    match ended.map_err(|error| failed("not ended", error))? {
        None => Err(Failure::failed(STOPPED)),
        Some(status) if status.success() => Ok(()),
        Some(status) => match status.code().and_then(|code| u8::try_from(code).ok()) {
            Some(code) => Err(Failure::Told(code)),
            None => Err(Failure::failed(STOPPED)),
        },
    }
}
