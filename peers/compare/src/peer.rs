//! A side in a process of its own, told what to do and listened to.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use discovery_peer_protocol::{Command, Event, Line, Query, Request, Usage, name_of, now};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin};
use tokio::sync::{Mutex as AsyncMutex, Notify, oneshot};
use tokio::time::timeout;

use crate::Outcome;

/// The first argument of a process that is our side.
pub(crate) const ROLE: &str = "side";

/// For anything that a side is asked, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(180);

/// What both libraries read their settings from: a side has those alone that its store names, whatever the environment of
/// this program has. The last is our side's own.
const SETTINGS: [&str; 4] = ["DYN_", "ETCD_", "NATS_", "PEER_"];

/// For the last words of a process that has ended.
const LISTENING: Duration = Duration::from_secs(1);

/// How many of its last words a side that fails is quoted with.
const LAST_WORDS: usize = 5;

/// Whose library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    /// This project's.
    Ours,
    /// `dynamo-runtime`.
    Reference,
}

impl Which {
    pub(crate) const BOTH: [Self; 2] = [Self::Ours, Self::Reference];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Reference => "reference",
        }
    }
}

/// Where `cargo build --release` puts the reference's side.
pub(crate) fn reference_program() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../dynamo/target/release/peer-dynamo"))
}

/// What is known of a side from what it wrote.
#[derive(Default)]
struct Heard {
    waiting: HashMap<u64, oneshot::Sender<Result<Value, String>>>,
    watches: HashMap<String, Watched>,
    ended: Option<String>,
    /// The last lines of its standard error.
    last_words: VecDeque<String>,
    /// What it registered, by the name that it is kept under: the record's name.
    registered: HashMap<String, String>,
    /// The names of what it has withdrawn, or left behind, and when.
    departed: Vec<(u64, String)>,
}

impl Heard {
    fn departs(&mut self, names: impl IntoIterator<Item = String>) {
        let at = now();
        self.departed.extend(names.into_iter().map(|name| (at, name)));
    }

    /// What it says of itself where it fails.
    fn last_words(&self) -> String {
        let words: Vec<&str> = self.last_words.iter().map(String::as_str).collect();
        if words.is_empty() { String::new() } else { format!(" ({})", words.join("; ")) }
    }
}

/// What a watch has told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Watched {
    /// What there is, by name.
    pub(crate) state: BTreeMap<String, Value>,
    /// The names of the first state.
    pub(crate) first: BTreeSet<String>,
    /// Every event after the first state, and when it came.
    pub(crate) log: Vec<(u64, Event)>,
    complete: bool,
}

/// A running side. It is killed when this is dropped.
pub(crate) struct Peer {
    pub(crate) which: Which,
    /// The id under which it registers endpoints and models.
    pub(crate) instance: u64,
    /// Where it runs, on Kubernetes.
    pub(crate) pod: Option<String>,
    child: Child,
    input: AsyncMutex<ChildStdin>,
    heard: Arc<Mutex<Heard>>,
    news: Arc<Notify>,
    next: AtomicU64,
}

