//! `discovery demo`: workers register, die, move, freeze and drain, and a router follows them by its view alone.
//!
//! Workers and the router are processes of their own, which are this same program; they meet in a directory that is
//! removed at the end. The demo only starts, signals and asks them. It takes part in discovery in no way itself.

mod process;
mod router;
mod script;
mod timeline;
mod told;
mod worker;

pub(crate) use router::{RouterArguments, router};
pub(crate) use worker::{WorkerArguments, worker};

use crate::failure::{Failure, Outcome};
use crate::signals::StopSignals;
use script::Script;

const NAMESPACE: &str = "demo";
const COMPONENT: &str = "backend";
const ENDPOINT: &str = "generate";
const MODEL: &str = "demo/echo-1";

pub(crate) async fn demo(backend: Option<&str>) -> Outcome {
    if let Some(other) = backend.filter(|name| *name != "file") {
        return Err(Failure::usage(format!(
            "demo: it runs on the file backend, not on {other:?}: leave --backend out"
        )));
    }
    let mut stop = StopSignals::listen()?;
    let failed = |error| Failure::failed(format!("demo: no temporary directory: {error}: set TMPDIR to one"));
    let directory = tempfile::Builder::new().prefix("discovery-demo-").tempdir().map_err(failed)?;
    let mut script = Script::new(directory.path());
    let outcome = tokio::select! {
        outcome = script.play() => outcome,
        () = stop.stop() => Err(Failure::failed("demo: interrupted: nothing is left behind")),
    };
    // No process may be writing there any more when the directory goes.
    script.clear().await;
    let removed = directory.close().map_err(|error| Failure::failed(format!("demo: {error}: remove it by hand")));
    outcome.and(removed)
}
