//! The reference as a side of the comparison: `dynamo-runtime`'s own `Discovery`, driven by commands.
//!
//! Configured by the reference's variables alone: `DYN_DISCOVERY_BACKEND`, `ETCD_ENDPOINTS`, `DYN_FILE_KV` and so on.
//! Needs `DYN_EVENT_PLANE=zmq` and `DYN_REQUEST_PLANE=tcp`, or else it wants NATS.

mod convert;
mod lookup;
mod side;
mod watch;

use dynamo_runtime::{DistributedRuntime, Runtime};

use discovery_peer_protocol::{Line, Output, serve};
use side::Reference;

fn main() {
    // As the reference's own worker does it: worker threads by its settings.
    let runtime = match Runtime::from_settings() {
        Ok(runtime) => runtime,
        Err(error) => return fail(error),
    };
    let outcome = runtime.primary().block_on(run(runtime.clone()));
    if let Err(error) = outcome {
        fail(error);
    }
    // What is left is not waited for: threads of the library that never end.
    std::process::exit(0);
}

async fn run(runtime: Runtime) -> anyhow::Result<()> {
    let distributed = DistributedRuntime::from_settings(runtime).await?;
    let instance = distributed.connection_id();
    serve(Reference::new(distributed), instance).await;
    Ok(())
}

fn fail(error: anyhow::Error) {
    Output.write(&Line::Ended { reason: format!("{error:#}") });
}
