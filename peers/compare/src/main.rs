//! This project side by side with the reference, `dynamo-runtime`, used as it is: see `docs/interop.md` and
//! `docs/benchmarks.md`. Run by `cargo xtask peers`.

mod interop;
mod ours;
mod peer;
mod report;
mod speed;
mod store;

use std::process::ExitCode;

/// Whatever keeps a run from going on.
type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const USAGE: &str = "\
usage: discovery-compare                  both
       discovery-compare interop [PART]   whether each side understands the other
       discovery-compare speed [PART]     what the same work costs on each side
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let done = match arguments[..] {
        [peer::ROLE] => {
            runtime.block_on(ours::run());
            // The thread that waits for input must not keep the process.
            runtime.shutdown_background();
            return ExitCode::SUCCESS;
        }
        [] => runtime.block_on(async {
            let done = [interop("").await, speed("").await];
            let failed: Vec<String> =
                done.into_iter().filter_map(|done| done.err().map(|error| error.to_string())).collect();
            if failed.is_empty() { Ok(()) } else { Err(failed.join("\n").into()) }
        }),
        ["interop"] => runtime.block_on(interop("")),
        ["interop", part] => runtime.block_on(interop(part)),
        ["speed"] => runtime.block_on(speed("")),
        ["speed", part] => runtime.block_on(speed(part)),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn interop(part: &str) -> Outcome {
    report::begin();
    let rows = interop::run(part).await?;
    if part.is_empty() {
        report::write_interop(&rows)?;
    }
    let wrong = rows.iter().filter(|row| row.finding.is_err()).count();
    if wrong > 0 {
        return Err(format!("{wrong} of {} are wrong", rows.len()).into());
    }
    Ok(())
}

async fn speed(part: &str) -> Outcome {
    report::begin();
    if part.is_empty() {
        // Of another machine, perhaps: what is not measured now must not look as if it had been.
        report::forget()?;
    }
    let failed = speed::run(part, report::keep).await?;
    if failed.is_empty() { Ok(()) } else { Err(format!("failed:\n- {}", failed.join("\n- ")).into()) }
}
