//! A thousand ready pods on a real control plane, and what a view of them costs beside kube's client used directly: see
//! `docs/benchmarks.md`.
//!
//! Pods are made in the API, with their resources, and nothing runs in them; the EndpointSlices are the controller's own.
//! Each side runs in a process of its own, so that its processor time and its memory are its own. Needs what the tests
//! need: a control plane's programs on PATH, or Go.

mod change;
mod fleet;
mod raw;
mod roll;
mod sync;

use std::process::ExitCode;

use discovery_testbed::sides;

use crate::fleet::Fleet;

/// How many pods there are.
const PODS: usize = 1_000;

/// Whatever keeps a benchmark from going on.
type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    // `cargo bench` passes `--bench`; what is no flag picks benchmarks by a part of their name.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let done = runtime.expect("a runtime").block_on(async {
        match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [sides::ROLE, name, kubeconfig, namespace] => side(name, kubeconfig, namespace).await,
            ref wanted => compare(wanted).await,
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// One side of a comparison, in the process that measures it.
async fn side(name: &str, kubeconfig: &str, namespace: &str) -> Outcome {
    match name {
        "sync-raw" => sync::raw(kubeconfig, namespace).await,
        "sync-view" => sync::view(kubeconfig, namespace).await,
        "change" => change::both(kubeconfig, namespace).await,
        "roll-raw" => roll::raw(kubeconfig, namespace).await,
        "roll-view" => roll::view(kubeconfig, namespace).await,
        _ => Err(format!("no side is called {name:?}").into()),
    }
}

async fn compare(wanted: &[&str]) -> Outcome {
    let picked = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part));
    let mut fleet = Fleet::start(PODS).await?;
    if picked("first_sync") {
        sync::compare(&fleet).await?;
    }
    if picked("change") {
        change::compare(&fleet).await?;
    }
    if picked("roll") {
        roll::compare(&mut fleet).await?;
    }
    Ok(())
}
