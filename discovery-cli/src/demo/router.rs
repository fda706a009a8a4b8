//! The router of the demo: sends requests to whoever its view shows.
//!
//! For a request it reads the view and nothing else. It knows no more of the workers than discovery tells it: a worker
//! that breaks a connection or does not answer costs a retry at another one.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::Args;
use discovery_core::{Batch, Discovery, InstanceId, Record, View, ViewChange};
use discovery_dynamo::{Endpoint, Model, Transport};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::told::{Ask, Bounds, Kind, Moment, Report, RouterTold, Sent, die_with, hear_parent, tell_parent};
use super::{COMPONENT, ENDPOINT, NAMESPACE};
use crate::backends::close;
use crate::failure::Outcome;

/// How many requests are under way at a time.
const CLIENTS: usize = 8;
/// How long a worker may take before the request goes to another one.
const PATIENCE: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(crate) struct RouterArguments {
    /// Who starts it.
    #[arg(long)]
    parent: u32,
}

pub(crate) async fn router(arguments: RouterArguments) -> Outcome {
    die_with(arguments.parent)?;
    let mut asked = hear_parent::<Ask>();
    let discovery = Discovery::from_env().await?;
    let query = || Endpoint::at(NAMESPACE, COMPONENT, ENDPOINT);
    let workers = discovery.view::<Endpoint>(query()).await?;
    let models = discovery.view::<Model>(query()).await?;
    let declared = discovery.bounds();
    tell_parent(&RouterTold::Ready {
        bounds: Bounds {
            propagation: declared.propagation,
            slack: declared.slack,
            recovery: declared.recovery,
            death_notice: discovery.capabilities().death_notice,
        },
    })?;

    let desk = Arc::new(Desk::new(workers.clone()));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let desk = Arc::clone(&desk);
        clients.spawn(async move { desk.send_requests().await });
    }
    let (mut endpoint_changes, mut model_changes) = (workers.changes(), models.changes());
    let mut answered = desk.answered.subscribe();
    let mut pending: Option<Ask> = None;
    loop {
        if let Some(ask) = pending.take_if(|ask| *answered.borrow_and_update() >= ask.answered) {
            if ask.stop {
                desk.stopped.store(true, Ordering::Relaxed);
                while clients.join_next().await.is_some() {}
            }
            tell_parent(&RouterTold::Report(desk.report(&models)))?;
        }
        tokio::select! {
            Some(batch) = endpoint_changes.next() => tell_changes(&batch, Kind::Endpoint)?,
            Some(batch) = model_changes.next() => tell_changes(&batch, Kind::Model)?,
            Ok(()) = answered.changed(), if pending.is_some() => {}
            ask = asked.recv() => match ask {
                Some(ask) => pending = Some(ask),
                // The end of standard input: the demo is over, or gone.
                None => break,
            },
        }
    }
    clients.shutdown().await;
    close(&discovery).await
}

fn tell_changes<T: Record>(batch: &Batch<T>, kind: Kind) -> Outcome
where
    ViewChange<T>: Told,
{
    let at = Moment::now();
    for change in batch.changes() {
        let gone = matches!(change, ViewChange::Removed(_));
        let instance = change.key().instance().to_string();
        tell_parent(&RouterTold::Change { kind, gone, instance, address: change.address(), at })?;
    }
    let cause = match batch.freshness() {
        discovery_core::Freshness::Stale { cause, .. } => Some(cause.to_string()),
        _ => None,
    };
    tell_parent(&RouterTold::Freshness { state: batch.freshness().as_str().to_owned(), cause })
}

/// What is told of a change beside its key.
trait Told {
    fn address(&self) -> Option<String>;
}

impl Told for ViewChange<Endpoint> {
    fn address(&self) -> Option<String> {
        address_of(self.record()).map(str::to_owned)
    }
}

impl Told for ViewChange<Model> {
    fn address(&self) -> Option<String> {
        None
    }
}

fn address_of(endpoint: &Endpoint) -> Option<&str> {
    match endpoint.transport() {
        Transport::Tcp(address) => Some(address),
        _ => None,
    }
}

/// Why one try at one worker was in vain.
enum Vain {
    Broken,
    TimedOut,
}

/// What the clients share.
struct Desk {
    workers: View<Endpoint>,
    /// The number of the next request, and whose turn it is.
    next: AtomicU64,
    answered: watch::Sender<u64>,
    failed: AtomicU64,
    stopped: AtomicBool,
    sent: Mutex<BTreeMap<InstanceId, Sent>>,
}

impl Desk {
    fn new(workers: View<Endpoint>) -> Self {
        Self {
            workers,
            next: AtomicU64::new(0),
            answered: watch::Sender::new(0),
            failed: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            sent: Mutex::default(),
        }
    }

    /// One request after the other.
    async fn send_requests(&self) {
        let mut changes = self.workers.changes();
        while !self.stopped.load(Ordering::Relaxed) {
            if self.workers.load().is_empty() {
                // Nowhere to go: the next change may bring somebody.
                if changes.next().await.is_none() {
                    return;
                }
                continue;
            }
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if self.send(number).await {
                self.answered.send_modify(|answered| *answered += 1);
            } else {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Sends one request, to one worker after the other. `false`: all that the view shows were tried in vain.
    async fn send(&self, number: u64) -> bool {
        let mut tried = HashSet::new();
        loop {
            let view = self.workers.load();
            let len = view.len() as u64;
            let candidates = (0..len).filter_map(|offset| view.pick(number + offset));
            let Some(worker) = candidates.into_iter().find(|worker| !tried.contains(&worker.instance())) else {
                return false;
            };
            let Some(address) = address_of(worker) else { return false };
            let instance = worker.instance();
            tried.insert(instance);
            self.note(instance, |sent| sent.last = Moment::now());
            let outcome = timeout(PATIENCE, ask(address, instance, number)).await;
            let outcome = outcome.unwrap_or(Err(Vain::TimedOut));
            self.note(instance, |sent| match outcome {
                Ok(()) => sent.answered += 1,
                Err(Vain::Broken) => sent.broken += 1,
                Err(Vain::TimedOut) => sent.timed_out += 1,
            });
            if outcome.is_ok() {
                return true;
            }
        }
    }

    fn note(&self, instance: InstanceId, change: impl FnOnce(&mut Sent)) {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = || Sent { answered: 0, broken: 0, timed_out: 0, last: Moment::now() };
        change(sent.entry(instance).or_insert_with(fresh));
    }

    fn report(&self, models: &View<Model>) -> Report {
        let endpoints = self.workers.load();
        let address = |endpoint: &Endpoint| address_of(endpoint).unwrap_or_default().to_owned();
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        Report {
            endpoints: endpoints.iter().map(|one| (one.instance().to_string(), address(one))).collect(),
            models: models.load().iter().map(|model| model.instance().to_string()).collect(),
            answered: *self.answered.borrow(),
            failed: self.failed.load(Ordering::Relaxed),
            sent: sent.iter().map(|(instance, sent)| (instance.to_string(), sent.clone())).collect(),
        }
    }
}

/// One request at one worker, on a connection of its own.
async fn ask(address: &str, instance: InstanceId, number: u64) -> Result<(), Vain> {
    let exchange = async {
        let mut stream = BufReader::new(TcpStream::connect(address).await?);
        stream.get_mut().write_all(format!("generate {number}\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_line(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    match exchange.await {
        // The port may be somebody else's by now: only the answer of whom it was sent to counts.
        Ok(answer) if answer == format!("{instance} generate {number}\n") => Ok(()),
        _ => Err(Vain::Broken),
    }
}
