//! `discovery demo`: workers register, die, move, freeze and drain, and a router follows them by its view alone.
//!
//! Workers and the router are processes of their own, which are this same program; they meet in a directory, or below a
//! prefix of etcd's, that is removed at the end. On Kubernetes the workers are pods of `deploy/`'s example, in a namespace
//! of the demo's own. The demo only starts, signals and asks them. It takes part in discovery in no way itself.

mod directory;
mod judge;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod process;
mod router;
mod script;
mod store;
mod timeline;
mod told;
mod worker;

pub(crate) use router::{RouterArguments, router};
pub(crate) use worker::{WorkerArguments, worker};

use discovery_core::{BACKEND_VARIABLE, Environment};

use crate::failure::{Failure, Outcome};
use crate::signals::StopSignals;
use script::Script;
use store::Store;

const NAMESPACE: &str = "demo";
const COMPONENT: &str = "backend";
const ENDPOINT: &str = "generate";
const MODEL: &str = "demo/echo-1";

pub(crate) async fn demo(backend: Option<&str>) -> Outcome {
    let mut stop = StopSignals::listen()?;
    let interrupted = |by| Failure::Stopped("demo: interrupted: nothing is left behind".to_owned(), by);
    // Not what else a process here would choose: the demo is for a machine on which nothing is set up, too.
    let named = Environment::process().get(BACKEND_VARIABLE)?.map(str::to_owned);
    let backend = backend.map(str::to_owned).or(named).unwrap_or_else(|| "file".to_owned());
    let store = tokio::select! {
        store = Store::open(&backend) => store?,
        by = stop.stop() => return Err(interrupted(by)),
    };
    // No process may be writing there any more when the place goes.
    let outcome = match &store {
        #[cfg(feature = "kubernetes")]
        Store::Kubernetes(space) => {
            let mut rollout = kubernetes::Rollout::new(space);
            let outcome = tokio::select! {
                outcome = rollout.play(&store) => outcome,
                by = stop.stop() => Err(interrupted(by)),
            };
            rollout.clear().await;
            outcome
        }
        _ => {
            let mut script = Script::new(&store);
            let outcome = tokio::select! {
                outcome = script.play() => outcome,
                by = stop.stop() => Err(interrupted(by)),
            };
            script.clear().await;
            outcome
        }
    };
    match (outcome, store.remove().await) {
        (outcome, Ok(())) => outcome,
        (Ok(()), left) => left,
        (Err(failure), left) => {
            failure.report();
            left
        }
    }
}
