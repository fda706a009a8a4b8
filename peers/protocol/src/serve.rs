//! The loop of a side.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::task::JoinSet;

use crate::command::{Command, Request};
use crate::line::{Line, Output};
use crate::usage::{Usage, now};

/// What a command comes to.
pub type Answer = Result<Value, String>;

/// A library under the commands.
pub trait Side: Send + Sync + 'static {
    /// Does one command. [`Command::Usage`] never comes here.
    fn obey(&self, command: Command) -> impl Future<Output = Answer> + Send;

    /// Ready once the library gave up by itself.
    fn ended(&self) -> impl Future<Output = String> + Send;
}

/// Obeys until the input ends, the library gives up, or [`Command::Shutdown`] was done. Commands run beside each other.
pub async fn serve(side: impl Side, instance: u64) {
    let side = Arc::new(side);
    let output = Output;
    output.write(&Line::Ready { instance: instance.to_string() });
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    let mut running = JoinSet::new();
    let mut leaving = false;
    loop {
        let line = tokio::select! {
            line = lines.next_line() => line,
            // A shutdown that was asked for answers first.
            reason = side.ended(), if !leaving => {
                output.write(&Line::Ended { reason });
                return;
            }
            Some(Ok(last)) = running.join_next() => if last { return } else { continue },
        };
        let Ok(Some(line)) = line else { return };
        let request: Request = match serde_json::from_str(&line) {
            Ok(request) => request,
            Err(error) => {
                output.write(&Line::Ended { reason: format!("not understood: {error}: {line}") });
                return;
            }
        };
        leaving |= matches!(request.command, Command::Shutdown);
        let side = side.clone();
        running.spawn(async move {
            let Request { id, command } = request;
            let last = matches!(command, Command::Shutdown);
            let answer = match command {
                Command::Usage => serde_json::to_value(Usage::of_this_process()).map_err(|error| error.to_string()),
                command => side.obey(command).await,
            };
            output.write(&match answer {
                Ok(answer) => Line::Done { id, answer },
                Err(error) => Line::Failed { id, error },
            });
            last
        });
    }
}

/// Runs an operation once and then so many times, each timed: `nanos`, the processor's time of all in `processor`, and
/// how many records the last one had in `records`.
///
/// # Errors
/// The operation's.
pub async fn timed<E: Display, F: Future<Output = Result<usize, E>>>(
    times: usize,
    mut operation: impl FnMut() -> F,
) -> Answer {
    let mut records = operation().await.map_err(|error| error.to_string())?;
    let before = Usage::of_this_process().processor;
    let mut nanos = Vec::with_capacity(times);
    for _ in 0..times {
        let began = now();
        records = operation().await.map_err(|error| error.to_string())?;
        nanos.push(now() - began);
    }
    let processor = Usage::of_this_process().processor - before;
    Ok(json!({ "nanos": nanos, "processor": processor, "records": records }))
}

/// Lookups of a group: each takes less than the clock can tell.
const GROUP: usize = 1_000;

/// Nanoseconds for each lookup, one figure for every group of a thousand. Both sides' lookups are compiled into this loop
/// alike; each gets another number.
pub fn time_lookups(groups: usize, mut look_up: impl FnMut(usize)) -> Vec<f64> {
    let group = |_| {
        let began = now();
        (0..GROUP).for_each(&mut look_up);
        (now() - began) as f64 / GROUP as f64
    };
    (0..groups).map(group).collect()
}
