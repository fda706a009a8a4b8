//! The live table.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use discovery_core::{Batch, Changes, Freshness, Key, ViewChange};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::screen::Screen;
use crate::failure::{Failure, Outcome};
use crate::output::{clean, cut, path_text, summary, terminal_size};

/// How long a change stays marked, and a removed record on the screen.
const MARKED: Duration = Duration::from_secs(4);
/// How often ages are brought up to date.
const TICK: Duration = Duration::from_secs(1);

const PLAIN: &str = "";
const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[31m";
const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";

/// Shows the table until the stream ends.
pub(super) async fn show(title: &str, mut changes: Changes<Bytes>) -> Outcome {
    let resized = signal(SignalKind::window_change());
    let mut resized = resized.map_err(|error| Failure::failed(format!("signals: {error}: cannot be handled")))?;
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut board = Board::default();
    let screen = Screen::enter()?;
    loop {
        tokio::select! {
            batch = changes.next() => match batch {
                Some(batch) => board.apply(&batch, Instant::now()),
                None => return Ok(()),
            },
            _ = resized.recv() => {}
            _ = tick.tick() => {}
        }
        let size = terminal_size().unwrap_or((80, 24));
        screen.show(&board.draw(title, size, Instant::now()))?;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// There before the table was.
    First,
    Added,
    Updated,
    Removed,
}

struct Row {
    what: String,
    since: Instant,
    changed: Instant,
    mark: Mark,
}

/// What the table shows.
#[derive(Default)]
struct Board {
    rows: BTreeMap<Key, Row>,
    freshness: Freshness,
    last_change: Option<Instant>,
}

impl Board {
    fn apply(&mut self, batch: &Batch<Bytes>, now: Instant) {
        self.freshness = batch.freshness().clone();
        for change in batch.changes() {
            let record = change.record();
            let what = serde_json::from_slice::<Value>(record.value())
                .map_or_else(|_| "not JSON".to_owned(), |value| summary(record.key().kind(), &value));
            let mark = match change {
                ViewChange::Added(_) if batch.is_synced() => Mark::First,
                ViewChange::Added(_) => Mark::Added,
                ViewChange::Updated { .. } => Mark::Updated,
                ViewChange::Removed(_) => Mark::Removed,
            };
            self.set(change.key().clone(), what, mark, now);
        }
    }

    fn set(&mut self, key: Key, what: String, mark: Mark, now: Instant) {
        let since = match (mark, self.rows.get(&key)) {
            (Mark::Updated | Mark::Removed, Some(row)) => row.since,
            _ => now,
        };
        if mark != Mark::First {
            self.last_change = Some(now);
        }
        self.rows.insert(key, Row { what, since, changed: now, mark });
    }

    /// The lines of a screen of this size.
    fn draw(&mut self, title: &str, (width, height): (usize, usize), now: Instant) -> Vec<String> {
        self.rows.retain(|_, row| row.mark != Mark::Removed || now < row.changed + MARKED);
        let records = self.rows.values().filter(|row| row.mark != Mark::Removed).count();
        let mut lines = vec![self.state_line(title, records, width, now), String::new()];
        let room = height.saturating_sub(lines.len() + 2).max(1);
        let mut cells = vec![["KIND", "PATH", "INSTANCE", "WHAT", "AGE"].map(str::to_owned)];
        for (key, row) in self.rows.iter().take(room) {
            let instance = match key.suffix() {
                Some(suffix) => format!("{}/{}", key.instance(), clean(suffix)),
                None => key.instance().to_string(),
            };
            let known = if row.mark == Mark::First { "+" } else { "" };
            let age = format!("{}{known}", age(now.saturating_duration_since(row.since)));
            cells.push([key.kind().to_owned(), clean(&path_text(key)), instance, row.what.clone(), age]);
        }
        let widths = columns(&cells, width);
        let styles = std::iter::once(DIM).chain(self.rows.values().map(|row| row.style(now)));
        for (row, style) in cells.iter().zip(styles) {
            let text: Vec<_> =
                row.iter().zip(widths).map(|(cell, wide)| format!("{:<wide$}", cut(cell, Some(wide)))).collect();
            lines.push(format!("{style}{}", cut(text.join("  ").trim_end(), Some(width))));
        }
        if self.rows.len() > room {
            lines.push(format!("{DIM}{}", cut(&format!("and {} more", self.rows.len() - room), Some(width))));
        }
        lines.truncate(height);
        lines
    }

    fn state_line(&self, title: &str, records: usize, width: usize, now: Instant) -> String {
        let (colour, state) = match &self.freshness {
            Freshness::Live => (GREEN, "live".to_owned()),
            Freshness::Syncing => (YELLOW, "syncing".to_owned()),
            Freshness::Stale { since, cause } => {
                let since = age(now.saturating_duration_since(*since));
                (RED, format!("stale for {since}: {}", clean(&cause.to_string())))
            }
        };
        let plural = if records == 1 { "" } else { "s" };
        let last = self.last_change.map_or_else(String::new, |last| {
            format!(" · last change {} ago", age(now.saturating_duration_since(last)))
        });
        let text = format!("{state} · {records} record{plural} · {}{last} · Ctrl-C ends", clean(title));
        format!("{colour}●\x1b[0m {BOLD}{}", cut(&text, Some(width.saturating_sub(2))))
    }
}

impl Row {
    fn style(&self, now: Instant) -> &'static str {
        match self.mark {
            _ if now >= self.changed + MARKED => PLAIN,
            Mark::First => PLAIN,
            Mark::Added => GREEN,
            Mark::Updated => YELLOW,
            Mark::Removed => RED,
        }
    }
}

/// The width of each column: what it needs, and what it says shrinks first.
fn columns(rows: &[[String; 5]], width: usize) -> [usize; 5] {
    let mut widths = [0; 5];
    for row in rows {
        for (wide, cell) in widths.iter_mut().zip(row) {
            *wide = cell.chars().count().max(*wide);
        }
    }
    let gaps = 2 * (widths.len() - 1);
    // The value, then the path.
    for (column, least) in [(3, 8), (1, 8)] {
        let excess = (widths.iter().sum::<usize>() + gaps).saturating_sub(width);
        widths[column] -= excess.min(widths[column].saturating_sub(least));
    }
    widths
}

/// A time span as a person says it.
fn age(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use discovery_core::{InstanceId, Path};

    use super::*;

    fn key(n: u64) -> Key {
        Key::new(Path::new("endpoint", ["dynamo", "backend", "generate"]).unwrap(), InstanceId(n))
    }

    fn visible(lines: &[String]) -> Vec<String> {
        let plain = |line: &String| {
            let mut text = String::new();
            let mut rest = line.chars();
            while let Some(c) = rest.next() {
                if c == '\u{1b}' {
                    rest.by_ref().find(char::is_ascii_alphabetic);
                } else {
                    text.push(c);
                }
            }
            text
        };
        lines.iter().map(plain).collect()
    }

    #[test]
    fn the_table_shows_records_their_age_and_the_state() {
        let start = Instant::now();
        let mut board = Board { freshness: Freshness::Live, ..Board::default() };
        board.set(key(1), "tcp 10.0.0.5:9000".to_owned(), Mark::First, start);
        board.set(key(2), "tcp 10.0.0.6:9000".to_owned(), Mark::Added, start + Duration::from_secs(60));
        let lines = visible(&board.draw("file · endpoint", (100, 10), start + Duration::from_secs(61)));
        assert_eq!(
            lines,
            [
                "● live · 2 records · file · endpoint · last change 1s ago · Ctrl-C ends",
                "",
                "KIND      PATH                     INSTANCE  WHAT               AGE",
                "endpoint  dynamo/backend/generate  1         tcp 10.0.0.5:9000  1m01s+",
                "endpoint  dynamo/backend/generate  2         tcp 10.0.0.6:9000  1s",
            ]
        );
    }

    #[test]
    fn a_removed_record_stays_for_a_moment() {
        let start = Instant::now();
        let mut board = Board::default();
        board.set(key(1), "x".to_owned(), Mark::Added, start);
        board.set(key(1), "x".to_owned(), Mark::Removed, start);
        let shown = board.draw("t", (80, 10), start + Duration::from_secs(1));
        assert!(shown.last().unwrap().starts_with(RED) && shown[0].contains("0 records"), "{shown:?}");
        assert_eq!(board.draw("t", (80, 10), start + MARKED).len(), 3);
    }

    #[test]
    fn nothing_is_wider_or_higher_than_the_terminal() {
        let now = Instant::now();
        let mut board = Board::default();
        for n in 0..100 {
            board.set(key(n), "x".repeat(200), Mark::First, now);
        }
        for (width, height) in [(80, 24), (40, 8), (120, 50), (5, 3)] {
            let lines = visible(&board.draw("a title that is long", (width, height), now));
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{width}x{height}: {lines:?}");
            assert!(lines.len() <= height, "{width}x{height}: {lines:?}");
        }
    }

    #[test]
    fn ages_are_short() {
        let of = |seconds| age(Duration::from_secs(seconds));
        assert_eq!([of(59), of(83), of(7500), of(273_600)], ["59s", "1m23s", "2h05m", "3d04h"]);
    }
}
