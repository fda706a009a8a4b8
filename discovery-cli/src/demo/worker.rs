//! A worker of the demo: serves requests at a real address, registers it, and leaves in order when told to. In a pod it
//! is the worker of `deploy/example`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use discovery_core::Discovery;
use discovery_dynamo::{Endpoint, Model};
use discovery_health::{HealthServer, HealthSettings, Readiness};
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::told::{Moment, WorkerTold, die_with, hear_parent, tell_parent};
use super::{COMPONENT, ENDPOINT, MODEL, NAMESPACE};
use crate::backends::close;
use crate::failure::{Failure, Outcome};
use crate::signals::StopSignals;

/// What a request takes, in place of a model's work.
const WORK: Duration = Duration::from_millis(40);
/// No request is longer.
const REQUEST: u64 = 1024;

#[derive(Debug, Args)]
pub(crate) struct WorkerArguments {
    /// Who starts it, and takes it along at its end.
    #[arg(long)]
    parent: Option<u32>,
    /// A port that it must not take: the one that it had before.
    #[arg(long)]
    not_port: Option<u16>,
    /// Where it listens. Without it, at any free port of this machine's own. An address of either family may be in brackets.
    #[arg(long, value_name = "IP:PORT", conflicts_with = "not_port", value_parser = place)]
    listen: Option<SocketAddr>,
    /// Where its probe asks whether it is ready.
    #[arg(long, value_name = "HOST:PORT")]
    health: Option<String>,
}

#[derive(Debug, Default)]
struct Counters {
    accepted: AtomicU64,
    answered: AtomicU64,
}

pub(crate) async fn worker(arguments: WorkerArguments) -> Outcome {
    let WorkerArguments { parent, not_port, listen: place, health } = arguments;
    parent.map_or(Ok(()), die_with)?;
    let mut stop = StopSignals::listen()?;
    let mut parent = parent.map(|_| hear_parent::<()>());
    let readiness = Readiness::new();
    let server = match health {
        Some(address) => Some(HealthServer::start(HealthSettings::new(address), readiness.clone()).await?),
        None => None,
    };
    let (listener, address) = match place {
        Some(place) => bind(place).await?,
        None => listen(not_port).await?,
    };
    let discovery = tokio::select! {
        _ = stop.stop() => return Ok(()),
        discovery = Discovery::from_env() => discovery?,
    };
    let asked = Moment::now();
    let endpoint = Endpoint::new(NAMESPACE, COMPONENT, ENDPOINT).tcp(address.to_string());
    let endpoint = Arc::new(discovery.register(endpoint).await?);
    let card = json!({ "display_name": MODEL, "source_path": MODEL });
    let model = Arc::new(discovery.register(Model::new(NAMESPACE, COMPONENT, ENDPOINT, card)).await?);
    readiness.require(&endpoint);
    readiness.require(&model);
    readiness.ready();
    let instance = endpoint.instance();
    tell_parent(&WorkerTold::Ready {
        instance: instance.to_string(),
        address: address.to_string(),
        ttl: discovery.effective_ttl().unwrap_or_default(),
        asked,
        at: Moment::now(),
    })?;

    let counters = Arc::new(Counters::default());
    let mut requests = JoinSet::new();
    let serve = async |requests: &mut JoinSet<()>, until: &mut (dyn Future<Output = ()> + Unpin)| loop {
        tokio::select! {
            () = &mut *until => return,
            Ok((stream, _)) = listener.accept() => {
                counters.accepted.fetch_add(1, Ordering::Relaxed);
                let counters = Arc::clone(&counters);
                let answer = format!("{instance}");
                requests.spawn(async move { answer_one(stream, &answer, &counters).await });
            }
            Some(_) = requests.join_next() => {}
        }
    };
    let mut orphaned = false;
    {
        let told = async {
            tokio::select! {
                _ = stop.stop() => {}
                // The end of standard input: whoever started it is gone.
                () = gone(parent.as_mut()) => orphaned = true,
            }
        };
        serve(&mut requests, &mut std::pin::pin!(told)).await;
    }
    if orphaned {
        return Err(Failure::failed("demo: the parent process is gone"));
    }

    readiness.not_ready("draining");
    // In the order of a good leave: out of discovery first, while requests that are on their way are still served.
    tell_parent(&WorkerTold::Draining { at: Moment::now() })?;
    let deregister = async {
        let gone = tokio::try_join!(endpoint.deregister(), model.deregister());
        let in_flight = counters.accepted.load(Ordering::Relaxed) - counters.answered.load(Ordering::Relaxed);
        (gone, in_flight, Moment::now())
    };
    let mut outcome = None;
    serve(&mut requests, &mut std::pin::pin!(async { outcome = Some(deregister.await) })).await;
    let Some((gone, in_flight, at)) = outcome else { return Err(Failure::failed("demo: not deregistered")) };
    gone?;
    tell_parent(&WorkerTold::Deregistered { in_flight, at })?;
    serve(&mut requests, &mut std::pin::pin!(sleep(discovery.bounds().propagation))).await;
    drop(listener);
    while requests.join_next().await.is_some() {}
    tell_parent(&WorkerTold::Finished {
        accepted: counters.accepted.load(Ordering::Relaxed),
        answered: counters.answered.load(Ordering::Relaxed),
    })?;
    let closed = close(&discovery).await;
    if let Some(server) = server {
        server.shutdown().await;
    }
    closed
}

