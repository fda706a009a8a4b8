//! Whether a connection lives while a large answer is on its way: what comes over it is counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tokio::time::{sleep, timeout};
use tokio_util::io::InspectReader;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Error};
use tower::ServiceExt;

use crate::link::Wire;

/// A connection over which nothing comes for this long is asked for a sign of life.
const QUIET: Duration = Duration::from_millis(500);

/// How many bytes have come over one connection.
#[derive(Clone, Default)]
pub(crate) struct Received(Arc<AtomicU64>);

impl Received {
    fn count(&self) -> u64 {
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

/// Waits until the connection is found to be dead: nothing comes over it, and then within `patience` neither the answer to a
/// read of `key`, whatever is there, nor anything else. On a slow link that answer is behind the large one, whose parts are
/// signs of life as good.
pub(crate) async fn silence(wire: &Wire, key: &[u8], patience: Duration) -> etcd_client::Error {
    loop {
        let before = wire.received.count();
        sleep(QUIET).await;
        if wire.received.count() > before {
            continue;
        }
        // An answer of whatever kind, also one that refuses, came over it.
        let _ = timeout(patience, wire.kv.clone().get(key, None)).await;
        if wire.received.count() == before {
            let text = format!("nothing came over the connection for {:?}", QUIET + patience);
            return Status::deadline_exceeded(text).into();
        }
    }
}
