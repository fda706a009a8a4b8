//! Builds the servers, and starts, shows and ends those that people use: `cargo xtask testbed` is this program.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use discovery_testbed::standing::{self, Found, Kind, Report, ServerReport};
use discovery_testbed::{Program, Result};

const USAGE: &str = "\
usage: cargo xtask testbed COMMAND

Real servers on free ports of 127.0.0.1, which stay until they are told to go.

commands:
  up [KIND]      start it, or what of it has ended, and print the environment to export:
                 eval \"$(cargo xtask testbed up)\"
  status         what is up: processes, addresses, logs, and whether they answer
  down [KIND]    end it, or all there is, and remove its data
  build          build or fetch the servers, for whoever wants to wait now and not later

kinds:
  etcd           one etcd, which is what up without a kind starts
  etcd-cluster   three etcd members
  kubernetes     an API server and its controllers, discovery's CRD, a ready pod to register for, in which nothing runs,
                 and, where it is started by root, a node that runs deploy/example's pods as processes
";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments[..] {
        ["up"] => up(Kind::Etcd).await,
        ["down"] => down(&Kind::ALL).await,
        ["status"] => status().await,
        ["build"] => build(),
        [command @ ("up" | "down" | "keep"), kind] if Kind::parse(kind).is_some() => {
            let kind = Kind::parse(kind).unwrap_or(Kind::Etcd);
            match command {
                "up" => up(kind).await,
                "down" => down(&[kind]).await,
                _ => standing::keep(kind).await.map(|()| ExitCode::SUCCESS),
            }
        }
        ["help" | "-h" | "--help"] => {
            say(USAGE.trim_end());
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("testbed: {error}");
        ExitCode::FAILURE
    })
}

/// Prints where each program comes from, and builds or fetches what is not there.
fn build() -> Result<ExitCode> {
    for program in Program::ALL {
        let words = match program.command() {
            Err(why) if program.is_optional() => {
                say(&format!("{}: none, so its tests will count as ignored: {why}", program.name()));
                continue;
            }
            words => words?,
        };
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        say(&format!("{}: {}", program.name(), words.join(" ")));
    }
    Ok(ExitCode::SUCCESS)
}

/// The environment goes to standard output, for a shell; what a person reads goes beside it.
async fn up(kind: Kind) -> Result<ExitCode> {
    let Report { servers, environment, pods, .. } = standing::up(kind).await?;
    let mut well = true;
    for ServerReport { name, address, log, well: answers, .. } in &servers {
        let doubt = if *answers { "" } else { ", NOT healthy: its log says why, or it is stopped" };
        let at = if address.is_empty() { String::new() } else { format!(" at {address}") };
        eprintln!("testbed: {name}{at}, log {log}{doubt}");
        well &= answers;
    }
    if let Some(pods) = &pods {
        eprintln!("testbed: {}", told_of(pods));
    }
    let client: Vec<_> = kind.client().command()?.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    eprintln!("testbed: look into it with {}", client.join(" "));
    eprintln!("testbed: up until `cargo xtask testbed down`");
    for (name, value) in &environment {
        say(&format!("export {name}={value}"));
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn down(kinds: &[Kind]) -> Result<ExitCode> {
    let mut found = false;
    for &kind in kinds {
        if standing::down(kind).await? {
            say(&format!("{kind} is down, and its data is removed"));
            found = true;
        }
    }
    if !found {
        say("nothing was up");
    }
    Ok(ExitCode::SUCCESS)
}

/// Fails where something is up and not as it should be.
async fn status() -> Result<ExitCode> {
    let (mut well, mut found) = (true, false);
    for kind in Kind::ALL {
        let restart = format!("`cargo xtask testbed up {kind}` starts it again with its data");
        match standing::status(kind).await? {
            Found::Down => continue,
            Found::Left => {
                say(&format!("{kind}: not up any more: `cargo xtask testbed down {kind}` removes what it left"));
                well = false;
            }
            Found::Starting => say(&format!("{kind}: being started")),
            Found::Up { keeper, since, report } => {
                say(&format!("{kind}: up for {}, held by process {keeper}", age(since)));
                match report {
                    Ok(report) => {
                        for server in &report.servers {
                            say(&format!("  {}", line(server, &restart)));
                            well &= server.well;
                        }
                        if let Some(pods) = &report.pods {
                            say(&format!("  {}", told_of(pods)));
                        }
                        for (name, value) in &report.environment {
                            say(&format!("  export {name}={value}"));
                        }
                    }
                    Err(cause) => {
                        say(&format!("  {cause}"));
                        well = false;
                    }
                }
            }
            other => say(&format!("{kind}: {other:?}")),
        }
        found = true;
    }
    if !found {
        say("nothing is up: `cargo xtask testbed up` starts an etcd");
    }
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(server: &ServerReport, restart: &str) -> String {
    let ServerReport { name, address, pid, well, log, .. } = server;
    let state = match (pid, well) {
        (None, _) => format!("has ended: {restart}"),
        (Some(pid), true) => format!("pid {pid}, healthy"),
        (Some(pid), false) => format!("pid {pid}, NOT healthy: its log says why, or it is stopped"),
    };
    format!("{name:<23} {address:<23} {state}\n    log {log}")
}

/// Whether pods run. That none do is no fault of what is up.
fn told_of(pods: &std::result::Result<String, String>) -> String {
    match pods {
        Ok(logs) => format!("pods run, as processes of this machine, logs in {logs}"),
        Err(cause) => format!("no pods run: {cause}"),
    }
}

fn age(since: Duration) -> String {
    match since.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

/// A line on standard output. That nobody reads it any more changes nothing.
fn say(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}