/// Resolves once whoever started it is gone. Cancel-safe.
async fn gone(parent: Option<&mut mpsc::Receiver<()>>) {
    match parent {
        Some(parent) => drop(parent.recv().await),
        None => std::future::pending().await,
    }
}

/// An address and a port. In brackets may be what a manifest does not know the family of.
pub(super) fn place(text: &str) -> Result<SocketAddr, String> {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once("]:"));
    let found = match bracketed {
        Some((ip, port)) => ip.parse::<IpAddr>().ok().zip(port.parse::<u16>().ok()).map(SocketAddr::from),
        None => text.parse().ok(),
    };
    found.ok_or_else(|| "no address and port, such as 10.0.0.1:9000 or [fd00::5]:9000".to_owned())
}

/// A free port of this machine, but not `not`.
async fn listen(not: Option<u16>) -> Outcome<(TcpListener, SocketAddr)> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let first = bind(any).await?;
    // While the first is held, a second one cannot be the same.
    if Some(first.1.port()) == not { bind(any).await } else { Ok(first) }
}

async fn bind(place: SocketAddr) -> Outcome<(TcpListener, SocketAddr)> {
    let failed = |error: std::io::Error| Failure::failed(format!("demo: no port to listen on at {place}: {error}"));
    let listener = TcpListener::bind(place).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// A request is a line, and so is its answer: who answers, and the request.
async fn answer_one(stream: TcpStream, instance: &str, counters: &Counters) {
    let mut stream = BufReader::new(stream);
    let mut request = String::new();
    let read = (&mut stream).take(REQUEST).read_line(&mut request).await;
    if read.is_ok_and(|length| length > 0) {
        sleep(WORK).await;
        let answer = format!("{instance} {request}");
        // Whoever asked may have gone elsewhere meanwhile.
        let _ = stream.get_mut().write_all(answer.as_bytes()).await;
    }
    counters.answered.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn an_address_of_either_family_may_be_in_brackets() {
        for (text, expected) in [
            ("10.0.0.1:9000", Some("10.0.0.1:9000")),
            ("[10.0.0.1]:9000", Some("10.0.0.1:9000")),
            ("[fd00::5]:9000", Some("[fd00::5]:9000")),
            ("fd00::5:9000", None),
            ("[fd00::5]", None),
            ("[]:9000", None),
            ("localhost:9000", None),
        ] {
            assert_eq!(place(text).ok().map(|place| place.to_string()).as_deref(), expected, "{text}");
        }
    }
}
