//! The server that a probe asks.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use discovery_core::{Environment, Error, ErrorKind, Result};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{HealthSettings, Readiness};

/// A probe needs one, now and then.
const CONNECTIONS: usize = 64;
/// For how long one may last. Then it makes room, whatever it waits for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long nobody is accepted where the process has no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);
/// How many obstacles an answer names.
const NAMED: usize = 16;

/// Serves readiness and liveness over HTTP until it is shut down or dropped.
#[derive(Debug)]
pub struct HealthServer {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl HealthServer {
    /// Serves on the current runtime. Cancel-safe: without its server nothing is served.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidConfig`] where nobody can listen there.
    pub async fn start(settings: HealthSettings, readiness: Readiness) -> Result<Self> {
        let failed = |error: io::Error| {
            let told = format!("no health endpoint at {}: {error}: give an address of this machine", settings.address);
            Error::new(ErrorKind::InvalidConfig, told)
        };
        let listener = bind(&settings.address, settings.otherwise.as_deref()).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let stop = CancellationToken::new();
        let endpoints = Arc::new(Endpoints { settings, readiness });
        let task = tokio::spawn(serve(listener, endpoints, stop.clone()));
        tracing::info!(%address, "health endpoints are served");
        Ok(Self { address, stop, task })
    }

    /// The same where the process's environment asks for it: see [`HealthSettings::from_environment`].
    ///
    /// # Errors
    /// Those of [`HealthSettings::from_environment`] and [`HealthServer::start`].
    pub async fn from_env(readiness: Readiness) -> Result<Option<Self>> {
        match HealthSettings::from_environment(&Environment::process())? {
            Some(settings) => Ok(Some(Self::start(settings, readiness).await?)),
            None => Ok(None),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts nobody any more, answers those who are connected, and ends: within two seconds. Cancel-safe: dropped, it
    /// answers nobody any more.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        if let Err(error) = (&mut self.task).await {
            tracing::warn!(%error, "the health endpoints ended out of order");
        }
    }
}

impl Drop for HealthServer {
    fn drop(&mut self) {
        // Its connections are its own, and end with it.
        self.task.abort();
    }
}

#[derive(Debug)]
struct Endpoints {
    settings: HealthSettings,
    readiness: Readiness,
}

async fn bind(address: &str, otherwise: Option<&str>) -> io::Result<TcpListener> {
    match (TcpListener::bind(address).await, otherwise) {
        (Err(error), Some(otherwise)) if error.kind() != io::ErrorKind::AddrInUse => TcpListener::bind(otherwise).await,
        (bound, _) => bound,
    }
}

async fn serve(listener: TcpListener, endpoints: Arc<Endpoints>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS => match accepted {
                Ok((stream, _)) => drop(connections.spawn(answer(stream, Arc::clone(&endpoints)))),
                Err(error) => {
                    tracing::warn!(%error, "a probe is not accepted");
                    sleep(PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// One connection, which has one request.
async fn answer(stream: TcpStream, endpoints: Arc<Endpoints>) {
    let service = service_fn(|request| {
        let response = endpoints.respond(&request);
        async { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
    match timeout(PATIENCE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a probe's connection failed"),
        Err(_) => tracing::debug!("a probe's connection was cut: it took too long"),
    }
}

impl Endpoints {
    fn respond<B>(&self, request: &Request<B>) -> Response<String> {
        let path = request.uri().path();
        let health = path == self.settings.health_path;
        if !health && path != self.settings.live_path {
            return response(StatusCode::NOT_FOUND, json!({ "error": "no such path" }));
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, json!({ "error": "GET and HEAD alone" }));
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        if !health {
            return response(StatusCode::OK, json!({ "status": "live" }));
        }
        let mut obstacles = self.readiness.obstacles();
        if obstacles.is_empty() {
            return response(StatusCode::OK, json!({ "status": "ready" }));
        }
        obstacles.truncate(NAMED);
        response(StatusCode::SERVICE_UNAVAILABLE, json!({ "status": "notready", "because": obstacles }))
    }
}

fn response(status: StatusCode, body: serde_json::Value) -> Response<String> {
    let mut response = Response::new(body.to_string() + "\n");
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_of_a_family_that_is_not_there_is_done_without() {
        // Of no machine: 192.0.2.0/24 is for documentation.
        let nowhere = "192.0.2.1:0";
        let bound = bind(nowhere, Some("127.0.0.1:0")).await.unwrap();
        assert_eq!(bound.local_addr().unwrap().ip().to_string(), "127.0.0.1");
        assert!(bind(nowhere, None).await.is_err());
        // One that is taken is told, and not stepped aside from.
        let taken = bound.local_addr().unwrap().to_string();
        assert_eq!(bind(&taken, Some("127.0.0.1:0")).await.unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
