//! Runs the servers' own command line clients.

use std::ffi::{OsStr, OsString};
use std::process::{Output, Stdio};

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::error::{Error, Result};
use crate::program::Program;

/// Runs a client to its end with `input`, and answers what it printed. Dropped before that, the client is killed.
pub(crate) async fn run(
    program: Program,
    environment: &[(&str, OsString)],
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
    input: &str,
) -> Result<String> {
    let words = command(program).await?;
    let arguments: Vec<OsString> = arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
    let mut client = Command::new(&words[0]);
    client.args(&words[1..]).args(&arguments).envs(environment.iter().map(|(name, value)| (name, value)));
    client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let cause = match exchange(client, input).await {
        Ok(output) if output.status.success() => return Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    let shown = arguments.join(OsStr::new(" "));
    Err(Error::because(format!("{} {}", program.name(), shown.to_string_lossy()), cause))
}

async fn exchange(mut client: Command, input: &str) -> std::io::Result<Output> {
    let mut client = client.spawn()?;
    if let Some(mut stdin) = client.stdin.take() {
        match stdin.write_all(input.as_bytes()).await {
            // It did not want it, and says why if that is an error.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            written => written?,
        }
    }
    client.wait_with_output().await
}

/// [`Program::command`], which may build, off the runtime's threads.
pub(crate) async fn command(program: Program) -> Result<Vec<OsString>> {
    let found = tokio::task::spawn_blocking(move || program.command()).await;
    found.map_err(|error| Error::because(program.name(), error))?
}
