//! `discovery watch`: follows a query.

mod live;
mod screen;

use std::io;

use bytes::Bytes;
use discovery_core::{Batch, Freshness, Query, ViewChange, ViewOptions};
use serde::Serialize;

use crate::backends::{close, connect, patiently};
use crate::failure::Outcome;
use crate::list::{hint, readable};
use crate::output::{Format, clean, json_line, line, summary, terminal_size};
use crate::signals::StopSignals;

pub(crate) async fn watch(backend: Option<&str>, query: &str, format: Format) -> Outcome {
    let parsed: Query = query.parse()?;
    let mut stop = StopSignals::listen()?;
    let follow = async {
        let discovery = connect(backend).await?;
        let view = patiently(&discovery, discovery.entries(parsed.clone(), ViewOptions::default())).await?;
        let mut changes = view.changes();
        if format == Format::Table && terminal_size().is_some() {
            let title =
                format!("{} · {}", discovery.backend_name(), if query.is_empty() { "everything" } else { query });
            live::show(&title, changes).await?;
        } else {
            let mut lines = Lines { format, live: true };
            while let Some(batch) = changes.next().await {
                lines.print(&batch)?;
                if batch.is_synced() && view.load().is_empty() {
                    hint(&parsed);
                }
            }
        }
        match view.ended() {
            Some(error) => Err(error.into()),
            None => close(&discovery).await,
        }
    };
    tokio::select! {
        _ = stop.stop() => Ok(()),
        outcome = follow => outcome,
    }
}

/// A change that is not about one record.
#[derive(Debug, Serialize)]
#[serde(tag = "change", rename_all = "lowercase")]
enum StateLine {
    Synced { records: usize },
    Stale { cause: String },
    Live,
}

/// A line per change. The first state comes as added records, closed by `synced`.
struct Lines {
    format: Format,
    live: bool,
}

impl Lines {
    fn print(&mut self, batch: &Batch<Bytes>) -> Outcome {
        let mut shown = 0;
        for change in batch.changes() {
            let Some(record) = readable(Some(name_of(change)), change.record()) else { continue };
            shown += 1;
            let mut out = io::stdout().lock();
            match self.format {
                Format::Json => json_line(&mut out, &record)?,
                Format::Table => {
                    let what = summary(&record.kind, &record.value);
                    let key = clean(&change.key().to_string());
                    line(&mut out, format!("{:<8} {key}  {what}", name_of(change)))?;
                }
            }
        }
        if batch.is_synced() {
            self.state(&StateLine::Synced { records: shown })?;
        }
        match batch.freshness() {
            Freshness::Stale { cause, .. } => {
                self.live = false;
                self.state(&StateLine::Stale { cause: cause.to_string() })
            }
            Freshness::Live if !self.live => {
                self.live = true;
                self.state(&StateLine::Live)
            }
            _ => Ok(()),
        }
    }

    fn state(&self, state: &StateLine) -> Outcome {
        let mut out = io::stdout().lock();
        match (self.format, state) {
            (Format::Json, state) => json_line(&mut out, state),
            (Format::Table, StateLine::Synced { records }) => line(&mut out, format!("synced   {records} records")),
            (Format::Table, StateLine::Stale { cause }) => line(&mut out, format!("stale    {}", clean(cause))),
            (Format::Table, StateLine::Live) => line(&mut out, "live"),
        }
    }
}

/// The name of a change in the output.
fn name_of<T>(change: &ViewChange<T>) -> &'static str {
    match change {
        ViewChange::Added(_) => "added",
        ViewChange::Updated { .. } => "updated",
        ViewChange::Removed(_) => "removed",
    }
}