impl Peer {
    /// Starts a side and waits until it is connected.
    pub(crate) async fn start(which: Which, environment: &[(String, String)]) -> Outcome<Self> {
        let mut command = match which {
            Which::Ours => {
                let mut command = tokio::process::Command::new(std::env::current_exe()?);
                command.arg(ROLE);
                command
            }
            Which::Reference => tokio::process::Command::new(reference_program()),
        };
        let ambient = std::env::vars_os().map(|(name, _)| name);
        for name in ambient.filter(|name| SETTINGS.iter().any(|family| name.to_string_lossy().starts_with(family))) {
            command.env_remove(name);
        }
        command
            .envs(environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| format!("{}: {error}", which.name()))?;
        let input = AsyncMutex::new(child.stdin.take().ok_or("no input to write")?);
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output to read")?).lines();
        let (heard, news) = (Arc::<Mutex<Heard>>::default(), Arc::<Notify>::default());
        let (told, mut words) =
            (heard.clone(), BufReader::new(child.stderr.take().ok_or("no errors to read")?).lines());
        let silent = tokio::spawn(async move {
            while let Ok(Some(line)) = words.next_line().await {
                let last = &mut lock(&told).last_words;
                last.push_back(line);
                if last.len() > LAST_WORDS {
                    last.pop_front();
                }
            }
        });
        let instance = loop {
            let line = timeout(PATIENCE, lines.next_line()).await;
            let line =
                line.map_err(|_| format!("{} did not become ready{}", which.name(), lock(&heard).last_words()))??;
            match line.as_deref().map(serde_json::from_str) {
                Some(Ok(Line::Ready { instance })) => break instance.parse()?,
                Some(Ok(Line::Ended { reason })) => return Err(format!("{}: {reason}", which.name()).into()),
                Some(_) => {}
                None => {
                    timeout(LISTENING, silent).await.ok();
                    let words = lock(&heard).last_words();
                    return Err(format!("{} ended before it was ready{words}", which.name()).into());
                }
            }
        };
        let (told, rung) = (heard.clone(), news.clone());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                if let Ok(line) = serde_json::from_str(&line) {
                    hear(&mut lock(&told), line);
                    rung.notify_waiters();
                }
            }
            timeout(LISTENING, silent).await.ok();
            let mut told = lock(&told);
            let words = told.last_words();
            told.ended.get_or_insert_with(|| format!("the process has ended{words}"));
            told.waiting.clear();
            drop(told);
            rung.notify_waiters();
        });
        Ok(Self { which, instance, pod: None, child, input, heard, news, next: AtomicU64::new(1) })
    }

    /// Has a command done, and answers what it comes to.
    pub(crate) async fn ask(&self, command: Command) -> Result<Value, String> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (send, answer) = oneshot::channel();
        lock(&self.heard).waiting.insert(id, send);
        let mut line = serde_json::to_vec(&Request { id, command }).map_err(|error| error.to_string())?;
        line.push(b'\n');
        self.input.lock().await.write_all(&line).await.map_err(|error| error.to_string())?;
        match timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(format!("{}: {}", self.which.name(), self.gave_up().unwrap_or_default())),
            Err(_) => Err(format!("{} did not answer in {} s", self.which.name(), PATIENCE.as_secs())),
        }
    }

    /// Registers a record under this name.
    pub(crate) async fn register(&self, name: &str, record: &Value) -> Result<Value, String> {
        let registered = self.ask(Command::Register { name: name.to_owned(), record: record.clone() }).await?;
        lock(&self.heard).registered.insert(name.to_owned(), name_of(&registered));
        Ok(registered)
    }

    /// Withdraws what was registered under this name.
    pub(crate) async fn unregister(&self, name: &str) -> Result<(), String> {
        {
            let mut heard = lock(&self.heard);
            let known = heard.registered.remove(name);
            heard.departs(known);
        }
        self.ask(Command::Unregister { name: name.to_owned() }).await.map(drop)
    }

    /// What there is, by name, read anew.
    pub(crate) async fn list(&self, query: Query) -> Result<BTreeMap<String, Value>, String> {
        let found = self.ask(Command::List { query }).await?;
        Ok(by_name(found.as_array().into_iter().flatten().cloned()))
    }

    /// Watches under this name.
    pub(crate) async fn watch(&self, name: &str, query: Query) -> Result<(), String> {
        self.ask(Command::Watch { name: name.to_owned(), query }).await.map(drop)
    }

    /// What it has used.
    pub(crate) async fn usage(&self) -> Result<Usage, String> {
        serde_json::from_value(self.ask(Command::Usage).await?).map_err(|error| error.to_string())
    }

    /// What a watch has told up to now.
    pub(crate) fn watched(&self, name: &str) -> Watched {
        lock(&self.heard).watches.get(name).cloned().unwrap_or_default()
    }

    /// Waits until what a watch has told is as wanted; answers whether it became so in time.
    pub(crate) async fn sees(&self, name: &str, within: Duration, wanted: impl Fn(&Watched) -> bool) -> bool {
        let becomes = async {
            loop {
                let news = self.news.notified();
                tokio::pin!(news);
                news.as_mut().enable();
                if lock(&self.heard).watches.get(name).is_some_and(&wanted) {
                    return;
                }
                news.await;
            }
        };
        timeout(within, becomes).await.is_ok()
    }

    /// Why its library gave up, where it did.
    pub(crate) fn gave_up(&self) -> Option<String> {
        lock(&self.heard).ended.clone()
    }

    /// What it tells and does, for whoever wants to know when it is gone.
    pub(crate) fn history(&self) -> History {
        History { which: self.which, heard: self.heard.clone() }
    }

    /// Ends it by SIGKILL.
    pub(crate) async fn crash(mut self) -> Outcome {
        self.departs();
        self.child.kill().await?;
        Ok(())
    }

    /// Has it withdraw everything and end.
    pub(crate) async fn leave(self) -> Outcome {
        self.departs();
        self.ask(Command::Shutdown).await?;
        Ok(())
    }

    /// Everything that it registered goes from now on.
    fn departs(&self) {
        let mut heard = lock(&self.heard);
        let all = std::mem::take(&mut heard.registered);
        heard.departs(all.into_values());
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.departs();
    }
}

/// What a side has told and done, beyond its end.
pub(crate) struct History {
    pub(crate) which: Which,
    heard: Arc<Mutex<Heard>>,
}

impl History {
    /// The names of what it withdrew or left behind, and from when on.
    pub(crate) fn departed(&self) -> Vec<(u64, String)> {
        lock(&self.heard).departed.clone()
    }

    /// What its watches have told, by their names.
    pub(crate) fn watches(&self) -> Vec<(String, Watched)> {
        lock(&self.heard).watches.iter().map(|(name, watched)| (name.clone(), watched.clone())).collect()
    }
}

fn hear(heard: &mut Heard, line: Line) {
    match line {
        Line::Ready { .. } => {}
        Line::Done { id, answer } => {
            heard.waiting.remove(&id).map(|waiting| waiting.send(Ok(answer)));
        }
        Line::Failed { id, error } => {
            heard.waiting.remove(&id).map(|waiting| waiting.send(Err(error)));
        }
        Line::Ended { reason } => heard.ended = Some(reason),
        Line::Told { watch, at, event } => {
            let watched = heard.watches.entry(watch).or_default();
            apply(&mut watched.state, &event);
            let first = !watched.complete;
            watched.complete |= matches!(event, Event::State(_));
            if !first {
                watched.log.push((at, event));
            } else if watched.complete {
                watched.first = watched.state.keys().cloned().collect();
            }
        }
    }
}

fn apply(state: &mut BTreeMap<String, Value>, event: &Event) {
    match event {
        Event::Put(record) => {
            state.insert(name_of(record), record.clone());
        }
        Event::Taints { name, taints } => {
            if let Some(record) = state.get_mut(name) {
                record["card_json"]["runtime_config"]["taints"] = taints.clone().into();
            }
        }
        Event::Removed { name } => {
            state.remove(name);
        }
        Event::State(records) => *state = by_name(records.iter().cloned()),
    }
}

fn by_name(records: impl IntoIterator<Item = Value>) -> BTreeMap<String, Value> {
    records.into_iter().map(|record| (name_of(&record), record)).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
