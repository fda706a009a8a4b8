//! The program `discovery`: registers, lists and watches records, and shows how workers find each other.

mod arguments;
mod backends;
#[cfg(feature = "conformance")]
mod conformance;
#[cfg(feature = "file")]
mod demo;
mod doctor;
#[cfg(feature = "kubernetes")]
mod explain;
mod failure;
mod inject;
mod list;
mod output;
mod rbac;
mod register;
mod signals;
mod watch;

use std::io::{self, IsTerminal};
use std::process::ExitCode;

use clap::CommandFactory;
use discovery_core::Environment;
use tracing_subscriber::EnvFilter;

use arguments::{Arguments, Command};
use failure::{Failure, Outcome};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run() -> Outcome {
    let Some(Arguments { backend, verbose, command }) = arguments::parse()? else { return Ok(()) };
    log(verbose)?;
    let backend = backend.as_deref();
    let asynchronous = async {
        match command {
            Command::Backends { output } => backends::backends(backend, output.format),
            Command::Register(arguments) => register::register(backend, *arguments).await,
            Command::List { query, output } => list::list(backend, &query.text, output.format).await,
            Command::Get { key, output } => list::get(backend, &key, output.format).await,
            Command::Watch { query, output } => watch::watch(backend, &query.text, output.format).await,
            #[cfg(feature = "file")]
            Command::Demo => demo::demo(backend).await,
            #[cfg(feature = "conformance")]
            Command::Conformance(arguments) => conformance::conformance(backend, verbose, arguments).await,
            Command::Doctor { output } => doctor::doctor(backend, output.format).await,
            #[cfg(feature = "kubernetes")]
            Command::Explain(arguments) => explain::explain(backend, &arguments).await,
            Command::Inject(arguments) => inject::inject(&arguments),
            Command::Crd => rbac::crd(),
            Command::Rbac(arguments) => rbac::rbac(&arguments),
            Command::Completions { shell } => completions(shell),
            #[cfg(feature = "file")]
            Command::DemoWorker(arguments) => demo::worker(arguments).await,
            #[cfg(feature = "file")]
            Command::DemoRouter(arguments) => demo::router(arguments).await,
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("the runtime does not start: {error}")))?;
    let outcome = runtime.block_on(asynchronous);
    // Threads that wait for input must not keep the process.
    runtime.shutdown_background();
    outcome
}

fn completions(shell: clap_complete::Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "discovery", &mut script);
    io::Write::write_all(&mut io::stdout().lock(), &script).map_err(Failure::output)
}

/// Logs to standard error where somebody asked for it.
fn log(verbose: u8) -> Outcome {
    let environment = Environment::process();
    let asked = environment.get("RUST_LOG")?.map(str::to_owned);
    let filter = match (asked, verbose) {
        (Some(filter), _) => filter,
        (None, 0) => return Ok(()),
        (None, 1) => "info".to_owned(),
        (None, _) => "debug".to_owned(),
    };
    let filter = EnvFilter::try_new(&filter)
        .map_err(|error| Failure::usage(format!("RUST_LOG={filter:?}: {error}: correct it or unset it")))?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    subscriber.with_ansi(io::stderr().is_terminal()).init();
    Ok(())
}
