//! One side in a process of its own, what it says, and what many rounds come to.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::Outcome;
use crate::fleet::Fleet;

/// The first argument of a process that is one side.
pub(crate) const ROLE: &str = "side";

pub(crate) struct Side {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Side {
    /// Starts a side and waits until it says that it is ready.
    pub(crate) async fn start(name: &str, fleet: &Fleet) -> Outcome<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args([ROLE, name, fleet.kubeconfig(), fleet.namespace()])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let lines = BufReader::new(child.stdout.take().ok_or("no output to read")?).lines();
        let mut side = Self { _child: child, lines };
        match side.lines.next_line().await? {
            Some(line) if line == "ready" => Ok(side),
            other => Err(format!("{name} did not become ready: {other:?}").into()),
        }
    }

    /// The next numbers that it says.
    pub(crate) async fn hear(&mut self) -> Outcome<Vec<f64>> {
        let line = self.lines.next_line().await?.ok_or("a side ended without a result")?;
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

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1_000_000.0
}

/// The value below which `part` of the values are.
pub(crate) fn quantile(values: &[f64], part: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * part).round() as usize).copied().unwrap_or(f64::NAN)
}

/// Prints the median, with the smallest and the largest.
pub(crate) fn report(name: &str, unit: &str, values: &[f64]) {
    let [median, least, most] = [0.5, 0.0, 1.0].map(|part| quantile(values, part));
    println!("{name:<44} {median:>9.2} {unit}  [{least:.2} .. {most:.2}]");
}
