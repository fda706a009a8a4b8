//! Whether a member answers while a large answer is on its way: what comes over its connection is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::time::{sleep, timeout};
use tokio_util::io::InspectReader;
use tonic::transport::{Channel, Endpoint, Error};
use tonic::{Code, Status};
use tower::ServiceExt;

use crate::link::Wire;

/// A connection over which nothing comes for this long is asked for a sign of life.
const QUIET: Duration = Duration::from_millis(500);

/// So many bytes are a part of a large answer. What a watch's connection carries besides in the time that a watch gets is less.
pub(crate) const MUCH: u64 = 16 << 10;

/// How many bytes have come over one connection.
#[derive(Clone, Default)]
pub(crate) struct Received(Arc<AtomicU64>);

impl Received {
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Connects as the endpoint would, and counts what comes.
pub(crate) async fn connect(endpoint: &Endpoint, limit: Duration) -> Result<(Channel, Received), Error> {
    let received = Received::default();
    let mut tcp = HttpConnector::new();
    // Whether there is TLS on top of it is the endpoint's concern.
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(limit));
    let counted = received.clone();
    let connector = tcp.map_response(move |stream| {
        let Received(count) = counted.clone();
        let read = move |bytes: &[u8]| {
            count.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        };
        TokioIo::new(InspectReader::new(stream.into_inner(), read))
    });
    Ok((endpoint.connect_with_connector(connector).await?, received))
}

/// What comes over a connection though nothing is answered: a server's transport acknowledges the bytes of each request, and
/// asks how far away the client is (`handleData` in grpc-go's `http2_server.go`), and pings are answered. The parts of a large
/// answer are far more.
const CONTROL: u64 = 1_024;

/// Waits until the member is found to answer nothing: nothing comes over its connection, and then within `patience` neither
/// the answer to a read of `key`, whatever is there, nor a part of another. On a slow link that answer is behind the large
/// one, whose parts are signs of life as good. Or until it says that it cannot answer.
pub(crate) async fn silence(wire: &Wire, key: &[u8], patience: Duration) -> etcd_client::Error {
    loop {
        let before = wire.received.count();
        sleep(QUIET).await;
        if wire.received.count() > before {
            continue;
        }
        match timeout(patience, wire.kv.clone().get(key, None)).await {
            Ok(Err(error)) if says_that_it_cannot(&error) => return error,
            // An answer of another kind says that the member reads, also one that refuses.
            Ok(_) => {}
            Err(_) if wire.received.count() - before < CONTROL => {
                let text = format!("no answer came for {:?}", QUIET + patience);
                return Status::deadline_exceeded(text).into();
            }
            Err(_) => {}
        }
    }
}

/// Without a leader, for example: a read that waits already would go on waiting for the server's own limit of seven seconds.
fn says_that_it_cannot(error: &etcd_client::Error) -> bool {
    let cannot = [Code::Unavailable, Code::DeadlineExceeded, Code::FailedPrecondition];
    matches!(error, etcd_client::Error::GRpcStatus(status) if cannot.contains(&status.code()))
}
