//! A way to the API server on which a test does things between a client's request and its answer.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use discovery_core::Environment;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::{CONNECTION, HOST};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};

use crate::support::cluster::{Made, Space};

pub(crate) type Answer = BoxFuture<'static, Response<Body>>;
/// What is done around a request, which goes on when its answer is awaited.
type Around = dyn Fn(&Request<()>, Answer) -> Answer + Send + Sync;

/// Passes requests on as the administrator, with what the test does around each. One that its client has given up arrives
/// all the same, as one does that was under way.
pub(crate) struct Gateway {
    kubeconfig: NamedTempFile,
    accepting: JoinHandle<()>,
}

impl Gateway {
    pub(crate) async fn start(
        space: &Space,
        around: impl Fn(&Request<()>, Answer) -> Answer + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let server = format!("http://{}", listener.local_addr().unwrap());
        let kubeconfig = NamedTempFile::new().unwrap();
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "gateway",
            "clusters": [{ "name": "gateway", "cluster": { "server": server } }],
            "users": [{ "name": "gateway", "user": {} }],
            "contexts": [{ "name": "gateway", "context": { "cluster": "gateway", "user": "gateway" } }],
        });
        std::fs::write(kubeconfig.path(), text.to_string()).unwrap();
        let accepting = tokio::spawn(accept(listener, space.cluster.client.clone(), Arc::new(around)));
        Self { kubeconfig, accepting }
    }

    /// What a process in this pod would have in its environment, on this way.
    pub(crate) fn environment(&self, space: &Space, pod: &Made) -> Environment {
        space.environment(pod).with("KUBECONFIG", self.kubeconfig.path())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, client: Client, around: Arc<Around>) {
    // All of it ends with this.
    let mut connections = JoinSet::new();
    let requests = Arc::new(Mutex::new(JoinSet::new()));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (client, around, requests) = (client.clone(), Arc::clone(&around), Arc::clone(&requests));
        let serve = service_fn(move |request: Request<Incoming>| {
            let (answer, answered) = oneshot::channel();
            let pass = pass(client.clone(), Arc::clone(&around), request, answer);
            requests.lock().unwrap_or_else(PoisonError::into_inner).spawn(pass);
            async { Ok::<_, Infallible>(answered.await.unwrap_or_else(|_| bad_gateway())) }
        });
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), serve));
    }
}

async fn pass(
    client: Client,
    around: Arc<Around>,
    request: Request<Incoming>,
    answer: oneshot::Sender<Response<Body>>,
) {
    let (mut parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return };
    for header in [HOST, CONNECTION] {
        parts.headers.remove(header);
    }
    let head = Request::from_parts(parts.clone(), ());
    let passed = async move {
        let passed = client.send(Request::from_parts(parts, Body::from(body.to_bytes()))).await;
        passed.unwrap_or_else(|_| bad_gateway())
    };
    // Who has given it up hears no answer.
    let _ = answer.send(around(&head, passed.boxed()).await);
}

fn bad_gateway() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}
