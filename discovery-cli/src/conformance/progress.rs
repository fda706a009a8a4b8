//! How far the suite is, on standard error: one line that changes on a terminal, a line for each case elsewhere.

use std::io::{self, IsTerminal, Write};

use discovery_conformance::{Outcome, Ran};
use rustix::termios::tcgetwinsize;

use crate::failure::one_line;

/// Goes to the start of the line and clears it.
const AFRESH: &str = "\r\x1b[K";

/// How wide a terminal is that does not say.
const WIDTH: usize = 80;

/// Counts, and the cases under way.
pub(super) struct Progress {
    all: usize,
    terminal: bool,
    under_way: Vec<&'static str>,
    passed: usize,
    failed: usize,
    not_run: usize,
    not_applicable: usize,
}

impl Progress {
    pub(super) fn new(all: usize) -> Self {
        let terminal = io::stderr().is_terminal();
        Self { all, terminal, under_way: Vec::new(), passed: 0, failed: 0, not_run: 0, not_applicable: 0 }
    }

    /// A case begins.
    pub(super) fn began(&mut self, name: &'static str) {
        self.under_way.push(name);
        if self.terminal {
            self.show("");
        }
    }

    /// It is over.
    pub(super) fn ended(&mut self, ran: &Ran) {
        self.under_way.retain(|name| *name != ran.name);
        let (word, why) = match &ran.outcome {
            Outcome::Passed => ("passed", ""),
            Outcome::Failed(why) => ("FAILED", why.as_str()),
            Outcome::NotApplicable(why) => ("not applicable", why.as_str()),
            Outcome::NoHook(why) => ("no hook", why.as_str()),
            Outcome::Skipped(why) => ("skipped", why.as_str()),
        };
        match &ran.outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::NoHook(_) | Outcome::Skipped(_) => self.not_run += 1,
            Outcome::NotApplicable(_) => self.not_applicable += 1,
        }
        let reason = if why.is_empty() { String::new() } else { format!(": {}", one_line(why)) };
        match self.terminal {
            false => tell(&format!("{} {}: {word} in {:.1?}{reason}\n", self.counts(), ran.name, ran.took)),
            // What failed stays on the screen.
            true if word == "FAILED" => self.show(&format!("{word} {}{reason}\n", ran.name)),
            true => self.show(""),
        }
    }

    /// Leaves the terminal's line empty for what follows.
    pub(super) fn over(&self) {
        if self.terminal {
            tell(AFRESH);
        }
    }

    fn done(&self) -> usize {
        self.passed + self.failed + self.not_run + self.not_applicable
    }

    fn counts(&self) -> String {
        format!("[{}/{}]", self.done(), self.all)
    }

    fn show(&self, above: &str) {
        let names = self.under_way.join(" ");
        let told = format!(
            "{} {} passed, {} failed, {} not run: {names}",
            self.counts(),
            self.passed,
            self.failed,
            self.not_run
        );
        let width = tcgetwinsize(io::stderr()).map_or(WIDTH, |size| usize::from(size.ws_col));
        let width = if width == 0 { WIDTH } else { width };
        // A line that wraps could not be cleared.
        let told: String = told.chars().take(width - 1).collect();
        tell(&format!("{AFRESH}{above}{told}"));
    }
}

/// That nobody reads it any more changes nothing.
fn tell(text: &str) {
    let mut out = io::stderr().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
