//! A process of the demo, and the pipes to it.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::store::Variables;
use super::told::{Ask, Bounds, Kind, Moment, Report, RouterTold, WorkerTold, to_line};
use crate::failure::{Failure, Outcome};

/// How long anything may take before the demo is given up.
const PATIENCE: Duration = Duration::from_secs(20);

/// One process, which tells `T`s. Killed when dropped.
pub(super) struct Process<T> {
    pub(super) name: String,
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    told: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Process<T> {
    /// This program once more, as a hidden subcommand, with these variables.
    fn start(name: &str, arguments: &[&str], variables: &Variables) -> Outcome<Self> {
        let failed = |what: String| Failure::failed(format!("demo: {name} does not start: {what}"));
        let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
        let mut child = Command::new(program)
            .args(arguments)
            .arg("--parent")
            .arg(std::process::id().to_string())
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C on the terminal is for the demo, which then ends the others.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let output = child.stdout.take().ok_or_else(|| failed("it has no output".to_owned()))?;
        Ok(Self {
            name: name.to_owned(),
            input: child.stdin.take(),
            output: BufReader::new(output).lines(),
            child,
            told: PhantomData,
        })
    }

    /// The next that it tells. Cancel-safe.
    async fn hear(&mut self) -> Outcome<T> {
        let line = self.output.next_line().await;
        let line = line.map_err(|error| Failure::failed(format!("demo: {}: {error}", self.name)))?;
        let Some(line) = line else {
            return Err(Failure::failed(format!("demo: {} ended before its time", self.name)));
        };
        serde_json::from_str(&line).map_err(|error| Failure::failed(format!("demo: {}: {error}: {line}", self.name)))
    }

    async fn say(&mut self, what: &impl Serialize) -> Outcome {
        let gone = |error: std::io::Error| Failure::failed(format!("demo: {} does not listen: {error}", self.name));
        let Some(input) = &mut self.input else { return Ok(()) };
        input.write_all(&to_line(what).map_err(gone)?).await.map_err(gone)
    }

    pub(super) fn signal(&self, signal: Signal) -> Outcome {
        let failed = |why: String| Failure::failed(format!("demo: {} cannot be signalled: {why}", self.name));
        let id = self.child.id().and_then(|id| Pid::from_raw(id.try_into().ok()?));
        let id = id.ok_or_else(|| failed("it has ended".to_owned()))?;
        kill_process(id, signal).map_err(|error| failed(error.to_string()))
    }

    /// Waits for its end, and answers whether it was an orderly one.
    pub(super) async fn ended(&mut self) -> Outcome<bool> {
        drop(self.input.take());
        let status = patiently(&self.name, "end", async {
            self.child.wait().await.map_err(|error| Failure::failed(format!("demo: {}: {error}", self.name)))
        });
        Ok(status.await?.success())
    }

    /// Kills it, if it still runs, and waits for its end.
    pub(super) async fn kill(&mut self) {
        // It may have ended already, which is as good.
        let _ = self.child.kill().await;
    }
}

/// Waits for something of a process, but not for ever.
async fn patiently<A>(name: &str, what: &str, work: impl Future<Output = Outcome<A>>) -> Outcome<A> {
    timeout(PATIENCE, work).await.unwrap_or_else(|_| {
        Err(Failure::failed(format!("demo: {name} did not {what} within {PATIENCE:?}: is this machine overloaded?")))
    })
}

/// A worker.
pub(super) struct Worker {
    pub(super) process: Process<WorkerTold>,
    pub(super) instance: String,
    pub(super) address: String,
    /// Its time to live, which may be longer than what it asked for.
    pub(super) ttl: Duration,
    /// When it asked to be registered, and when it was.
    pub(super) asked: Moment,
    pub(super) ready: Moment,
}

/// How a worker left.
pub(super) struct Leave {
    pub(super) draining: Moment,
    pub(super) deregistered: Moment,
    pub(super) in_flight: u64,
}

impl Worker {
    pub(super) async fn start(name: &str, not_port: Option<&str>, variables: &Variables) -> Outcome<Self> {
        let mut arguments = vec!["demo-worker"];
        arguments.extend(not_port.into_iter().flat_map(|port| ["--not-port", port]));
        let mut process = Process::start(name, &arguments, variables)?;
        match patiently(name, "register", process.hear()).await? {
            WorkerTold::Ready { instance, address, ttl, asked, at } => {
                Ok(Self { process, instance, address, ttl, asked, ready: at })
            }
            other => Err(unexpected(name, &other)),
        }
    }

