//! Many prefix views, of which a change touches ten.

use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use discovery_core::backend::{Change, Entry};
use discovery_core::{Changes, Path, Query, Record, Result};
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::record::{Worker, entry};
use crate::scripted::Script;

/// How many views match the record that changes.
pub(crate) const MATCHING: usize = 10;

/// How many records each of the other views shows.
const IN_EACH: u64 = 10;

/// How many changes are made ready before the clock starts.
const READY: u64 = 256;

/// A record below nine levels, which ten scopes of its kind hold: nine prefixes, and the kind itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Nested {
    levels: Vec<String>,
    generation: u64,
}

impl Record for Nested {
    const KIND: &'static str = Worker::KIND;

    fn path(&self) -> Result<Path> {
        Path::new(Self::KIND, &self.levels)
    }
}

/// Notes that a stream was woken, as an executor that queues the stream's task.
struct Woken {
    stream: usize,
    list: Arc<Mutex<Vec<usize>>>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).push(self.stream);
    }
}

/// As many views as were asked for, each with a stream of its changes.
pub(crate) struct Prefixes {
    script: Script,
    streams: Vec<(Changes<Nested>, Waker)>,
    woken: Arc<Mutex<Vec<usize>>>,
    done: u64,
}

impl Prefixes {
    /// `views` streams, [`MATCHING`] of them of views that show the record that changes. The store holds the same
    /// records however many views there are: ten for each of `others`.
    pub(crate) fn new(views: usize, others: usize) -> Self {
        let stored = (0..others).flat_map(|view| (0..IN_EACH).map(move |number| elsewhere(view, number)));
        let script = Script::new(stored.chain([nested(0)]).collect());
        let levels = levels();
        let inside = (0..MATCHING).map(|depth| Query::path(&levels[..depth]));
        let outside = (MATCHING..views).map(|view| Query::path([other(view)]));
        let woken = Arc::new(Mutex::new(Vec::new()));
        let streams = inside.chain(outside).enumerate().map(|(stream, query)| {
            let waker = Waker::from(Arc::new(Woken { stream, list: Arc::clone(&woken) }));
            (script.view(query).changes(), waker)
        });
        let streams = streams.collect();
        let mut prefixes = Self { script, streams, woken, done: 0 };
        for stream in 0..views {
            assert_eq!(prefixes.take(stream), 1, "a first batch");
        }
        prefixes
    }

    /// Changes one record again and again and takes each batch. Panics where another number of streams than
    /// [`MATCHING`] is woken.
    pub(crate) fn update(&mut self, count: u64) -> Duration {
        let mut spent = Duration::ZERO;
        for first in (0..count).step_by(READY as usize) {
            let changes: Vec<Change> = (first..count.min(first + READY)).map(|_| self.another()).collect();
            for change in changes {
                let start = clock::now();
                self.script.commit(vec![change]);
                let woken = self.run();
                let batches: usize = woken.iter().map(|&stream| self.take(stream)).sum();
                spent += clock::now() - start;
                assert_eq!((woken.len(), batches), (MATCHING, MATCHING), "streams woken, batches taken");
            }
        }
        spent
    }

    /// Lets the core work until streams are woken, and answers which.
    fn run(&self) -> Vec<usize> {
        self.script.runtime.block_on(async {
            loop {
                let woken = std::mem::take(&mut *self.woken.lock().unwrap_or_else(PoisonError::into_inner));
                if !woken.is_empty() {
                    return woken;
                }
                tokio::task::yield_now().await;
            }
        })
    }

    /// Polls a stream until it has to wait, and answers how many batches it had.
    fn take(&mut self, stream: usize) -> usize {
        let (changes, waker) = &mut self.streams[stream];
        let mut context = Context::from_waker(waker);
        let mut batches = 0;
        while let Poll::Ready(batch) = changes.poll_next_unpin(&mut context) {
            batch.expect("a live stream");
            batches += 1;
        }
        batches
    }

    fn another(&mut self) -> Change {
        self.done += 1;
        Change::Put(nested(self.done))
    }
}

fn levels() -> Vec<String> {
    (1..MATCHING).map(|level| format!("level-{level}")).collect()
}

fn nested(generation: u64) -> Entry {
    entry(&Nested { levels: levels(), generation }, 0)
}

fn other(view: usize) -> String {
    format!("other-{view:05}")
}

fn elsewhere(view: usize, number: u64) -> Entry {
    entry(&Nested { levels: vec![other(view)], generation: 0 }, number)
}
