//! What happened, when, and when the router knew: as the demo goes on.

use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::time::Duration;

use super::told::Moment;
use crate::failure::{Failure, Outcome};
use crate::output::line;

const DIM: &str = "\x1b[2m";
const GREEN: &str = "\x1b[32m";
const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";

/// Prints lines as things happen.
pub(super) struct Timeline {
    start: Moment,
    coloured: bool,
}

/// How long the router took, and how long it might.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    /// `None`: it never knew.
    pub(super) time: Option<Duration>,
    /// What the backend declares.
    pub(super) declared: Duration,
    /// What this demo lets pass.
    pub(super) allowed: Duration,
}

impl Took {
    pub(super) fn in_time(&self) -> bool {
        self.time.is_some_and(|time| time <= self.allowed)
    }
}

impl Timeline {
    pub(super) fn start() -> Self {
        Self { start: Moment::now(), coloured: io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    pub(super) fn elapsed(&self) -> Duration {
        Moment::now().since(self.start)
    }

    /// A line of its own.
    pub(super) fn say(&self, text: impl Display) -> Outcome {
        // Who watches the demo end early must not read its exit code as a success.
        line(&mut io::stdout().lock(), text).map_err(|failure| match failure {
            Failure::OutputClosed => Failure::failed("demo: its output was closed before its end"),
            other => other,
        })
    }

    /// Something that happened at `at`.
    pub(super) fn event(&self, at: Moment, who: &str, what: impl Display) -> Outcome {
        self.say(format!("{}  {who:<9} {what}", self.time(at)))
    }

    /// Something that happened at `at` and that the router had to hear of.
    pub(super) fn heard(&self, at: Moment, who: &str, what: &str, took: Took) -> Outcome {
        let (colour, knew) = match took.time {
            Some(time) if time <= took.declared => (GREEN, format!("router knew after {}", span(time))),
            Some(time) if took.in_time() => {
                (YELLOW, format!("router knew after {} (declared: {})", span(time), span(took.declared)))
            }
            Some(time) => (RED, format!("router knew after {}, too late: {}", span(time), span(took.declared))),
            None => (RED, "router never knew".to_owned()),
        };
        self.say(format!("{}  {who:<9} {what:<58} {}", self.time(at), self.paint(colour, &knew)))
    }

    /// What was checked, and what came of it.
    pub(super) fn verdict(&self, good: bool, text: &str) -> Outcome {
        let (colour, mark) = if good { (GREEN, "yes") } else { (RED, "NO ") };
        self.say(format!("  {}  {text}", self.paint(colour, mark)))
    }

    fn time(&self, at: Moment) -> String {
        self.paint(DIM, &format!("{:>7.3} s", at.since(self.start).as_secs_f64()))
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.coloured { format!("{colour}{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// A time span as a person reads it.
pub(super) fn span(span: Duration) -> String {
    let milliseconds = span.as_secs_f64() * 1e3;
    if milliseconds < 10.0 { format!("{milliseconds:.1} ms") } else { format!("{milliseconds:.0} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_easily() {
        assert_eq!(span(Duration::from_micros(3_140)), "3.1 ms");
        assert_eq!(span(Duration::from_millis(2_345)), "2345 ms");
    }

    #[test]
    fn late_is_later_than_allowed() {
        let took = |time| Took { time, declared: Duration::from_millis(5), allowed: Duration::from_millis(50) };
        assert!(took(Some(Duration::from_millis(50))).in_time());
        assert!(!took(Some(Duration::from_millis(51))).in_time() && !took(None).in_time());
    }
}