    pub(super) fn port(&self) -> &str {
        self.address.rsplit(':').next().unwrap_or_default()
    }

    /// Hears that it was told to leave and has withdrawn its records.
    pub(super) async fn withdrawn(&mut self) -> Outcome<Leave> {
        let Process { name, .. } = &self.process;
        let name = name.clone();
        patiently(&name, "withdraw its records", async {
            let draining = match self.process.hear().await? {
                WorkerTold::Draining { at } => at,
                other => return Err(unexpected(&name, &other)),
            };
            match self.process.hear().await? {
                WorkerTold::Deregistered { in_flight, at } => Ok(Leave { draining, deregistered: at, in_flight }),
                other => Err(unexpected(&name, &other)),
            }
        })
        .await
    }

    /// Hears that it is done and waits for its end. Answers how many requests it accepted and how many it answered,
    /// and whether it ended in order.
    pub(super) async fn finished(&mut self) -> Outcome<(u64, u64, bool)> {
        let name = self.process.name.clone();
        let (accepted, answered) = patiently(&name, "finish", async {
            match self.process.hear().await? {
                WorkerTold::Finished { accepted, answered } => Ok((accepted, answered)),
                other => Err(unexpected(&name, &other)),
            }
        })
        .await?;
        Ok((accepted, answered, self.process.ended().await?))
    }
}

fn unexpected(name: &str, told: &impl std::fmt::Debug) -> Failure {
    Failure::failed(format!("demo: {name} told something out of turn: {told:?}"))
}

/// What the router's views said of one record last.
struct Seen {
    gone: bool,
    at: Moment,
}

/// The router.
pub(super) struct Router {
    pub(super) process: Process<RouterTold>,
    pub(super) bounds: Bounds,
    seen: BTreeMap<(Kind, String), Seen>,
    /// Why its views were stale, where they ever were.
    pub(super) stale: Vec<String>,
}

impl Router {
    pub(super) async fn start(variables: &Variables) -> Outcome<Self> {
        let mut process = Process::start("router", &["demo-router"], variables)?;
        match patiently("router", "see its views live", process.hear()).await? {
            RouterTold::Ready { bounds } => Ok(Self { process, bounds, seen: BTreeMap::new(), stale: Vec::new() }),
            other => Err(unexpected("router", &other)),
        }
    }

    /// Takes in what the router tells, and answers the report that it may be.
    async fn listen(&mut self) -> Outcome<Option<Report>> {
        match self.process.hear().await? {
            RouterTold::Change { kind, gone, instance, at, .. } => {
                self.seen.insert((kind, instance), Seen { gone, at });
            }
            RouterTold::Freshness { cause, .. } => self.stale.extend(cause),
            RouterTold::Report(report) => return Ok(Some(report)),
            told @ RouterTold::Ready { .. } => return Err(unexpected("router", &told)),
        }
        Ok(None)
    }

    /// Waits until both views say of this instance that it is there, or gone. Answers when they did; `None` where they
    /// do not in time.
    pub(super) async fn knows(&mut self, instance: &str, gone: bool) -> Outcome<Option<Moment>> {
        let both = async {
            loop {
                let seen = [Kind::Endpoint, Kind::Model].map(|kind| self.seen.get(&(kind, instance.to_owned())));
                if let [Some(endpoint), Some(model)] = seen
                    && endpoint.gone == gone
                    && model.gone == gone
                {
                    return Ok(endpoint.at.max(model.at));
                }
                self.listen().await?;
            }
        };
        match timeout(PATIENCE, both).await {
            Ok(known) => known.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Its report once it has answered so many requests.
    pub(super) async fn report(&mut self, ask: Ask) -> Outcome<Report> {
        self.process.say(&ask).await?;
        patiently("router", "answer enough requests", async {
            loop {
                if let Some(report) = self.listen().await? {
                    return Ok(report);
                }
            }
        })
        .await
    }
}
