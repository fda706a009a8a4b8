//! `discovery list` and `discovery get`.

use std::io::{self, Write};

use bytes::Bytes;
use discovery_core::{Discovery, Query, Record, Registered, Scope};
use discovery_dynamo::{Endpoint, EventChannel, EventSource, Model};

use crate::backends::{close, connect, patiently};
use crate::failure::{Failure, Outcome, tell};
use crate::output::{Format, RecordLine, Table, clean, json_line, summary};

pub(crate) async fn list(backend: Option<&str>, query: &str, format: Format) -> Outcome {
    let query: Query = query.parse()?;
    let discovery = connect(backend).await?;
    let records = read(&discovery, query.clone()).await?;
    match format {
        Format::Json => json_line(&mut io::stdout().lock(), &records)?,
        Format::Table => table(&records)?,
    }
    if records.is_empty() {
        hint(&query);
    }
    #[cfg(feature = "kubernetes")]
    if records.is_empty() {
        crate::explain::say_why_none(&discovery).await;
    }
    close(&discovery).await
}

pub(crate) async fn get(backend: Option<&str>, key: &str, format: Format) -> Outcome {
    let query = around(key)?;
    let discovery = connect(backend).await?;
    let found = patiently(&discovery, discovery.list_entries(query)).await?;
    let mut found = found.iter().filter(|record| record.key().to_string() == key);
    let missing = || {
        Failure::failed(format!(
            "{key}: no such record on backend {}: `discovery list` shows those that there are",
            discovery.backend_name()
        ))
    };
    let record = found.next().ok_or_else(missing)?;
    if found.next().is_some() {
        return Err(Failure::failed(format!("{key}: more than one record is called so: use `discovery list`")));
    }
    let line = RecordLine::new(None, record)
        .map_err(|error| Failure::failed(format!("{key}: its value is no JSON: {error}: its owner must mend it")))?;
    match format {
        Format::Json => json_line(&mut io::stdout().lock(), &line)?,
        Format::Table => {
            let pretty =
                serde_json::to_string_pretty(&line.value).map_err(|error| Failure::failed(error.to_string()))?;
            writeln!(io::stdout().lock(), "{}\n{pretty}", clean(key)).map_err(Failure::output)?;
        }
    }
    close(&discovery).await
}

/// What whoever asked for a kind and found nothing may have meant. Kinds of one's own are asked for in the same way.
pub(crate) fn hint(query: &Query) {
    let known = [Endpoint::KIND, Model::KIND, EventChannel::KIND, EventSource::KIND];
    let scope = query.scope(None).ok();
    if let Some(kind) = scope.as_ref().and_then(Scope::kind).filter(|kind| !known.contains(kind)) {
        tell(format!("nothing matches: {kind} is none of Dynamo's kinds, which are {}", known.join(", ")));
    }
}

/// A query that holds the record of this name, whether its last segment is an instance or a suffix.
fn around(key: &str) -> Outcome<Query> {
    let segments: Vec<&str> = key.split('/').collect();
    if segments.len() < 3 {
        return Err(Failure::usage(format!(
            "{key:?} is no record: give KIND/PATH/INSTANCE as `discovery list` shows it, and /SUFFIX where it has one"
        )));
    }
    let depth = (segments.len() - 2).max(1);
    Ok(segments[..depth].join("/").parse()?)
}

/// The records of a query. What is no JSON is told and left out.
async fn read(discovery: &Discovery, query: Query) -> Outcome<Vec<RecordLine>> {
    let records = patiently(discovery, discovery.list_entries(query)).await?;
    Ok(records.iter().filter_map(|record| readable(None, record)).collect())
}

/// The record, unless its value is no JSON, which is told.
pub(crate) fn readable(change: Option<&'static str>, record: &Registered<Bytes>) -> Option<RecordLine> {
    RecordLine::new(change, record)
        .map_err(|error| {
            tell(format!("{}: skipped, its value is no JSON: {error}: its owner must mend it", record.key()))
        })
        .ok()
}

fn table(records: &[RecordLine]) -> Outcome {
    let suffixes = records.iter().any(|record| record.suffix.is_some());
    let mut heading = vec!["KIND", "PATH", "INSTANCE"];
    heading.extend(suffixes.then_some("SUFFIX"));
    heading.push("WHAT");
    let mut table = Table::new(&heading);
    for record in records {
        let mut cells = vec![record.kind.clone(), clean(&record.path), record.instance_id.clone()];
        cells.extend(suffixes.then(|| clean(record.suffix.as_deref().unwrap_or_default())));
        cells.push(summary(&record.kind, &record.value));
        table.row(cells);
    }
    if records.is_empty() {
        // The heading alone would look like a mistake.
        return crate::output::line(&mut io::stdout().lock(), "no records");
    }
    table.print()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_looked_for_with_and_without_a_suffix() {
        assert_eq!(around("model/a/b/c/1f/sql").unwrap(), "model/a/b/c".parse().unwrap());
        assert_eq!(around("endpoint/a/b/c/1f").unwrap(), "endpoint/a/b".parse().unwrap());
        assert_eq!(around("cache/a/1f").unwrap(), "cache".parse().unwrap());
        assert!(around("endpoint/a").is_err());
    }
}
