//! A round: one side in a process of its own, what it says, and what many rounds come to.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::Outcome;

/// The first argument of a process that is one side.
pub(crate) const ROLE: &str = "side";

pub(crate) struct Side {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Side {
    /// Starts a side and waits until it says that it is ready.
    pub(crate) async fn start(name: &str, endpoint: &str, count: usize) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([ROLE, name, endpoint, &count.to_string()])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("no output to read")?).lines();
        let mut side = Self { child, lines };
        match side.lines.next_line().await? {
            Some(line) if line == "ready" => Ok(side),
            other => Err(format!("{name} did not become ready: {other:?}").into()),
        }
    }

    /// The numbers that it prints at its end.
    pub(crate) async fn end(mut self) -> Outcome<Vec<f64>> {
        let line = self.lines.next_line().await?.ok_or("a side ended without a result")?;
        self.child.wait().await?;
        Ok(line.split(' ').map(str::parse).collect::<Result<_, _>>()?)
    }
}

/// Says that a side is ready.
pub(crate) fn ready() {
    println!("ready");
}

/// Says what a side has measured.
pub(crate) fn measured(numbers: &[f64]) {
    println!("{}", numbers.iter().map(f64::to_string).collect::<Vec<_>>().join(" "));
}

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1_000.0
}

/// The value below which `part` of the values are.
pub(crate) fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}

/// Prints the median of rounds, with the smallest and the largest.
pub(crate) fn report(name: &str, unit: &str, values: impl IntoIterator<Item = f64>) {
    let mut values: Vec<f64> = values.into_iter().collect();
    let median = quantile(&mut values, 0.5);
    let (least, most) = (quantile(&mut values, 0.0), quantile(&mut values, 1.0));
    println!("{name:<52} {median:>9.2} {unit}  [{least:.2} .. {most:.2}]");
}

/// Prints both sides of rounds and their ratio, round by round.
pub(crate) fn beside(name: &str, unit: &str, rounds: &[(f64, f64)]) {
    report(&format!("{name}/raw"), unit, rounds.iter().map(|(raw, _)| *raw));
    report(&format!("{name}/ours"), unit, rounds.iter().map(|(_, ours)| *ours));
    report(&format!("{name}/ours over raw"), "times", rounds.iter().map(|(raw, ours)| ours / raw));
}
