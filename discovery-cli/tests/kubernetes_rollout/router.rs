//! A router that chooses by its view alone, and keeps a record of all that it did.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use discovery_core::{Discovery, Environment, View};
use discovery_dynamo::{Endpoint, Transport};
use discovery_k8s as _;
use discovery_testbed::Cluster;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How many requests are under way at a time.
const CLIENTS: usize = 4;
/// How long a worker may take before a request goes to another one.
const PATIENCE: Duration = Duration::from_secs(2);

/// One try of a request at one worker.
#[derive(Clone, Debug)]
pub(crate) struct Try {
    pub(crate) at: Instant,
    pub(crate) address: String,
    pub(crate) answered: bool,
}

pub(crate) struct Router {
    pub(crate) discovery: Discovery,
    desk: Arc<Desk>,
    clients: JoinSet<()>,
}

struct Desk {
    workers: View<Endpoint>,
    next: AtomicU64,
    stopped: AtomicBool,
    tries: Mutex<Vec<Try>>,
    /// Requests that all workers of the view were tried for in vain.
    failed: AtomicU64,
    answered: AtomicU64,
}

impl Router {
    pub(crate) async fn start(cluster: &Cluster) -> Self {
        let kubeconfig = cluster.kubeconfig_path().to_str().unwrap();
        let environment: Environment =
            [("KUBECONFIG", kubeconfig), ("DYN_DISCOVERY_KUBERNETES_NAMESPACES", "default")].into_iter().collect();
        let discovery = Discovery::builder().backend("kubernetes").environment(environment).build().await.unwrap();
        let workers = discovery.view::<Endpoint>(Endpoint::at("demo", "backend", "generate")).await.unwrap();
        let desk = Arc::new(Desk {
            workers,
            next: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            tries: Mutex::default(),
            failed: AtomicU64::new(0),
            answered: AtomicU64::new(0),
        });
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let desk = Arc::clone(&desk);
            clients.spawn(async move { desk.send_requests().await });
        }
        Self { discovery, desk, clients }
    }

    /// The addresses that the view shows, without ports.
    pub(crate) fn shown(&self) -> BTreeSet<String> {
        self.desk
            .workers
            .load()
            .iter()
            .filter_map(|worker| Some(address_of(worker)?.rsplit_once(':')?.0.to_owned()))
            .collect()
    }

    pub(crate) fn answered(&self) -> u64 {
        self.desk.answered.load(Ordering::Relaxed)
    }

    /// Sends no more requests, waits for those under way, and answers the tries and the number of requests that failed.
    pub(crate) async fn stop(mut self) -> (Vec<Try>, u64) {
        self.desk.stopped.store(true, Ordering::Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
        assert!(self.discovery.shutdown(Duration::from_secs(10)).await.is_clean());
        let tries = std::mem::take(&mut *self.desk.tries.lock().unwrap());
        (tries, self.desk.failed.load(Ordering::Relaxed))
    }
}

fn address_of(worker: &Endpoint) -> Option<&str> {
    match worker.transport() {
        Transport::Tcp(address) => Some(address),
        _ => None,
    }
}

impl Desk {
    async fn send_requests(&self) {
        let mut changes = self.workers.changes();
        while !self.stopped.load(Ordering::Relaxed) {
            if self.workers.load().is_empty() {
                // Nowhere to go: the next change may bring somebody.
                if timeout(PATIENCE, changes.next()).await.is_ok_and(|batch| batch.is_none()) {
                    return;
                }
                continue;
            }
            if self.send(self.next.fetch_add(1, Ordering::Relaxed)).await {
                self.answered.fetch_add(1, Ordering::Relaxed);
            } else {
                self.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// One request, at one worker after the other. `false`: all that the view shows were tried in vain.
    async fn send(&self, number: u64) -> bool {
        let mut tried = BTreeSet::new();
        loop {
            let view = self.workers.load();
            let candidates = (0..view.len() as u64).filter_map(|offset| address_of(view.pick(number + offset)?));
            let Some(address) = candidates.into_iter().find(|address| !tried.contains(*address)) else { return false };
            tried.insert(address.to_owned());
            let at = Instant::now();
            let answered = timeout(PATIENCE, ask(address, number)).await.is_ok_and(|answer| answer.is_ok());
            let host = address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned();
            self.tries.lock().unwrap().push(Try { at, address: host, answered });
            if answered {
                return true;
            }
        }
    }
}

/// One request at one worker, on a connection of its own.
async fn ask(address: &str, number: u64) -> std::io::Result<()> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    stream.get_mut().write_all(format!("generate {number}\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_line(&mut answer).await?;
    let good = answer.ends_with(&format!(" generate {number}\n"));
    if good { Ok(()) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}
