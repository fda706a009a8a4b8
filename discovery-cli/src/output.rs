//! Records on standard output: as JSON, as a table.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

use clap::ValueEnum;
use discovery_core::{Key, Registered};
use serde::Serialize;
use serde_json::Value;

use crate::failure::{Failure, Outcome, printable};

/// What the output looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// A record as JSON.
#[derive(Debug, Serialize)]
pub(crate) struct RecordLine {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) change: Option<&'static str>,
    pub(crate) kind: String,
    pub(crate) path: String,
    pub(crate) instance_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) suffix: Option<String>,
    pub(crate) value: Value,
}

impl RecordLine {
    /// The record, unless its value is no JSON.
    pub(crate) fn new(
        change: Option<&'static str>,
        record: &Registered<bytes::Bytes>,
    ) -> Result<Self, serde_json::Error> {
        let key = record.key();
        Ok(Self {
            change,
            kind: key.kind().to_owned(),
            path: path_text(key),
            instance_id: key.instance().to_string(),
            suffix: key.suffix().map(str::to_owned),
            value: serde_json::from_slice(record.value())?,
        })
    }
}

/// The path without its kind, as it is written in queries.
pub(crate) fn path_text(key: &Key) -> String {
    let text = key.path().to_string();
    text.split_once('/').map_or_else(String::new, |(_, segments)| segments.to_owned())
}

/// What a person wants to know of a value, on one line.
pub(crate) fn summary(kind: &str, value: &Value) -> String {
    let transport = &value["transport"];
    let known = match kind {
        "endpoint" => ["tcp", "nats_tcp"].into_iter().find_map(|name| {
            let address = transport[name].as_str()?;
            Some(format!("{} {address}", name.trim_end_matches("_tcp")))
        }),
        "model" => value["card_json"]["display_name"].as_str().map(str::to_owned),
        "event_channel" => transport["kind"].as_str().map(|name| format!("{name} {}", addresses(&transport["config"]))),
        "event_source" => Some(value["metadata"].to_string()),
        _ => None,
    };
    clean(&known.unwrap_or_else(|| value.to_string()))
}

/// Every text in a channel's settings.
fn addresses(config: &Value) -> String {
    match config {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(addresses).collect::<Vec<_>>().join(" "),
        Value::Object(fields) => fields.values().map(addresses).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// The text without anything that a terminal would obey.
pub(crate) fn clean(text: &str) -> String {
    text.chars().flat_map(printable).collect()
}

/// One JSON document on one line, flushed.
pub(crate) fn json_line(out: &mut impl Write, document: &impl Serialize) -> Outcome {
    let mut line = serde_json::to_vec(document).map_err(|error| Failure::failed(format!("output: {error}")))?;
    line.push(b'\n');
    out.write_all(&line).and_then(|()| out.flush()).map_err(Failure::output)
}

/// One line for people, flushed.
pub(crate) fn line(out: &mut impl Write, text: impl Display) -> Outcome {
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(Failure::output)
}

/// Rows below a heading, in columns.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(heading: &[&str]) -> Self {
        Self { rows: vec![heading.iter().map(|name| (*name).to_owned()).collect()] }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The lines, cut to `width` where there is one.
    pub(crate) fn lines(&self, width: Option<usize>) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let length = |row: &Vec<String>, n: usize| row.get(n).map_or(0, |cell| cell.chars().count());
        let widths: Vec<_> =
            (0..columns).map(|n| self.rows.iter().map(|row| length(row, n)).max().unwrap_or(0)).collect();
        self.rows
            .iter()
            .map(|row| {
                let mut text = String::new();
                for (cell, wide) in row.iter().zip(&widths) {
                    text.push_str(&format!("{cell:<wide$}  "));
                }
                cut(text.trim_end(), width)
            })
            .collect()
    }

    /// Writes it to standard output, cut to the terminal's width if it is one.
    pub(crate) fn print(&self) -> Outcome {
        let mut text = self.lines(terminal_size().map(|(columns, _)| columns)).join("\n");
        text.push('\n');
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::output)
    }
}

/// A number of bytes as a person reads it.
pub(crate) fn bytes_text(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut unit = "bytes";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if size < 1024.0 {
            break;
        }
        (size, unit) = (size / 1024.0, larger);
    }
    let decimals = usize::from(unit != "bytes" && size < 10.0 && size.fract() >= 0.05);
    format!("{size:.decimals$} {unit}")
}

/// A time span as a person reads it.
pub(crate) fn span_text(span: Duration) -> String {
    let milliseconds = span.as_secs_f64() * 1e3;
    match milliseconds {
        0.0..10.0 => format!("{milliseconds:.1} ms"),
        10.0..1000.0 => format!("{milliseconds:.0} ms"),
        _ if span.subsec_millis() == 0 => format!("{} s", span.as_secs()),
        _ => format!("{:.1} s", span.as_secs_f64()),
    }
}

/// The text, no longer than `width` characters.
pub(crate) fn cut(text: &str, width: Option<usize>) -> String {
    match width {
        Some(width) if text.chars().count() > width => {
            text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
        }
        _ => text.to_owned(),
    }
}

/// Columns and lines of the terminal on standard output; `None` where it is none.
pub(crate) fn terminal_size() -> Option<(usize, usize)> {
    use std::io::IsTerminal;
    let out = io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&out).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then(|| (size.ws_col.into(), size.ws_row.into()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn summaries_say_where_and_what() {
        let cases = [
            ("endpoint", json!({"transport": {"tcp": "10.0.0.5:9000"}}), "tcp 10.0.0.5:9000"),
            ("endpoint", json!({"transport": {"nats_tcp": "a.b"}}), "nats a.b"),
            ("model", json!({"card_json": {"display_name": "Qwen"}}), "Qwen"),
            (
                "event_channel",
                json!({"transport": {"kind": "Zmq", "config": {"endpoint": "tcp://h:1"}}}),
                "Zmq tcp://h:1",
            ),
            ("event_source", json!({"metadata": {"size": 1}}), r#"{"size":1}"#),
            ("cache", json!({"size": 1}), r#"{"size":1}"#),
            ("endpoint", json!("no endpoint \u{1b}[2J"), r#""no endpoint \u001b[2J""#),
        ];
        for (kind, value, expected) in cases {
            assert_eq!(summary(kind, &value), expected);
        }
    }

    #[test]
    fn sizes_and_times_have_units() {
        let sizes = [0, 1023, 1024, 1536, 20_480, 2 << 30].map(bytes_text);
        assert_eq!(sizes, ["0 bytes", "1023 bytes", "1 KiB", "1.5 KiB", "20 KiB", "2 GiB"]);
        let times =
            [3_140, 42_000, 500_000, 10_000_000, 2_345_000].map(|micros| span_text(Duration::from_micros(micros)));
        assert_eq!(times, ["3.1 ms", "42 ms", "500 ms", "10 s", "2.3 s"]);
    }

    #[test]
    fn tables_are_aligned_and_cut() {
        let mut table = Table::new(&["KIND", "PATH"]);
        table.row(vec!["endpoint".to_owned(), "a/b/c".to_owned()]);
        assert_eq!(table.lines(None), ["KIND      PATH", "endpoint  a/b/c"]);
        assert_eq!(table.lines(Some(12)), ["KIND      P…", "endpoint  a…"]);
    }
}
