//! A way to the API server on which a test does things between a client's request and the server's.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};

use discovery_core::Environment;
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

/// What is waited for before a request goes on.
type Before = dyn Fn(&Request<()>) -> BoxFuture<'static, ()> + Send + Sync;

/// Passes requests on as the administrator, each after what the test does before it. One that its client has given up
/// arrives all the same, as one does that was under way.
pub(crate) struct Gateway {
    kubeconfig: NamedTempFile,
    accepting: JoinHandle<()>,
}

impl Gateway {
    pub(crate) async fn start(
        space: &Space,
        before: impl Fn(&Request<()>) -> BoxFuture<'static, ()> + Send + Sync + 'static,
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
        let accepting = tokio::spawn(accept(listener, space.cluster.client.clone(), Arc::new(before)));
        Self { kubeconfig, accepting }
    }

    /// What a process in this pod would have in its environment, on this way.
    pub(crate) fn environment(&self, space: &Space, pod: &Made) -> Environment {
        space.environment(pod).with("KUBECONFIG", self.kubeconfig.path().to_string_lossy())
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, client: Client, before: Arc<Before>) {
    // All of it ends with this.
    let mut connections = JoinSet::new();
    let requests = Arc::new(Mutex::new(JoinSet::new()));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (client, before, requests) = (client.clone(), Arc::clone(&before), Arc::clone(&requests));
        let serve = service_fn(move |request: Request<Incoming>| {
            let (answer, answered) = oneshot::channel();
            let pass = pass(client.clone(), Arc::clone(&before), request, answer);
            requests.lock().unwrap_or_else(PoisonError::into_inner).spawn(pass);
            async { Ok::<_, Infallible>(answered.await.unwrap_or_else(|_| bad_gateway())) }
        });
        connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), serve));
    }
}

async fn pass(
    client: Client,
    before: Arc<Before>,
    request: Request<Incoming>,
    answer: oneshot::Sender<Response<Body>>,
) {
    let (mut parts, body) = request.into_parts();
    let Ok(body) = body.collect().await else { return };
    for header in [HOST, CONNECTION] {
        parts.headers.remove(header);
    }
    before(&Request::from_parts(parts.clone(), ())).await;
    let passed = client.send(Request::from_parts(parts, Body::from(body.to_bytes()))).await;
    // Who has given it up hears no answer.
    let _ = answer.send(passed.unwrap_or_else(|_| bad_gateway()));
}

fn bad_gateway() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}
