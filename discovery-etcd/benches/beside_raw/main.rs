//! This backend beside etcd's client used directly, and beside what it declares, on one server and in one run: see
//! `docs/benchmarks.md`.
//!
//! Each side runs in a process of its own, started anew for each round, so that its processor time is its own; the sides
//! take turns. A line is the median of the rounds, with the smallest and the largest. Needs what the tests need: an etcd
//! on PATH, or Go.

mod bounds;
mod idle;
mod raw;
mod records;
mod register;
mod storm;
mod sync;
mod watch;

use std::process::ExitCode;

use discovery_core::ExecutorKind;
use discovery_testbed::{Etcd, sides};

fn main() -> ExitCode {
    // `cargo bench` passes `--bench`; what is no flag picks benchmarks by a part of their name.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let done = runtime.block_on(async {
        match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [sides::ROLE, name, endpoint, count] => side(name, endpoint, count.parse()?).await,
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

/// Whatever keeps a benchmark from going on.
type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// One side of a comparison, in the process that measures it.
async fn side(name: &str, endpoint: &str, count: usize) -> Outcome {
    match name {
        "watch-raw" => watch::raw(endpoint, count).await,
        "watch-raw-apart" => watch::raw_apart(endpoint, count).await,
        "watch-view" => watch::view(endpoint, count, ExecutorKind::Dedicated).await,
        "watch-view-shared" => watch::view(endpoint, count, ExecutorKind::Current).await,
        "sync-raw" => sync::raw(endpoint, count).await,
        "sync-view" => sync::view(endpoint, count).await,
        "register-raw" => register::raw(endpoint, count).await,
        "register-ours" => register::ours(endpoint, count).await,
        "owner" => bounds::owner(endpoint, count).await,
        "idle" => idle::handle(endpoint, count).await,
        _ => Err(format!("no side is called {name:?}").into()),
    }
}

async fn compare(wanted: &[&str]) -> Outcome {
    let picked = |name: &str| wanted.is_empty() || wanted.iter().any(|part| name.contains(part));
    let etcd = Etcd::start().await?;
    if picked("change_paced") {
        watch::compare(&etcd, "change_paced", watch::Pace::OneByOne).await?;
    }
    if picked("change_burst") {
        watch::compare(&etcd, "change_burst", watch::Pace::Burst).await?;
    }
    if picked("register_10000") {
        register::compare(&etcd).await?;
    }
    if picked("idle") {
        idle::measure(&etcd).await?;
    }
    bounds::measure(&etcd, picked).await?;
    if picked("storm") {
        storm::measure().await?;
    }
    if picked("first_sync_100000") {
        sync::compare(&etcd).await?;
    }
    Ok(())
}
