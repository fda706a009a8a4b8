//! A benchmark's sides: each in a process of its own, so that its processor time and its memory are its own; what it says,
//! and what many rounds come to.

use std::env;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::error::{Error, Result};

/// The first argument of a process that is one side.
pub const ROLE: &str = "side";

/// This program again, as one side. It is killed when this is dropped, and ends by itself where this process is killed.
#[derive(Debug)]
pub struct Side {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Side {
    /// Starts the side of this name, with these arguments after it, and waits until it says that it is [`ready`].
    /// Cancel-safe: the process ends.
    ///
    /// # Errors
    /// It cannot be started, or says something else.
    pub async fn start(name: &str, arguments: &[&str]) -> Result<Self> {
        let failed = |error: io::Error| Error::because(name, error);
        let mut command = Command::new(env::current_exe().map_err(failed)?);
        command.args([ROLE, name]).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().map_err(failed)?;
        let output = child.stdout.take().ok_or_else(|| Error::new(format!("{name}: no output to read")))?;
        let mut side = Self { child, lines: BufReader::new(output).lines() };
        match side.lines.next_line().await.map_err(failed)? {
            Some(line) if line == "ready" => Ok(side),
            other => Err(Error::new(format!("{name} did not become ready: {other:?}"))),
        }
    }

    /// The next numbers that it has [`measured`]. Cancel-safe.
    ///
    /// # Errors
    /// It ended, or says something else.
    pub async fn hear(&mut self) -> Result<Vec<f64>> {
        let failed = |error: io::Error| Error::because("a side's output", error);
        let line = self.lines.next_line().await.map_err(failed)?;
        let line = line.ok_or_else(|| Error::new("a side ended without a result"))?;
        line.split(' ')
            .map(|number| number.parse().map_err(|_| Error::new(format!("a side says {line:?}, and no numbers"))))
            .collect()
    }

    /// The numbers that it has [`measured`] at its end. Cancel-safe: the process ends.
    ///
    /// # Errors
    /// Those of [`Side::hear`].
    pub async fn end(mut self) -> Result<Vec<f64>> {
        let numbers = self.hear().await?;
        self.child.wait().await.map_err(|error| Error::because("a side's end", error))?;
        Ok(numbers)
    }
}

/// Says that this side is ready. From then on it ends with whoever started it, in whatever way that ends: its input does.
pub fn ready() {
    println!("ready");
    std::thread::spawn(|| {
        // Nothing is ever written there; an input that cannot be read has ended, too.
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        std::process::exit(1);
    });
}

/// Says what this side has measured.
pub fn measured(numbers: &[f64]) {
    println!("{}", numbers.iter().map(f64::to_string).collect::<Vec<_>>().join(" "));
}

/// Since some moment in the past that is the same for every process of the machine.
pub fn now() -> Duration {
    read(ClockId::Monotonic)
}

/// The processor time that all threads of this process were given.
pub fn processor() -> Duration {
    read(ClockId::ProcessCPUTime)
}

/// In microseconds, with what is less.
pub fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1_000.0
}

/// In milliseconds, with what is less.
pub fn millis(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1_000_000.0
}

fn read(clock: ClockId) -> Duration {
    // Neither clock is ever before its own start.
    clock_gettime(clock).try_into().unwrap_or_default()
}

/// The value below which `part` of the values are.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}

/// Prints the median of rounds, with the smallest and the largest.
pub fn report(name: &str, unit: &str, values: impl IntoIterator<Item = f64>) {
    let values: Vec<f64> = values.into_iter().collect();
    let [median, least, most] = [0.5, 0.0, 1.0].map(|part| quantile(&values, part));
    println!("{name:<52} {median:>9.2} {unit}  [{least:.2} .. {most:.2}]");
}

/// Prints both sides of rounds and their ratio, round by round.
pub fn beside(name: &str, unit: &str, rounds: &[(f64, f64)]) {
    report(&format!("{name}/raw"), unit, rounds.iter().map(|(raw, _)| *raw));
    report(&format!("{name}/ours"), unit, rounds.iter().map(|(_, ours)| *ours));
    report(&format!("{name}/ours over raw"), "times", rounds.iter().map(|(raw, ours)| ours / raw));
}
