//! The first sync of a set, and what decoding alone takes of it.

use std::hint::black_box;
use std::time::Duration;

use discovery_core::backend::Entry;
use discovery_core::{Discovery, Query, Record, Result, View, ViewOptions};

use crate::clock;
use crate::record::{Worker, mixed};
use crate::scripted::Script;

/// Decodes every entry and keeps the values, as a view has to.
pub(crate) fn decode(entries: &[Entry]) -> Duration {
    let start = clock::now();
    let values: Vec<Worker> =
        entries.iter().map(|entry| Worker::decode(&entry.key, &entry.value).expect("a worker")).collect();
    let spent = clock::now() - start;
    black_box(values);
    spent
}

/// Opens a decoded view of these entries until it is live.
pub(crate) fn typed(entries: Vec<Entry>) -> Duration {
    open(entries, |discovery| async move { discovery.view::<Worker>(Query::all()).await })
}

/// Opens an undecoded view of these entries until it is live.
pub(crate) fn untyped(entries: Vec<Entry>) -> Duration {
    open(entries, |discovery| async move { discovery.entries(Query::kind(Worker::KIND), ViewOptions::default()).await })
}

fn open<T, F>(entries: Vec<Entry>, view: impl FnOnce(Discovery) -> F) -> Duration
where
    T: Send + Sync + 'static,
    F: Future<Output = Result<View<T>>>,
{
    let records = entries.len();
    let script = Script::new(entries);
    let discovery = script.discovery.clone();
    let start = clock::now();
    let view = script.runtime.block_on(view(discovery)).expect("a view");
    let spent = clock::now() - start;
    assert_eq!(view.load().len(), records);
    spent
}

/// The workers below `count` as a store tells them that knows no order.
pub(crate) fn unordered(count: u64) -> Vec<Entry> {
    let mut numbers: Vec<u64> = (0..count).collect();
    numbers.sort_unstable_by_key(|&number| mixed(!number));
    numbers.into_iter().map(|number| Worker::new(number, 0).entry()).collect()
}
